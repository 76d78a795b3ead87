//! Guests with soft-RoCE, joined by cables: `scripts/softroce nodes`, driven by a test.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Guests that run until this goes.
pub struct Lab {
    hub: Child,
    orders: File,
    lines: Receiver<(usize, String)>,
    /// Lines of each node that nobody asked for yet.
    waiting: Vec<VecDeque<String>>,
    place: TempDir,
}

impl Lab {
    /// A guest for each command, which a shell runs at its every boot. Node 1 is the first.
    ///
    /// # Panics
    ///
    /// If the lab does not start.
    pub fn start(commands: &[String]) -> Lab {
        let place = TempDir::new().expect("a folder for the lab's orders");
        let fifo = place.path().join("orders");
        let made = Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
        assert!(made.success(), "mkfifo failed");
        let mut hub = Command::new(project().join("scripts/softroce"))
            .args(["nodes", "-p", "-t", "1800"])
            .args(commands)
            .env("SOFTROCE_CONTROL", &fifo)
            .stdout(Stdio::piped())
            .stderr(File::create(place.path().join("console")).expect("a file for the lab's own words"))
            .spawn()
            .expect("scripts/softroce");
        let output = BufReader::new(hub.stdout.take().expect("a pipe"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let told = line.split_once("| ").and_then(|(node, text)| Some((node.parse().ok()?, text.to_owned())));
                if told.is_some_and(|told| sender.send(told).is_err()) {
                    return;
                }
            }
        });
        // Waits until the hub reads.
        let orders = File::options().write(true).open(&fifo).expect("the hub's orders");
        Lab { hub, orders, lines, waiting: vec![VecDeque::new(); commands.len() + 1], place }
    }

    /// One of the hub's orders, such as `cut 2`.
    ///
    /// # Panics
    ///
    /// If the hub has ended.
    pub fn order(&mut self, order: &str) {
        eprintln!("{order}");
        writeln!(self.orders, "{order}").expect("the hub has ended");
    }

    /// A line for a node's command to read.
    ///
    /// # Panics
    ///
    /// If the hub has ended.
    pub fn tell(&mut self, node: usize, line: &str) {
        self.order(&format!("tell {node} {line}"));
    }

    /// The rest of the node's next line that begins with `word`; `None` if none came within the time.
    pub fn next(&mut self, node: usize, word: &str, limit: Duration) -> Option<String> {
        let until = Instant::now() + limit;
        loop {
            while let Some(line) = self.waiting[node].pop_front() {
                if let Some(rest) = line.strip_prefix(word) {
                    return Some(rest.trim().to_owned());
                }
            }
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok((node, line)) => self.keep(node, line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// The same, within a minute.
    ///
    /// # Panics
    ///
    /// If it does not come.
    pub fn expect(&mut self, node: usize, word: &str) -> String {
        self.next(node, word, Duration::from_secs(60))
            .unwrap_or_else(|| panic!("no '{word}' from node {node} in a minute"))
    }

    /// The last of the node's lines so far that begin with `word`.
    pub fn last(&mut self, node: usize, word: &str) -> Option<String> {
        let mut last = None;
        while let Some(line) = self.next(node, word, Duration::ZERO) {
            last = Some(line);
        }
        last
    }

    fn keep(&mut self, node: usize, line: String) {
        if !line.starts_with("acked") {
            eprintln!("{node}| {line}");
        }
        self.waiting[node].push_back(line);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let hub = self.hub.id().to_string();
        // Its guests would outlive a SIGKILL.
        let _ = Command::new("kill").args(["-TERM", &hub]).status();
        let _ = self.hub.wait();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.place.path().join("console")).unwrap_or_default());
        }
    }
}

/// The project's own folder.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// A program that was built with the tests.
///
/// # Panics
///
/// If it is not there.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this program");
    let built = test.parent().and_then(Path::parent).map(|folder| folder.join(name));
    let found = built.filter(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is not built: scripts/softroce test builds what the tests need"))
}
