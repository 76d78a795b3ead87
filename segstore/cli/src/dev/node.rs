//! One daemon of a cluster on this machine: its folder, its process.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::arguments::Up;
use crate::exit::Failure;

/// How long a daemon may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(10);

/// One node.
pub(super) struct Node {
    dir: PathBuf,
    number: usize,
}

impl Node {
    pub(super) fn new(dir: &Path, number: usize) -> Self {
        Self { dir: dir.to_owned(), number }
    }

    pub(super) fn name(&self) -> String {
        format!("n{}", self.number)
    }

    fn folder(&self) -> PathBuf {
        self.dir.join(self.name())
    }

    pub(super) fn exists(&self) -> bool {
        self.folder().join("segstored.toml").is_file()
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder().join("segstored.sock")
    }

    fn pid_file(&self) -> PathBuf {
        self.folder().join("segstored.pid")
    }

    fn log(&self) -> PathBuf {
        self.folder().join("segstored.log")
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
        let own = self.folder().join("segstored.toml");
        command.split(|byte| *byte == 0).any(|argument| argument == own.as_os_str().as_encoded_bytes())
    }

    /// Starts the daemon, detached.
    pub(super) fn start(&self, up: &Up, directory: &str) -> Result<(), Failure> {
        let folder = self.folder();
        let saying = |error: std::io::Error| Failure::File(format!("{}: {error}", folder.display()));
        std::fs::create_dir_all(&folder).map_err(saying)?;
        let config = folder.join("segstored.toml");
        std::fs::write(&config, self.config(up, directory)).map_err(saying)?;
        let log = File::options().create(true).append(true).open(self.log()).map_err(saying)?;
        let program = daemon()?;
        let child = Command::new(&program)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Not of this terminal: it stays.
            .process_group(0)
            .spawn()
            .map_err(|error| Failure::File(format!("starting {}: {error}", program.display())))?;
        std::fs::write(self.pid_file(), format!("{}\n", child.id())).map_err(saying)
    }

    fn config(&self, up: &Up, directory: &str) -> String {
        let (listen, at) = if self.number == 1 { (directory, "self") } else { ("127.0.0.1:0", directory) };
        let text = |path: PathBuf| toml_string(&path.to_string_lossy());
        format!(
            "name = {}\nlisten = {}\ndirectory = {}\nsecret_file = {}\ndata_dir = {}\nmemory_dir = {}\nmemory = {}\n\
             socket = {}\npid_file = {}\ntransport = {}\nnode_lease = {}\nmetrics = \"off\"\n",
            toml_string(&self.name()),
            toml_string(listen),
            toml_string(at),
            text(self.dir.join("secret")),
            text(self.folder().join("data")),
            text(if up.on_disk { self.memory_on_disk() } else { self.memory() }),
            toml_string(&up.memory),
            text(self.socket()),
            text(self.pid_file()),
            toml_string(&up.transport),
            toml_string(&up.node_lease),
        )
    }

    /// For what is too large for tmpfs.
    fn memory_on_disk(&self) -> PathBuf {
        self.folder().join("memory")
    }

    /// Whether the daemon was started and has ended.
    pub(super) fn has_failed(&self) -> bool {
        let started = std::fs::metadata(self.pid_file()).and_then(|about| about.modified()).ok();
        let age = started.and_then(|at| at.elapsed().ok()).unwrap_or_default();
        self.pid().is_none() && age > Duration::from_secs(1)
    }

    /// The end of its log.
    pub(super) fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// Asks it to end: the process, if it runs.
    pub(super) fn terminate(&self) -> Option<i32> {
        let pid = self.pid()?;
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        Some(pid)
    }

    /// Waits for its end; kills it when that takes too long.
    pub(super) fn await_end(&self, pid: i32) {
        let until = Instant::now() + GRACE;
        // Not by its file, which goes before the process does.
        while self.is_daemon(pid) {
            if Instant::now() > until {
                eprintln!("segctl: node {} does not end: killing process {pid}", self.name());
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Removes what a stopped daemon leaves: socket, process number, memory. Its data and log stay.
    pub(super) fn clear(&self) -> Result<(), Failure> {
        for file in [self.socket(), self.pid_file()] {
            let _ = std::fs::remove_file(file);
        }
        for memory in [self.memory(), self.memory_on_disk()] {
            match std::fs::remove_dir_all(&memory) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Failure::File(format!("{}: {error}", memory.display())));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// `segstored` beside this program, or on the path.
fn daemon() -> Result<PathBuf, Failure> {
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

fn toml_string(text: &str) -> String {
    format!("{text:?}")
}
