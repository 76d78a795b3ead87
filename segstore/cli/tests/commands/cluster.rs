//! A cluster that `dev up` starts, and ends with the test.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) struct Cluster {
    place: TempDir,
}

pub(crate) fn segctl() -> Command {
    // It starts daemons.
    drop(segstored());
    let mut command = Command::new(env!("CARGO_BIN_EXE_segctl"));
    command.env_remove("SEGSTORE_SOCKET").env_remove("SEGSTORE_SESSION");
    command
}

pub(crate) fn segstored() -> Command {
    let daemon = Path::new(env!("CARGO_BIN_EXE_segctl")).with_file_name("segstored");
    assert!(daemon.is_file(), "{} is not built: cargo test -p segstored --no-run", daemon.display());
    Command::new(daemon)
}

impl Cluster {
    pub(crate) fn start(nodes: usize) -> Cluster {
        Cluster::start_over(nodes, "auto")
    }

    pub(crate) fn start_over(nodes: usize, transport: &str) -> Cluster {
        let cluster = Cluster { place: TempDir::new().unwrap() };
        let (nodes, dir) = (nodes.to_string(), cluster.dir());
        let wanted = ["--nodes", &nodes, "--memory", "256MiB", "--transport", transport, "--dir", dir];
        let up = cluster.run(&[&["dev", "up"], &wanted[..]].concat());
        assert!(up.status.success(), "{up:?}");
        cluster
    }

    pub(crate) fn dir(&self) -> &str {
        self.place.path().to_str().unwrap()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub(crate) fn socket(&self, node: usize) -> PathBuf {
        self.file(&format!("n{node}/segstored.sock"))
    }

    pub(crate) fn command(&self, node: usize, arguments: &[&str]) -> Command {
        let mut command = segctl();
        command.arg("--socket").arg(self.socket(node)).args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(1, arguments).output().unwrap()
    }

    pub(crate) fn code(&self, arguments: &[&str]) -> i32 {
        self.run(arguments).status.code().unwrap()
    }

    /// What a command says as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["--json"], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) fn put(&self, name: &str, content: &[u8]) -> Value {
        self.put_with(name, content, 2)
    }

    pub(crate) fn put_with(&self, name: &str, content: &[u8], replicas: u32) -> Value {
        let file = self.file("content");
        std::fs::write(&file, content).unwrap();
        self.json(&["put", name, file.to_str().unwrap(), "--replicas", &replicas.to_string()])
    }

    pub(crate) fn get(&self, name: &str) -> Vec<u8> {
        let file = self.file("copy");
        let got = self.run(&["get", name, file.to_str().unwrap()]);
        assert!(got.status.success(), "{got:?}");
        std::fs::read(file).unwrap()
    }

    /// Where a node keeps its replicas.
    pub(crate) fn memory(&self, node: usize) -> PathBuf {
        let config = std::fs::read_to_string(self.file(&format!("n{node}/segstored.toml"))).unwrap();
        let line = config.lines().find_map(|line| line.strip_prefix("memory_dir = \"")).unwrap();
        PathBuf::from(line.trim_end_matches('"'))
    }

    /// Changes what every replica has of a state whose bytes are all `content`.
    pub(crate) fn spoil(&self, content: u8) {
        let nodes = (1..).take_while(|node| self.socket(*node).exists());
        let entries = nodes.flat_map(|node| std::fs::read_dir(self.memory(node)).unwrap());
        let mut spoilt = 0;
        for file in entries.map(|entry| entry.unwrap().path()).filter(|file| file.is_file()) {
            let mut bytes = std::fs::read(&file).unwrap();
            for piece in bytes.chunks_mut(512).filter(|piece| piece.iter().all(|byte| *byte == content)) {
                piece.fill(!content);
                spoilt += 1;
            }
            // Not a new file: daemons have this one.
            std::fs::File::options().write(true).open(&file).unwrap().write_all(&bytes).unwrap();
        }
        assert!(spoilt > 0);
    }

    pub(crate) fn start_run(&self, node: usize, name: &str, script: &str) -> Child {
        let mut command = self.command(node, &["run", name, "--", "sh", "-c", script]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let down = self.run(&["dev", "down", "--dir", self.dir()]);
        if !std::thread::panicking() {
            assert!(down.status.success(), "{down:?}");
        }
    }
}

pub(crate) fn until(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < Duration::from_secs(30), "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a process has ended, though perhaps nobody has waited for it.
pub(crate) fn has_ended(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}
