//! A real etcd, of one member or several, on this machine. Its data is in memory: a busy disk takes it hundreds of milliseconds.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::ports::unused;
use crate::program::command;

/// How its clients reach it, and who they are.
pub(crate) const QUICK: [&str; 4] = ["--heartbeat-interval", "50", "--election-timeout", "500"];

/// An etcd that runs until this goes.
pub(crate) struct EtcdServer {
    members: Vec<Member>,
    /// The namespace from which all of them are reached.
    within: Option<String>,
    /// Options by which `etcdctl` says who asks.
    pub(crate) asker: Vec<String>,
    place: TempDir,
}

/// Where a member listens, and in which network namespace, if not in this process's own.
pub(crate) struct Site {
    pub(crate) client: String,
    pub(crate) peer: String,
    pub(crate) namespace: Option<String>,
}

struct Member {
    site: Site,
    process: Option<Child>,
}

impl EtcdServer {
    /// So many members on this machine's loopback, each with these options.
    pub(crate) fn start(members: usize, options: &[&str]) -> Self {
        let is_secure = options.contains(&"--cert-file");
        let scheme = if is_secure { "https" } else { "http" };
        let site = |_| Site {
            client: format!("{scheme}://{}", unused()),
            peer: format!("http://{}", unused()),
            namespace: None,
        };
        Self::start_at((0..members).map(site).collect(), None, Path::new("/dev/shm"), options)
    }

    /// A member at each of these sites, all of which are reached from the namespace `within`; their data is in `memory`.
    pub(crate) fn start_at(sites: Vec<Site>, within: Option<String>, memory: &Path, options: &[&str]) -> Self {
        let place = tempfile::tempdir_in(memory).unwrap();
        let members: Vec<_> = sites.into_iter().map(|site| Member { site, process: None }).collect();
        let mut server = Self { members, within, asker: Vec::new(), place };
        (0..server.members.len()).for_each(|at| server.boot(at, options));
        server
    }

    /// Starts a member that does not run.
    pub(crate) fn boot(&mut self, at: usize, options: &[&str]) {
        let all: Vec<_> =
            (0..).zip(&self.members).map(|(n, member): (usize, _)| format!("m{n}={}", member.site.peer)).collect();
        let (data, Member { site, process }) = (self.place.path().join(format!("m{at}")), &mut self.members[at]);
        let log = std::fs::File::create(self.place.path().join(format!("m{at}.log"))).unwrap();
        let mut program = command(site.namespace.as_deref(), "etcd");
        program
            .args(["--name", &format!("m{at}"), "--initial-cluster", &all.join(","), "--log-outputs", "stderr"])
            .args(["--listen-client-urls", &site.client, "--advertise-client-urls", &site.client])
            .args(["--listen-peer-urls", &site.peer, "--initial-advertise-peer-urls", &site.peer])
            .arg("--data-dir")
            .arg(data)
            .args(options)
            .stdout(Stdio::null())
            .stderr(log);
        *process = Some(program.spawn().expect("no etcd on this machine: apt-get install etcd-server"));
    }

    /// Where its clients find its members.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.site.client.clone()).collect()
    }

    pub(crate) fn signal(&mut self, at: usize, signal: Signal) {
        let process = self.members[at].process.as_mut().expect("it runs");
        kill(Pid::from_raw(process.id().cast_signed()), signal).unwrap();
        if signal == Signal::SIGKILL {
            process.wait().unwrap();
        }
    }

    /// Runs `etcdctl` against all members until it succeeds; gives what it prints.
    pub(crate) fn control(&self, arguments: &[&str]) -> String {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let said = match self.attempt(arguments) {
                Ok(said) => return said,
                Err(said) => said,
            };
            assert!(Instant::now() < until, "etcdctl {arguments:?}: {said}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The same once; gives what it says instead where it fails.
    fn attempt(&self, arguments: &[&str]) -> Result<String, String> {
        let done = command(self.within.as_deref(), "etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.endpoints().join(",")])
            .args(&self.asker)
            .args(arguments)
            .output()
            .expect("no etcdctl on this machine: apt-get install etcd-client");
        let said = if done.status.success() { &done.stdout } else { &done.stderr };
        let said = String::from_utf8_lossy(said).into_owned();
        if done.status.success() { Ok(said) } else { Err(said) }
    }

    /// Which member leads: waits for one.
    pub(crate) fn leader(&self) -> usize {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(at) = self.leads() {
                return at;
            }
            assert!(Instant::now() < until, "nobody leads\n{}", self.logs());
        }
    }

    /// Which member leads, if every member answers and one does.
    pub(crate) fn leads(&self) -> Option<usize> {
        let status = self.attempt(&["endpoint", "status"]).ok()?;
        let leader = status.lines().find(|line| line.split(", ").nth(4) == Some("true"))?;
        let endpoint = leader.split(',').next()?;
        self.endpoints().iter().position(|found| found == endpoint)
    }

    /// The last that each member said.
    fn logs(&self) -> String {
        let last = |at| {
            let log = std::fs::read_to_string(self.place.path().join(format!("m{at}.log"))).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            format!("m{at}:\n{}\n", lines[lines.len().saturating_sub(15)..].join("\n"))
        };
        (0..self.members.len()).map(last).collect()
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        for process in self.members.iter_mut().filter_map(|member| member.process.as_mut()) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
