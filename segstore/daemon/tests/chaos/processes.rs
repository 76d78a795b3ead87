//! Processes of the run, and what they tell.

use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::report::Report;

/// A line of a process: its name, and what it says, or what it said that is no report.
pub(crate) type Told = (String, Result<Report, String>);

/// A process that runs, or has ended by itself.
pub(crate) struct Process {
    pub(crate) name: String,
    child: Child,
}

impl Process {
    pub(crate) fn start(name: String, command: &mut Command) -> Self {
        // Who interrupts the run from a terminal interrupts it alone.
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { name, child }
    }

    /// The same, of one that reports what it does.
    pub(crate) fn reporting(name: String, command: &mut Command, told: Sender<Told>) -> Self {
        let mut process = Self::start(name, command.stdout(Stdio::piped()));
        let (lines, name) = (process.child.stdout.take().unwrap(), process.name.clone());
        std::thread::spawn(move || listen(lines, &name, &told));
        process
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is wrong with how a process has ended by itself, if anything is.
pub(crate) fn trouble(status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("exit code {code}")),
        (None, signal) => Some(format!("signal {}", signal.unwrap_or_default())),
    }
}

/// Until the end of the pipe: what was said before a kill is heard.
fn listen(lines: ChildStdout, name: &str, told: &Sender<Told>) {
    let mut lines = BufReader::new(lines);
    let mut line = String::new();
    // A line without an end was cut off by a kill.
    while lines.read_line(&mut line).is_ok() && line.ends_with('\n') {
        let report = serde_json::from_str(&line).map_err(|error| format!("{error}: {}", line.trim_end()));
        if told.send((name.to_owned(), report)).is_err() {
            return;
        }
        line.clear();
    }
}
