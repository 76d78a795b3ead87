//! A checkpoint that its owner keeps until it is let go.

use std::sync::Arc;
use std::time::Duration;

use segstore_core::id::Epoch;

use crate::control::message::{Answer, Held, Request};
use crate::error::Result;
use crate::session::Inner as Session;
use crate::takeover::unexpected;

const ANSWER: Duration = Duration::from_secs(10);

/// A checkpoint that stands still: it can be loaded by its number. Dropping it lets it go.
///
/// In a segment with two slots the owner waits for it when it has made one further checkpoint; with three it does not.
pub struct Hold {
    session: Arc<Session>,
    name: String,
    held: Held,
}

impl Hold {
    /// Has the owner of the segment hold its newest acknowledged checkpoint for at most `time`.
    pub(crate) fn new(session: &Arc<Session>, name: &str, time: Duration) -> Result<Self> {
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        match session.ask(name, Request::Hold { name: name.to_owned(), time, without: Vec::new() }, Some(ANSWER))? {
            Answer::Held(held) => Ok(Self { session: session.clone(), name: name.to_owned(), held }),
            other => Err(unexpected(&other)),
        }
    }

    /// Which checkpoint it is.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.held.image.epoch
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // One that cannot be ended now ends when its time is over.
        let request = Request::EndHold { name: self.name.clone(), number: self.held.number };
        let _ = self.session.channel.send_at_once(request);
    }
}
