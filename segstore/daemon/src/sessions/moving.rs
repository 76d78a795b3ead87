//! Names that are to go to another node when they are let go here.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use segstore_core::id::NodeId;
use tokio::time::Instant;

/// By session and name: where to, and until when that is asked for.
#[derive(Default)]
pub(super) struct Moving(Mutex<HashMap<(u64, String), (NodeId, Instant)>>);

impl Moving {
    fn lock(&self) -> MutexGuard<'_, HashMap<(u64, String), (NodeId, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, session: u64, name: &str, to: NodeId, time: Duration) {
        let (mut moving, now) = (self.lock(), Instant::now());
        moving.retain(|_, (_, until)| *until > now);
        moving.insert((session, name.to_owned()), (to, now + time));
    }

    /// Where a name is to go, asked for once: it is let go.
    pub(super) fn take(&self, session: u64, name: &str) -> Option<NodeId> {
        let (to, until) = self.lock().remove(&(session, name.to_owned()))?;
        (until > Instant::now()).then_some(to)
    }
}
