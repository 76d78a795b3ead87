//! The processes below this one, all of which it can find: as their subreaper it becomes the parent of those that lose theirs.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid};

/// Kills every descendant. When a child is gone, its own children are children of this process.
pub(super) fn kill_all() {
    loop {
        let killed: Vec<_> = children().into_iter().filter(|child| kill(*child, Signal::SIGKILL).is_ok()).collect();
        if killed.is_empty() {
            return;
        }
        for child in killed {
            // Somebody else may have waited for it.
            let _ = waitpid(child, None);
        }
    }
}

fn children() -> Vec<Pid> {
    let own = getpid();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|number| parent(*number) == Some(own)).map(Pid::from_raw).collect()
}

fn parent(process: i32) -> Option<Pid> {
    let about = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // After the name, which may contain anything: the state, the parent.
    let (_, after) = about.rsplit_once(')')?;
    after.split_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}
