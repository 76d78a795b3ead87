//! The nodes of a run, each a daemon and applications in a network namespace, and the etcd that they agree in.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use segstore::Session;

use crate::etcd_server::{EtcdServer, QUICK, Site};
use crate::network::{Network, address};
use crate::place::Place;
use crate::processes::{Process, Told, trouble};
use crate::program::command;
use crate::roles::ROLE;
use crate::segments::{NODES, SEGMENTS, Spec};

/// Of etcd.
pub(crate) const MEMBERS: usize = 3;
/// On these nodes somebody loads segments without owning them.
const READERS: [usize; 3] = [0, 2, 3];
/// How long a process that has ended stays away.
const REST: Duration = Duration::from_millis(300);
/// How long anything may take when nothing is in the way.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(90);

/// Processes end before the network does, and files go last.
pub(crate) struct Cluster {
    daemons: Vec<Option<Process>>,
    /// Whether a node has power.
    is_on: [bool; NODES],
    applications: Vec<Application>,
    pub(crate) etcd: EtcdServer,
    pub(crate) network: Network,
    pub(crate) place: Place,
    told: Sender<Told>,
    started: u64,
}

/// A process of an application, which is started again whenever it has ended.
struct Application {
    role: &'static str,
    segment: &'static str,
    node: usize,
    process: Option<Process>,
    ended: Instant,
}

impl Cluster {
    /// Nodes that see each other, and empty segments.
    pub(crate) fn start(told: Sender<Told>) -> Self {
        let place = Place::new();
        let network = Network::new(place.name(), NODES + MEMBERS);
        let sites = (0..MEMBERS).map(|member| site(&network, member)).collect();
        let etcd = EtcdServer::start_at(sites, Some(network.switch()), &place.memory(""), &QUICK);
        etcd.leader();
        let daemons = (0..NODES).map(|_| None).collect();
        let is_on = [true; NODES];
        let mut cluster = Self { daemons, is_on, applications: applications(), etcd, network, place, told, started: 0 };
        let secret = cluster.place.file("secret");
        std::fs::write(&secret, "an altogether secret sentence").unwrap();
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
        (0..NODES).for_each(|node| cluster.start_daemon(node));
        cluster.until_all_are_up().unwrap();
        for spec in &SEGMENTS {
            cluster.session(0).unwrap().create(spec.name, &spec.options()).unwrap();
        }
        cluster
    }

    pub(crate) fn socket(&self, node: usize) -> PathBuf {
        self.place.file(&format!("n{node}.sock"))
    }

    /// A client of this node, in this process.
    pub(crate) fn session(&self, node: usize) -> Result<Session, String> {
        until("the daemon serves", || Session::connect_to(self.socket(node)).map_err(|error| error.to_string()))
    }

    /// Waits until every node sees every other.
    pub(crate) fn until_all_are_up(&self) -> Result<(), String> {
        for node in 0..NODES {
            let session = self.session(node)?;
            until("the nodes see each other", || {
                let nodes = session.nodes().map_err(|error| error.to_string())?;
                let up = nodes.iter().filter(|node| node.up).count();
                if up == NODES { Ok(()) } else { Err(format!("n{node} sees {nodes:?}")) }
            })?;
        }
        Ok(())
    }

    // ---- daemons ----

    pub(crate) fn start_daemon(&mut self, node: usize) {
        let name = format!("n{node}");
        let mut command = command(Some(&self.network.host(node)), env!("CARGO_BIN_EXE_segstored"));
        command
            .args(["--name", &name, "--listen", &format!("{}:7420", address(node)), "--directory", "etcd"])
            .args(["--etcd-endpoints", &self.etcd.endpoints().join(",")])
            .args(["--metrics", "off", "--memory", "512MiB", "--node-lease", "1s"])
            // They share a kernel, and are to share nothing but cables.
            .args(["--transport", "tcp"])
            .arg("--data-dir")
            .arg(self.place.memory(&format!("{name}-data")))
            .arg("--memory-dir")
            .arg(self.place.memory(&name))
            .arg("--socket")
            .arg(self.socket(node))
            .arg("--secret-file")
            .arg(self.place.file("secret"))
            .stdout(Stdio::null())
            .stderr(self.place.log(&name));
        self.daemons[node] = Some(Process::start(name, &mut command));
    }

    pub(crate) fn kill_daemon(&mut self, node: usize) {
        self.daemons[node].take().into_iter().for_each(Process::kill);
    }

    /// Kills everything on a node, whose cable is out from then on.
    pub(crate) fn power_off(&mut self, node: usize) {
        self.network.cut(node, true);
        self.kill_daemon(node);
        for application in self.applications.iter_mut().filter(|application| application.node == node) {
            application.kill();
        }
        self.is_on[node] = false;
    }

    pub(crate) fn power_on(&mut self, node: usize) {
        self.network.cut(node, false);
        self.start_daemon(node);
        self.is_on[node] = true;
    }

    /// What a node that has no power had in its memory is gone.
    pub(crate) fn lose_memory(&self, node: usize) {
        std::fs::remove_dir_all(self.place.memory(&format!("n{node}"))).unwrap();
    }

    pub(crate) fn signal_daemon(&self, node: usize, signal: Signal) {
        self.daemons[node].iter().for_each(|daemon| daemon.signal(signal));
    }

    /// Pulls the cable of one of etcd's members, or plugs it in again.
    pub(crate) fn cut_member(&self, member: usize, is_cut: bool) {
        self.network.cut(NODES + member, is_cut);
    }

    /// Whether no node is without power.
    pub(crate) fn all_are_on(&self) -> bool {
        self.is_on.iter().all(|is_on| *is_on)
    }

    // ---- applications ----

    /// Where reports go.
    pub(crate) fn told(&self) -> Sender<Told> {
        self.told.clone()
    }

    /// Starts a process of this binary in another role on a node.
    pub(crate) fn start_role(&mut self, role: &str, segment: &str, node: usize) -> Process {
        self.started += 1;
        let name = format!("{role} {} on n{node}", self.started);
        let mut command = command(Some(&self.network.host(node)), std::env::current_exe().unwrap());
        command.env(ROLE, role).env("SEGSTORE_SOCKET", self.socket(node)).arg(segment);
        command.stderr(self.place.log("applications"));
        Process::reporting(name, &mut command, self.told.clone())
    }

    /// Starts what has ended and should run; says what should not have ended as it has.
    pub(crate) fn tend(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        for daemon in &mut self.daemons {
            let ended = daemon.as_mut().and_then(Process::ended);
            if let (Some(status), Some(process)) = (ended, daemon.take_if(|_| ended.is_some())) {
                wrong.push(format!("the daemon of {} has ended by itself: {status}", process.name));
            }
        }
        for application in &mut self.applications {
            let ended = application.process.as_mut().and_then(Process::ended);
            if let (Some(status), Some(process)) = (ended, application.process.take_if(|_| ended.is_some())) {
                application.ended = Instant::now();
                let name = &process.name;
                wrong.extend(trouble(status).map(|how| format!("{name} has ended by itself: {how}")));
            }
        }
        // Somebody who came to take a segment by force does not come again.
        self.applications.retain(|application| application.process.is_some() || application.role != FORCE);
        for i in 0..self.applications.len() {
            let Application { role, segment, node, ref process, ended } = self.applications[i];
            if process.is_none() && self.is_on[node] && ended.elapsed() > REST {
                self.applications[i].process = Some(self.start_role(role, segment, node));
            }
        }
        wrong
    }

    /// Starts somebody who takes a segment by force.
    pub(crate) fn force(&mut self, segment: &'static str, node: usize) {
        let process = Some(self.start_role(FORCE, segment, node));
        self.applications.push(Application { role: FORCE, segment, node, process, ended: Instant::now() });
    }

    /// The node that a process is on, if it runs.
    pub(crate) fn node_of(&self, process: &str) -> Option<usize> {
        self.applications.iter().find(|application| application.is_called(process)).map(|application| application.node)
    }

    pub(crate) fn kill_application(&mut self, process: &str) {
        for application in self.applications.iter_mut().filter(|application| application.is_called(process)) {
            application.kill();
        }
    }

    pub(crate) fn signal_application(&self, process: &str, signal: Signal) {
        let called = self.applications.iter().filter(|application| application.is_called(process));
        called.for_each(|application| application.signal(signal));
    }

    pub(crate) fn signal_applications_on(&self, node: usize, signal: Signal) {
        let there = self.applications.iter().filter(|application| application.node == node);
        there.for_each(|application| application.signal(signal));
    }

    /// No application runs any more, and none comes again.
    pub(crate) fn end_applications(&mut self) {
        self.applications.drain(..).filter_map(|application| application.process).for_each(Process::kill);
    }

    /// Stops every daemon as an operator does.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        (0..NODES).for_each(|node| self.signal_daemon(node, Signal::SIGTERM));
        for daemon in self.daemons.iter_mut().flatten() {
            let name = daemon.name.clone();
            let status = until("the daemons stop", || daemon.ended().ok_or_else(|| format!("{name} runs")))?;
            if let Some(how) = trouble(status) {
                return Err(format!("the daemon of {name} was stopped and ended with {how}"));
            }
        }
        Ok(())
    }
}

/// The role of who takes a segment by force.
const FORCE: &str = "usurper";

impl Application {
    fn is_called(&self, process: &str) -> bool {
        self.process.as_ref().is_some_and(|own| own.name == process)
    }

    fn signal(&self, signal: Signal) {
        self.process.iter().for_each(|process| process.signal(signal));
    }

    fn kill(&mut self) {
        self.process.take().into_iter().for_each(Process::kill);
        self.ended = Instant::now();
    }
}

fn applications() -> Vec<Application> {
    let application = |role, segment, node| Application { role, segment, node, process: None, ended: Instant::now() };
    let owners = SEGMENTS.iter().flat_map(|spec| spec.candidates().map(move |node| (spec, node)));
    let role = |spec: &Spec| if spec.rests { "visitor" } else { "owner" };
    let owners = owners.map(|(spec, node)| application(role(spec), spec.name, node));
    owners.chain(READERS.into_iter().map(|node| application("reader", "", node))).collect()
}

fn site(network: &Network, member: usize) -> Site {
    let host = NODES + member;
    let at = |port| format!("http://{}:{port}", address(host));
    Site { client: at(2379), peer: at(2380), namespace: Some(network.host(host)) }
}

/// Waits for something, as long as the watchdog lets it.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let started = Instant::now();
    loop {
        match look() {
            Err(why) if started.elapsed() > WATCHDOG => return Err(format!("waited too long until {what}: {why}")),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
            found => return found,
        }
    }
}
