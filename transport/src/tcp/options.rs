//! How a domain listens, waits and reports.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use crate::setup::ADMITTED;

/// A connection that a target ended, or lost.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ended<'e> {
    /// The other side.
    pub from: SocketAddr,
    /// Why, and with what value.
    pub error: &'e Error,
}

pub(super) type Sink = Arc<dyn Fn(&Ended<'_>) + Send + Sync>;

#[derive(Clone)]
pub(super) struct Options {
    pub(super) listen: Option<SocketAddr>,
    pub(super) advertised: Vec<SocketAddr>,
    pub(super) encrypted: bool,
    pub(super) patience: Duration,
    pub(super) connect_within: Duration,
    pub(super) token_valid: Duration,
    pub(super) sink: Option<Sink>,
}

impl Options {
    pub(super) fn new(listen: Option<SocketAddr>) -> Options {
        Options {
            listen,
            advertised: Vec::new(),
            encrypted: false,
            patience: Duration::from_secs(10),
            connect_within: Duration::from_secs(5),
            token_valid: ADMITTED,
            sink: None,
        }
    }

    pub(super) fn tell(&self, from: SocketAddr, error: &Error) {
        if let Some(sink) = &self.sink {
            sink(&Ended { from, error });
        }
    }
}
