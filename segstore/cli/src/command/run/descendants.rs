//! The processes below this one, all of which it can find: as their subreaper it becomes the parent of those that lose theirs.

use std::collections::HashMap;
use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid};

/// Kills every descendant, and returns when none is left. Of one that this user may not kill it is told, and its own end is waited for.
pub(super) fn kill_all(tell: impl Fn(Pid)) {
    let mut told = Vec::new();
    loop {
        let processes = parents();
        let below = below(getpid(), &processes);
        // All of them first: waiting for one takes as long as the kernel needs to take it apart.
        for process in &below {
            if kill(*process, Signal::SIGKILL) == Err(Errno::EPERM) && !told.contains(process) {
                tell(*process);
                told.push(*process);
            }
        }
        let children: Vec<_> = below.into_iter().filter(|child| processes.get(child) == Some(&getpid())).collect();
        if children.is_empty() {
            return;
        }
        for child in children {
            // Somebody else may have waited for it.
            let _ = waitpid(child, None);
        }
    }
}

/// Every process below this one, whoever comes first.
fn below(top: Pid, parents: &HashMap<Pid, Pid>) -> Vec<Pid> {
    let mut found = vec![top];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        let children = parents.iter().filter(|(child, of)| **of == parent && **child != parent);
        found.extend(children.map(|(child, _)| *child));
        at += 1;
    }
    found.split_off(1)
}

/// The parent of every process.
fn parents() -> HashMap<Pid, Pid> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(|number| Some((Pid::from_raw(number), parent(number)?))).collect()
}

fn parent(process: i32) -> Option<Pid> {
    let about = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // After the name, which may contain anything: the state, the parent.
    let (_, after) = about.rsplit_once(')')?;
    after.split_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}
