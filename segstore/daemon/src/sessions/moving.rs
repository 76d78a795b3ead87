//! Names that are to go to another node when they are let go here.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use segstore_core::id::NodeId;
use tokio::time::Instant;

/// By session and name.
#[derive(Default)]
pub(super) struct Moving(Mutex<HashMap<(u64, String), Wish>>);

#[derive(Clone, Copy)]
struct Wish {
    to: NodeId,
    until: Instant,
    /// It is let go, and the other node is asked to take it: nobody else may.
    is_given: bool,
}

/// A name that is being given, until this is dropped.
pub(super) struct Giving<'m> {
    all: &'m Moving,
    key: (u64, String),
    pub(super) to: NodeId,
}

impl Moving {
    fn lock(&self) -> MutexGuard<'_, HashMap<(u64, String), Wish>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether that is new: the same may be wished for already, and is then for the longer time. Where else it is to go already.
    pub(super) fn note(&self, session: u64, name: &str, to: NodeId, time: Duration) -> Result<bool, NodeId> {
        let (mut moving, now) = (self.lock(), Instant::now());
        moving.retain(|_, wish| wish.until > now || wish.is_given);
        let new = Wish { to, until: now + time, is_given: false };
        let Some(known) = moving.get_mut(&(session, name.to_owned())) else {
            moving.insert((session, name.to_owned()), new);
            return Ok(true);
        };
        if known.to != to {
            return Err(known.to);
        }
        known.until = known.until.max(new.until);
        Ok(false)
    }

    /// It is not wished for any more.
    pub(super) fn forget(&self, session: u64, name: &str) {
        self.lock().remove(&(session, name.to_owned()));
    }

    /// The name is let go, and is to be given to a node, if that is wished for.
    pub(super) fn give(&self, session: u64, name: &str) -> Option<Giving<'_>> {
        let key = (session, name.to_owned());
        let mut moving = self.lock();
        let wish = moving.get_mut(&key).filter(|wish| wish.until > Instant::now())?;
        wish.is_given = true;
        Some(Giving { all: self, to: wish.to, key })
    }

    /// Whether it is being given now.
    pub(super) fn is_given(&self, session: u64, name: &str) -> bool {
        self.lock().get(&(session, name.to_owned())).is_some_and(|wish| wish.is_given)
    }
}

impl Drop for Giving<'_> {
    fn drop(&mut self) {
        if let Some(wish) = self.all.lock().get_mut(&self.key) {
            wish.is_given = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(100);

    #[test]
    fn one_wish_at_a_time() {
        let moving = Moving::default();
        let [b, c] = [2, 3].map(NodeId);
        assert_eq!(moving.note(1, "s", b, LONG), Ok(true));
        assert_eq!(moving.note(1, "s", b, Duration::ZERO), Ok(false), "it is the same, and stays for the longer time");
        assert_eq!(moving.note(1, "s", c, LONG), Err(b));
        assert_eq!(moving.note(2, "s", c, LONG), Ok(true), "another session's");
        let giving = moving.give(1, "s").expect("it is wished for");
        assert!(giving.to == b && moving.is_given(1, "s") && !moving.is_given(2, "s"));
        drop(giving);
        assert!(!moving.is_given(1, "s"));
        assert!(moving.give(1, "s").is_some(), "it is tried again, as long as it is wished for");
        moving.forget(1, "s");
        assert!(moving.give(1, "s").is_none());
    }

    #[test]
    fn a_wish_ends_with_its_time() {
        let moving = Moving::default();
        assert_eq!(moving.note(1, "s", NodeId(2), Duration::ZERO), Ok(true));
        assert!(moving.give(1, "s").is_none());
        assert_eq!(moving.note(1, "s", NodeId(3), LONG), Ok(true));
    }
}
