//! One daemon of a cluster on this machine: its folder, its process.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};

use super::config::NodeConfig;
use super::ports;
use crate::arguments::Up;
use crate::exit::Failure;

/// How long a daemon may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(10);
/// The longest path of a socket, in bytes: `sun_path` less its end.
const LONGEST_SOCKET: usize = 107;

/// One node.
pub(super) struct Node {
    dir: PathBuf,
    number: usize,
    /// Where the log of this start begins: what stands before is of an earlier one.
    log_from: u64,
}

impl Node {
    pub(super) fn new(dir: &Path, number: usize) -> Self {
        Self { dir: dir.to_owned(), number, log_from: 0 }
    }

    pub(super) fn name(&self) -> String {
        format!("n{}", self.number)
    }

    fn folder(&self) -> PathBuf {
        self.dir.join(self.name())
    }

    pub(super) fn exists(&self) -> bool {
        self.config_file().is_file()
    }

    fn config_file(&self) -> PathBuf {
        self.folder().join("segstored.toml")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder().join("segstored.sock")
    }

    /// Whether the path of its socket is short enough.
    pub(super) fn check_socket(&self) -> Result<(), Failure> {
        let socket = self.socket();
        match socket.as_os_str().len() {
            0..=LONGEST_SOCKET => Ok(()),
            bytes => Err(Failure::Usage(format!(
                "{}: the path of a socket has {LONGEST_SOCKET} bytes at most, this one has {bytes}; choose a shorter --dir",
                socket.display()
            ))),
        }
    }

    /// Where it serves Prometheus.
    pub(super) fn metrics(&self) -> Option<String> {
        ports::read(&self.metrics_file())
    }

    fn metrics_file(&self) -> PathBuf {
        self.folder().join("segstored.metrics")
    }

    fn pid_file(&self) -> PathBuf {
        self.folder().join("segstored.pid")
    }

    fn log(&self) -> PathBuf {
        self.folder().join("segstored.log")
    }

    fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// On tmpfs, under a name that tells clusters apart.
    fn memory(&self) -> PathBuf {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.dir.hash(&mut hasher);
        PathBuf::from(format!("/dev/shm/segstore-dev-{:016x}-{}", hasher.finish(), self.name()))
    }

    /// The daemon's process, if it runs: a number that is somebody else's by now does not count.
    pub(super) fn pid(&self) -> Option<i32> {
        let pid: i32 = std::fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        self.is_daemon(pid).then_some(pid)
    }

    /// Whether that process is this node's daemon.
    fn is_daemon(&self, pid: i32) -> bool {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let own = self.config_file();
        command.split(|byte| *byte == 0).any(|argument| argument == own.as_os_str().as_encoded_bytes())
    }

    /// Starts the daemon, detached.
    pub(super) fn start(&mut self, up: &Up, directory: &str) -> Result<(), Failure> {
        let folder = self.folder();
        let saying = |error: std::io::Error| Failure::File(format!("{}: {error}", folder.display()));
        std::fs::create_dir_all(&folder).map_err(saying)?;
        self.await_former();
        let metrics = ports::chosen(&self.metrics_file())?;
        let config = self.config_file();
        std::fs::write(&config, self.config(up, directory, metrics).text()?).map_err(saying)?;
        let log = File::options().create(true).append(true).open(self.log()).map_err(saying)?;
        self.log_from = log.metadata().map_err(saying)?.len();
        let child = daemon()?
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Not of this terminal: it stays.
            .process_group(0)
            .spawn()
            .map_err(|error| Failure::File(format!("starting segstored: {error}")))?;
        std::fs::write(self.pid_file(), format!("{}\n", child.id())).map_err(saying)
    }

    /// Waits for a daemon that was killed and is not gone: with much memory that takes a while, in which it has no command any more.
    fn await_former(&self) {
        let until = Instant::now() + GRACE;
        let Ok(mut lock) = File::options().write(true).open(self.data().join("lock")) else { return };
        while let Err((file, Errno::EAGAIN)) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            if Instant::now() > until {
                return; // The daemon that is started says by whom it is used.
            }
            lock = file;
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn config(&self, up: &Up, directory: &str, metrics: String) -> NodeConfig {
        let (listen, at) = if self.number == 1 { (directory, "self") } else { ("127.0.0.1:0", directory) };
        NodeConfig {
            name: self.name(),
            listen: listen.to_owned(),
            directory: at.to_owned(),
            secret_file: self.dir.join("secret"),
            data_dir: self.data(),
            memory_dir: if up.on_disk { self.memory_on_disk() } else { self.memory() },
            memory: up.memory.clone().unwrap_or_else(|| "1GiB".to_owned()),
            socket: self.socket(),
            pid_file: self.pid_file(),
            transport: up.transport.clone(),
            node_lease: up.node_lease.clone(),
            metrics,
        }
    }

    /// An option that is given for a node that runs already does not change it.
    pub(super) fn tell_what_differs(&self, up: &Up) {
        let Some(present) = NodeConfig::read(&self.config_file()) else { return };
        let transport = present.transport.as_deref().unwrap_or("auto");
        let lease = present.node_lease.as_deref().unwrap_or("3s");
        let options = [
            ("memory", &up.memory, present.memory.as_str()),
            ("transport", &up.transport, transport),
            ("node-lease", &up.node_lease, lease),
        ];
        for (option, asked, is) in options {
            if let Some(asked) = asked.as_deref().filter(|asked| *asked != is) {
                let name = self.name();
                eprintln!(
                    "segctl: node {name} runs already, with --{option} {is}; --{option} {asked} is for the next start: \
                     `segctl dev down --dir {}` before",
                    self.dir.display()
                );
            }
        }
    }

    /// For what is too large for tmpfs.
    fn memory_on_disk(&self) -> PathBuf {
        self.folder().join("memory")
    }

    /// Whether the daemon was started and has ended.
    pub(super) fn has_failed(&self) -> bool {
        // Before the age: the file is empty for a moment when the daemon writes it anew, and young from then on.
        let runs = self.pid().is_some();
        let started = std::fs::metadata(self.pid_file()).and_then(|about| about.modified()).ok();
        let age = started.and_then(|at| at.elapsed().ok()).unwrap_or_default();
        !runs && age > Duration::from_secs(1)
    }

    /// The end of its log, as far as it is of this start.
    pub(super) fn last_words(&self) -> String {
        let mut log = Vec::new();
        if let Ok(mut file) = File::open(self.log()) {
            // What cannot be read is not told.
            let _ = file.seek(SeekFrom::Start(self.log_from)).and_then(|_| file.read_to_end(&mut log));
        }
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// Ends it, and removes what it leaves.
    pub(super) fn stop(&self) -> Result<(), Failure> {
        if let Some(pid) = self.terminate()? {
            self.await_end(pid)?;
        }
        self.clear()
    }

    /// Asks it to end: the process, if it runs.
    pub(super) fn terminate(&self) -> Result<Option<i32>, Failure> {
        let Some(pid) = self.pid() else { return Ok(None) };
        self.send(pid, Signal::SIGTERM)?;
        Ok(Some(pid))
    }

    fn send(&self, pid: i32, signal: Signal) -> Result<(), Failure> {
        match kill(Pid::from_raw(pid), signal) {
            // It has ended by itself.
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(Failure::Refused(format!(
                "node {}: process {pid} is {}'s, and cannot be ended by {}: {error}",
                self.name(),
                owner(pid),
                user(Uid::effective())
            ))),
        }
    }

    /// Waits for its end; kills it when that takes too long.
    pub(super) fn await_end(&self, pid: i32) -> Result<(), Failure> {
        if self.ends_within(pid, GRACE) {
            return Ok(());
        }
        eprintln!("segctl: node {} does not end: killing process {pid}", self.name());
        self.send(pid, Signal::SIGKILL)?;
        if self.ends_within(pid, GRACE) {
            return Ok(());
        }
        let grace = humantime::format_duration(GRACE);
        Err(Failure::Unwell(format!("node {}: process {pid} was killed, and has not ended for {grace}", self.name())))
    }

    fn ends_within(&self, pid: i32, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        // Not by its file, which goes before the process does.
        while self.is_daemon(pid) {
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Removes what a stopped daemon leaves: socket, process number, memory. Its data and log stay.
    pub(super) fn clear(&self) -> Result<(), Failure> {
        for file in [self.socket(), self.pid_file()] {
            let _ = std::fs::remove_file(file);
        }
        [self.memory(), self.memory_on_disk()].iter().try_for_each(|memory| remove(memory))
    }

    /// Removes its data: who it was, and, on the first node, the directory.
    pub(super) fn forget(&self) -> Result<(), Failure> {
        remove(&self.data())
    }
}

/// A folder, if it is there.
fn remove(folder: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::File(format!("{}: {error}", folder.display())))
        }
        _ => Ok(()),
    }
}

fn owner(pid: i32) -> String {
    use std::os::unix::fs::MetadataExt;
    let about = std::fs::metadata(format!("/proc/{pid}"));
    about.map_or_else(|_| "somebody".to_owned(), |about| user(Uid::from_raw(about.uid())))
}

fn user(uid: Uid) -> String {
    User::from_uid(uid).ok().flatten().map_or_else(|| format!("user {uid}"), |user| user.name)
}

/// `segstored`, beside this program or on the path. What its environment says is for other daemons: these have their files.
pub(crate) fn daemon() -> Result<Command, Failure> {
    let mut daemon = Command::new(program()?);
    let is_setting = |name: &OsString| name.as_encoded_bytes().starts_with(b"SEGSTORED_");
    for name in std::env::vars_os().map(|(name, _)| name).filter(is_setting) {
        daemon.env_remove(name);
    }
    Ok(daemon)
}

fn program() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().map_err(|error| Failure::File(format!("finding segctl itself: {error}")))?;
    let beside = own.with_file_name("segstored");
    if beside.is_file() {
        return Ok(beside);
    }
    let on_path = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|folder| folder.join("segstored")).find(|program| program.is_file())
    });
    on_path.ok_or_else(|| {
        Failure::File(format!("segstored is neither beside {} nor on the path: install or build it", own.display()))
    })
}
