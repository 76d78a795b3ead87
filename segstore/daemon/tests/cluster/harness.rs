//! Real daemons and real client processes, killed and stopped as the test likes.

#[cfg(feature = "etcd")]
use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use segstore::{SESSION_VARIABLE, Session};
use tempfile::TempDir;

use crate::ports::unused;

/// How long anything may take before the test counts as hung.
pub(super) const WATCHDOG: Duration = Duration::from_secs(60);

/// A cluster of daemons, the first of which keeps the directory. Its memory is on tmpfs; nothing of it is left.
pub(super) struct Cluster {
    place: TempDir,
    memory: TempDir,
    /// Options of each daemon that say where the directory is; where no daemon keeps it, of all the same.
    directory: Vec<String>,
    /// Where the first daemon listens, if it keeps the directory.
    keeper: Option<String>,
    options: Vec<String>,
    environment: Vec<(&'static str, OsString)>,
    daemons: Vec<Option<Child>>,
}

/// A process of this test binary in another role.
pub(super) struct Client {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Cluster {
    /// So many nodes, with these further options of the daemon; `{node}` in them is the node's number.
    pub(super) fn start(nodes: usize, options: &[&str]) -> Cluster {
        Cluster::start_in(Vec::new(), nodes, options)
    }

    /// The same, its daemons and its clients with these further variables.
    pub(super) fn start_in(environment: Vec<(&'static str, OsString)>, nodes: usize, options: &[&str]) -> Cluster {
        let free = unused();
        let directory = ["--directory", &free].map(str::to_owned).to_vec();
        Cluster::start_with(directory, Some(free), environment, nodes, options)
    }

    /// So many nodes whose directory is in an etcd.
    #[cfg(feature = "etcd")]
    pub(super) fn on_etcd(endpoints: &[String], nodes: usize, options: &[&str]) -> Cluster {
        Cluster::start_with(in_etcd(endpoints), None, Vec::new(), nodes, options)
    }

    fn start_with(
        directory: Vec<String>,
        keeper: Option<String>,
        environment: Vec<(&'static str, OsString)>,
        nodes: usize,
        options: &[&str],
    ) -> Cluster {
        let mut cluster = Cluster {
            place: TempDir::new().unwrap(),
            memory: TempDir::new_in("/dev/shm").unwrap(),
            directory,
            keeper,
            options: options.iter().map(|&option| option.to_owned()).collect(),
            environment,
            daemons: Vec::new(),
        };
        let secret = cluster.place.path().join("secret");
        std::fs::write(&secret, "an altogether secret sentence").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&secret, mode).unwrap();
        for node in 0..nodes {
            cluster.daemons.push(None);
            cluster.restart(node);
        }
        cluster.until_up(nodes);
        cluster
    }

    /// A client of this node, in this process.
    pub(super) fn session(&self, node: usize) -> Session {
        Session::connect_to(self.socket(node)).unwrap()
    }

    pub(super) fn socket(&self, node: usize) -> PathBuf {
        self.place.path().join(format!("n{node}.sock"))
    }

    pub(super) fn memory(&self, node: usize) -> PathBuf {
        self.memory.path().join(format!("n{node}"))
    }

    /// The slots of the one replica that a node keeps.
    pub(super) fn slots(&self, node: usize) -> PathBuf {
        let files = std::fs::read_dir(self.memory(node)).unwrap().flatten().map(|file| file.path());
        files.into_iter().find(|file| file.extension().is_some_and(|kind| kind == "slots")).unwrap()
    }

    /// Whether a node has the memory of any replica.
    pub(super) fn has_slots(&self, node: usize) -> bool {
        let files = std::fs::read_dir(self.memory(node)).unwrap();
        files.flatten().any(|file| file.path().extension().is_some_and(|kind| kind == "slots"))
    }

    /// Alters some bytes in the middle of what the state takes, in a slot of the one replica that a node keeps; a segment has two.
    pub(super) fn alter(&self, node: usize, slot: u64) {
        let file = std::fs::File::options().read(true).write(true).open(self.slots(node)).unwrap();
        let at = slot * file.metadata().unwrap().len() / 2 + 64 * 1024;
        let mut bytes = [0; 100];
        file.read_exact_at(&mut bytes, at).unwrap();
        file.write_all_at(&bytes.map(|byte| byte ^ 1), at).unwrap();
    }

    pub(super) fn data(&self, node: usize) -> PathBuf {
        self.place.path().join(format!("n{node}"))
    }

    /// Every node has its directory in an etcd from here on, in which nothing stands so far: the first one's is exported and imported
    /// while its daemon is stopped.
    #[cfg(feature = "etcd")]
    pub(super) fn move_to_etcd(&mut self, endpoints: &[String]) {
        self.kill(0);
        self.move_directory(None, in_etcd(endpoints));
        let document = self.place.path().join("exported.json");
        let again = self.command(0).arg("--import-directory").arg(&document).status().unwrap();
        assert!(!again.success(), "it has gone on since");
    }

    /// The first node keeps the directory from here on, which is in an etcd.
    #[cfg(feature = "etcd")]
    pub(super) fn move_to_file(&mut self) {
        (0..self.daemons.len()).for_each(|node| self.kill(node));
        let free = unused();
        self.move_directory(Some(free.clone()), vec!["--directory".to_owned(), free]);
    }

    /// Exports what there is, imports it into what these options name, and starts every daemon anew.
    #[cfg(feature = "etcd")]
    fn move_directory(&mut self, keeper: Option<String>, directory: Vec<String>) {
        let document = self.place.path().join("exported.json");
        let exported = self.command(0).arg("--export-directory").arg(&document).status().unwrap();
        assert!(exported.success(), "{}", self.logs());
        (self.keeper, self.directory) = (keeper, directory);
        for _ in 0..2 {
            let imported = self.command(0).arg("--import-directory").arg(&document).status().unwrap();
            assert!(imported.success(), "an import may be repeated: {}", self.logs());
        }
        (0..self.daemons.len()).for_each(|node| self.restart(node));
        self.until_up(self.daemons.len());
    }

    /// The command that runs a node's daemon.
    pub(super) fn command(&self, node: usize) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_segstored"));
        let own = self.keeper.as_ref().filter(|_| node == 0);
        let directory = if own.is_some() { vec!["--directory".into(), "self".into()] } else { self.directory.clone() };
        let listen = own.map_or("127.0.0.1:0", String::as_str);
        let log = std::fs::File::options().append(true).create(true).open(self.log(node)).unwrap();
        command
            .args(["--name", &format!("n{node}"), "--listen", listen])
            .args(directory)
            .args(["--metrics", "off", "--memory", "512MiB", "--node-lease", "1s"])
            .arg("--data-dir")
            .arg(self.data(node))
            .arg("--memory-dir")
            .arg(self.memory(node))
            .arg("--socket")
            .arg(self.socket(node))
            .arg("--secret-file")
            .arg(self.place.path().join("secret"))
            .args(self.options.iter().map(|option| option.replace("{node}", &node.to_string())))
            .envs(self.environment.clone())
            .stderr(log);
        command
    }

    pub(super) fn log(&self, node: usize) -> PathBuf {
        self.place.path().join(format!("n{node}.log"))
    }

    /// Starts a node's daemon (again), and waits until it serves.
    pub(super) fn restart(&mut self, node: usize) {
        self.kill(node);
        self.spawn(node);
        until("the daemon serves", || Session::connect_to(self.socket(node)).ok());
    }

    /// The same with further options.
    pub(super) fn restart_with(&mut self, node: usize, options: &[&str]) {
        self.options.extend(options.iter().map(|&option| option.to_owned()));
        self.restart(node);
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self, node: usize) {
        if let Some(mut daemon) = self.daemons[node].take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    /// Stops a node's daemon without ending it: it answers nobody, and breaks no connection.
    pub(super) fn pause(&self, node: usize) {
        self.signal(node, Signal::SIGSTOP);
        let daemon = self.process(node);
        // From then on, not from somewhen: a thread that runs goes on for a moment.
        assert_eq!(waitpid(daemon, Some(WaitPidFlag::WUNTRACED)), Ok(WaitStatus::Stopped(daemon, Signal::SIGSTOP)));
    }

    /// Lets it go on.
    pub(super) fn resume(&self, node: usize) {
        self.signal(node, Signal::SIGCONT);
    }

    fn signal(&self, node: usize, signal: Signal) {
        kill(self.process(node), signal).unwrap();
    }

    /// How often each thread of a node's daemon has gone to sleep so far.
    #[cfg(feature = "etcd")]
    pub(super) fn sleeps(&self, node: usize) -> HashMap<OsString, u64> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process(node))).unwrap().flatten();
        let of_thread = |thread: std::fs::DirEntry| {
            // One may end meanwhile.
            let status = std::fs::read_to_string(thread.path().join("status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            Some((thread.file_name(), line.trim().parse().unwrap()))
        };
        threads.filter_map(of_thread).collect()
    }

    fn process(&self, node: usize) -> Pid {
        Pid::from_raw(self.daemons[node].as_ref().unwrap().id().try_into().unwrap())
    }

    /// Starts a node's daemon again with other labels.
    pub(super) fn label(&mut self, node: usize, labels: &str) {
        let options = std::mem::take(&mut self.options);
        self.restart_as(node, &["--labels", &labels.replace("{node}", &node.to_string())]);
        self.options = options;
    }

    /// Starts one more node under a name of its own choice, without waiting for it.
    pub(super) fn spawn_named(&mut self, name: &str) -> usize {
        let node = self.daemons.len();
        self.daemons.push(None);
        self.spawn_as(node, &["--name", name]);
        node
    }

    /// Starts a node's daemon again under another name.
    pub(super) fn rename(&mut self, node: usize, name: &str) {
        self.restart_as(node, &["--name", name]);
    }

    /// Starts a node's daemon again with options for this time alone.
    pub(super) fn restart_as(&mut self, node: usize, options: &[&str]) {
        self.kill(node);
        self.spawn_as(node, options);
        until("the daemon serves", || Session::connect_to(self.socket(node)).ok());
    }

    /// Whether a node's daemon has not ended.
    pub(super) fn runs(&mut self, node: usize) -> bool {
        self.daemons[node].as_mut().is_some_and(|daemon| daemon.try_wait().unwrap().is_none())
    }

    /// Starts a node's daemon without waiting for it.
    pub(super) fn spawn(&mut self, node: usize) {
        self.spawn_as(node, &[]);
    }

    /// The same with options for this time alone.
    fn spawn_as(&mut self, node: usize, options: &[&str]) {
        self.daemons[node] = Some(self.command(node).args(options).spawn().unwrap());
    }

    /// Waits until every daemon that runs sees so many nodes.
    pub(super) fn until_up(&self, nodes: usize) {
        for (node, _) in self.daemons.iter().enumerate().filter(|(_, daemon)| daemon.is_some()) {
            let session = self.session(node);
            until("the nodes see each other", || {
                let up = session.nodes().unwrap().into_iter().filter(|node| node.up).count();
                (up == nodes).then_some(())
            });
        }
    }

    /// A process in another role, connected to this node.
    pub(super) fn client(&self, node: usize, role: &str, arguments: &[&str]) -> Client {
        self.client_as(0, node, role, arguments)
    }

    /// The same, as another user.
    pub(super) fn client_as(&self, user: u32, node: usize, role: &str, arguments: &[&str]) -> Client {
        self.start_client(Command::new(std::env::current_exe().unwrap()).uid(user), node, role, arguments)
    }

    /// The same, in the session that this joins.
    pub(super) fn client_in(&self, session: &str, node: usize, role: &str, arguments: &[&str]) -> Client {
        let mut command = Command::new(std::env::current_exe().unwrap());
        self.start_client(command.env(SESSION_VARIABLE, session), node, role, arguments)
    }

    fn start_client(&self, command: &mut Command, node: usize, role: &str, arguments: &[&str]) -> Client {
        let mut child = command
            .args(["--exact", "roles::role", "--nocapture", "--test-threads", "1"])
            .env("ROLE", role)
            .env("ARGUMENTS", arguments.join(" "))
            .env("SEGSTORE_SOCKET", self.socket(node))
            .envs(self.environment.clone())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Client { child, lines }
    }

    /// What every node logged.
    pub(super) fn logs(&self) -> String {
        let log = |node| std::fs::read_to_string(self.log(node)).unwrap_or_default();
        (0..self.daemons.len()).map(|node| format!("--- n{node}\n{}", log(node))).collect()
    }
}

/// Options of a daemon whose directory is there.
#[cfg(feature = "etcd")]
fn in_etcd(endpoints: &[String]) -> Vec<String> {
    ["--directory", "etcd", "--etcd-endpoints", &endpoints.join(",")].map(str::to_owned).to_vec()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for node in 0..self.daemons.len() {
            self.kill(node);
        }
    }
}

impl Client {
    /// The next line that it prints with this word at its start, without the word; `None` when it has ended.
    pub(super) fn line(&mut self, word: &str) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(rest) = line.trim().strip_prefix(word) {
                return Some(rest.trim().to_owned());
            }
        }
    }

    /// Every further number that it prints after this word, to its end.
    pub(super) fn last_number(&mut self, word: &str) -> Option<u64> {
        let mut last = None;
        while let Some(line) = self.line(word) {
            // The line that was cut off by the kill was not printed.
            last = line.parse().ok().or(last);
        }
        last
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for something, as long as the watchdog lets it.
pub(super) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < WATCHDOG, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
