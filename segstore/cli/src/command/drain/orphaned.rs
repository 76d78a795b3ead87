//! Segments that nobody owns: nobody moves their replicas, so this command owns them meanwhile, a few at a time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use segstore::{Error, Left, OpenOptions, Segment, Session};

/// Segments that are owned at a time: each is loaded.
const AT_A_TIME: usize = 4;
/// How long one that does not get on is owned: others may fit where it does not, and somebody may want to own it.
const TURN: Duration = Duration::from_secs(10);
/// Before it is tried once more.
const REST: Duration = Duration::from_secs(5);

/// What is owned, and what came of what was.
#[derive(Default)]
pub(super) struct Orphaned {
    moving: HashMap<String, (Segment, Instant)>,
    /// Those that were tried: when it may be tried again, and why it came to nothing.
    tried: HashMap<String, (Instant, String)>,
}

impl Orphaned {
    /// Lets go of what is moved, or does not get on, and takes others in its place.
    pub(super) fn move_some(&mut self, session: &Session, kept: &[Left]) {
        let now = Instant::now();
        self.moving.retain(|name, _| kept.iter().any(|left| left.segment == *name));
        let over: Vec<_> =
            self.moving.iter().filter(|(_, (_, until))| *until <= now).map(|(name, _)| name.clone()).collect();
        for name in over {
            if is_filling(session, &name) {
                self.moving.entry(name).and_modify(|(_, until)| *until = now + TURN);
            } else {
                self.note(&name, super::why(session, &name));
                self.moving.remove(&name);
            }
        }
        // What is only being made there, or removed, is nobody's to move.
        for left in kept.iter().filter(|left| left.holder.is_none() && left.has_replica) {
            let rests = self.tried.get(&left.segment).is_some_and(|(until, _)| *until > now);
            if self.moving.len() < AT_A_TIME && !self.moving.contains_key(&left.segment) && !rests {
                self.open(session, &left.segment);
            }
        }
    }

    /// Why what is left is left, as far as this command has to do with it.
    pub(super) fn reasons(mut self, session: &Session) -> HashMap<String, String> {
        // While they are owned, their owner says it.
        for name in self.moving.keys().cloned().collect::<Vec<_>>() {
            self.note(&name, super::why(session, &name));
        }
        self.tried.into_iter().map(|(name, (_, why))| (name, why)).collect()
    }

    fn open(&mut self, session: &Session, name: &str) {
        match session.open(name, &OpenOptions::new()) {
            Ok(segment) => {
                self.moving.insert(name.to_owned(), (segment, Instant::now() + TURN));
            }
            // Somebody has come meanwhile, who does it.
            Err(Error::Owned { .. }) => {}
            Err(error) => self.note(name, format!("nobody owns it, and this command cannot: {error}")),
        }
    }

    fn note(&mut self, name: &str, why: String) {
        self.tried.insert(name.to_owned(), (Instant::now() + REST, why));
    }
}

/// Whether another replica of it is being filled.
fn is_filling(session: &Session, name: &str) -> bool {
    session.status(name).is_ok_and(|status| status.replicas.iter().any(|replica| replica.repair.is_some()))
}
