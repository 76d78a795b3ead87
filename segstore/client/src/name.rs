//! Segments' names while this process has them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::session::Inner as Session;
use crate::time::after;

/// Between two attempts to reach a daemon that is away.
const PAUSE: Duration = Duration::from_millis(100);
/// Of this process, whatever others of its session want.
const OWN: bool = true;

/// A name that the session holds for a segment of this process, or for a load. With the last of these it is let go, unless the session holds it
/// for something else as well: by itself, or for another of its processes.
///
/// There can be several: an owner that was fenced is still there while the segment is opened again in its place.
pub(crate) struct HeldName {
    session: Arc<Session>,
    name: String,
    is_counted: bool,
}

impl HeldName {
    pub(crate) fn acquire(session: &Arc<Session>, name: &str, wait: Option<Duration>, force: bool) -> Result<Self> {
        // Counted before the daemon is asked: who lets go meanwhile is not the last.
        session.names.join(name);
        let held = Self { session: session.clone(), name: name.to_owned(), is_counted: true };
        let acquired = acquire(session, name, wait, force);
        // One that came to no answer may have been acquired.
        let may_be_held = matches!(acquired, Ok(_) | Err(Error::Unreachable(_)));
        let own = session.channel.welcome().knows_processes;
        if matches!(acquired, Ok(true)) || may_be_held && own {
            session.names.hold(name, own);
        }
        acquired.map(|_| held)
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Lets it go, and says whether that is known to be done.
    pub(crate) fn release(mut self) -> Result<()> {
        self.is_counted = false;
        // Begun under the lock, as below.
        let released = {
            let mut names = self.session.names.lock();
            names.leave(&self.name).inspect(|own| self.session.release_soon(&self.name, *own))
        };
        released.map_or(Ok(()), |own| self.session.await_release(&self.name, own))
    }
}

impl Drop for HeldName {
    fn drop(&mut self) {
        if self.session.channel.is_inherited() {
            // It is its parent's, and so is whoever held a lock.
            std::mem::forget(self.session.clone());
            return;
        }
        if !self.is_counted {
            return;
        }
        // Under the lock: whoever acquires the name next finds a release to wait for.
        let mut names = self.session.names.lock();
        if let Some(own) = names.leave(&self.name) {
            self.session.release_soon(&self.name, own);
        }
    }
}

/// Whether the session did not hold the name before. Who stands by does so while the node's daemon is away, too.
fn acquire(session: &Session, name: &str, wait: Option<Duration>, force: bool) -> Result<bool> {
    let until = wait.map(|wait| after(Instant::now(), wait));
    let mut is_told = false;
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        match session.acquire(name, left, force, OWN) {
            Err(Error::Unreachable(why)) if left.is_none_or(|left| !left.is_zero()) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(segment = name, "still standing by for it: {why}");
                }
                std::thread::sleep(PAUSE);
            }
            other => return other.map(|(newly, _)| newly),
        }
    }
}

/// How often this process holds which name.
#[derive(Default)]
pub(crate) struct Names(Mutex<Holds>);

#[derive(Default)]
struct Holds(HashMap<String, Holding>);

#[derive(Default)]
struct Holding {
    count: usize,
    /// Whether it is let go with the last of these, and then as this process's own or as the session's: an older daemon did not tell processes
    /// apart.
    ours: Option<bool>,
}

impl Names {
    fn lock(&self) -> MutexGuard<'_, Holds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, name: &str) {
        self.lock().0.entry(name.to_owned()).or_default().count += 1;
    }

    /// Does this unless the name is held for a segment, or about to be.
    pub(crate) fn unless_wanted(&self, name: &str, act: impl FnOnce()) {
        let names = self.lock();
        if !names.0.contains_key(name) {
            act();
        }
    }

    /// The last that is counted lets the name go: as this process's own, or as the session's.
    fn hold(&self, name: &str, own: bool) {
        if let Some(holding) = self.lock().0.get_mut(name) {
            holding.ours.get_or_insert(own);
        }
    }

    /// It does not, since the name outlasts that.
    pub(crate) fn keep(&self, name: &str) {
        if let Some(holding) = self.lock().0.get_mut(name) {
            holding.ours = None;
        }
    }
}

impl Holds {
    /// One less; as whose the name is to be let go, if it is.
    fn leave(&mut self, name: &str) -> Option<bool> {
        let holding = self.0.get_mut(name)?;
        holding.count -= 1;
        if holding.count == 0 { self.0.remove(name)?.ours } else { None }
    }
}
