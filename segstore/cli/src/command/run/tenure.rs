//! Whether the name is still this session's.
//!
//! It is not when another session holds it: a node that was silent for its lease counts as dead, and somebody else takes what its
//! sessions held. While the node's daemon says nothing, nobody can tell: after the lease the worst is supposed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use segstore::{Error, Session};

use super::tell;
use crate::command::Context;

/// How often to look for the daemon.
const PROBE: Duration = Duration::from_millis(250);
/// How often to ask whether the name is still held: that asks the directory.
const LOOK: Duration = Duration::from_secs(1);
/// A daemon that takes longer for an answer is silent.
const NOTICED: Duration = Duration::from_secs(1);
/// The lease of a node whose daemon does not say it.
const LEASE: Duration = Duration::from_secs(3);

pub(super) struct Tenure {
    as_json: bool,
    name: String,
    socket: PathBuf,
    heard: Arc<Mutex<Heard>>,
    /// A daemon that was silent for so long may have lost its lease: its last sign of life was up to a third of the lease old.
    limit: Duration,
    /// When this was looked at last.
    looked: Instant,
    is_told: bool,
    is_lost: bool,
}

/// What the threads that ask have learnt.
struct Heard {
    /// When a question was asked that the daemon answered.
    at: Instant,
    /// What became of the last one, if it was not answered.
    trouble: Option<String>,
    /// Who holds the name instead, for people.
    other: Option<String>,
}

impl Tenure {
    /// Begins to ask. The threads end with the process.
    pub(super) fn watch(context: &Context, session: &Session, name: &str) -> Self {
        let heard = Arc::new(Mutex::new(Heard { at: Instant::now(), trouble: None, other: None }));
        let (socket, of_daemon) = (context.socket.clone(), heard.clone());
        std::thread::spawn(move || probe(&socket, &of_daemon));
        let lease = Some(session.node_lease()).filter(|lease| !lease.is_zero()).unwrap_or(LEASE);
        let (session, whom, of_name) = (session.clone(), name.to_owned(), heard.clone());
        std::thread::spawn(move || look(&session, &whom, &of_name));
        let (as_json, name, socket) = (context.json, name.to_owned(), context.socket.clone());
        Self {
            as_json,
            name,
            socket,
            heard,
            limit: lease * 2 / 3,
            looked: Instant::now(),
            is_told: false,
            is_lost: false,
        }
    }

    /// Whether the daemon answers.
    pub(super) fn is_heard(&self) -> bool {
        lock(&self.heard).trouble.is_none()
    }

    /// Whether the name was lost when that was looked at last.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Whether the name is lost, or must be supposed to be. Tells what has changed.
    pub(super) fn look(&mut self) -> bool {
        if self.is_lost {
            return true;
        }
        let was_stopped = std::mem::replace(&mut self.looked, Instant::now()).elapsed() >= NOTICED;
        let (silence, trouble, other) = {
            let mut heard = lock(&self.heard);
            if was_stopped {
                // This process was, not the daemon: who holds the name is asked as soon as it runs again.
                heard.at = Instant::now();
            }
            (heard.at.elapsed(), heard.trouble.clone(), heard.other.clone())
        };
        let (name, socket) = (&self.name, self.socket.display());
        if let Some(other) = other {
            tell(self.as_json, "lost", &format!("{name} is held by {other} now: ending the program"));
            self.is_lost = true;
        } else if silence >= self.limit {
            let text = format!(
                "the node's daemon at {socket} has not answered for {:.1} s: with a node's lease over, another node may run \
                 {name}; ending the program",
                silence.as_secs_f64()
            );
            tell(self.as_json, "lost", &text);
            self.is_lost = true;
        } else if trouble.is_some() || silence >= NOTICED {
            if !self.is_told {
                let why = trouble.unwrap_or_else(|| "no answer so far".into());
                let left = (self.limit - silence).as_secs_f64();
                let text = format!(
                    "the node's daemon at {socket} does not answer ({why}): in {left:.1} s the program is ended, unless the \
                     daemon answers before; start it again"
                );
                tell(self.as_json, "silent", &text);
            }
            self.is_told = true;
        } else if self.is_told {
            tell(self.as_json, "heard", &format!("the node's daemon at {socket} answers again"));
            self.is_told = false;
        }
        self.is_lost
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Greets the daemon again and again: it answers that by itself, whatever the directory does. Not in the session that holds the name:
/// after a restart of the daemon that would end when the first of its connections does.
fn probe(socket: &Path, heard: &Mutex<Heard>) {
    loop {
        let asked = Instant::now();
        let answer = Session::connect_to(socket);
        let mut heard = lock(heard);
        match answer {
            Err(Error::NoDaemon { why, .. }) => heard.trouble = Some(why),
            // One that refuses another connection lives as well.
            _ => (heard.at, heard.trouble) = (asked, None),
        }
        drop(heard);
        std::thread::sleep(PROBE);
    }
}

/// Asks whether the name is still this session's, until it is not.
fn look(session: &Session, name: &str, heard: &Mutex<Heard>) {
    loop {
        std::thread::sleep(LOOK);
        if let Err(Error::Owned { holder, .. }) = session.acquire(name, Some(Duration::ZERO), false) {
            lock(heard).other = Some(format!("process {} on node {}", holder.pid, holder.node_name));
            return;
        }
    }
}
