//! Endpoints with one-sided writes in flight.

use std::collections::VecDeque;

use segstore_core::id::{Epoch, Member};

/// Bytes on their way to a replica.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Write {
    pub at: usize,
    pub bytes: Vec<u8>,
    /// Where in working memory the bytes stand. While the process lives and holds the endpoint, they are read when they are sent,
    /// not when they were posted.
    pub source: Option<usize>,
}

/// One connection from a process to a replica, as the network sees it: it outlives the process.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Endpoint {
    pub process: usize,
    pub replica: usize,
    /// The life of the replica that it was opened to.
    pub member: Member,
    pub in_flight: VecDeque<Write>,
    /// The push of which the process waits for the completion.
    pub awaited: Option<Epoch>,
    /// The process has given it up; what is in flight may still land.
    pub abandoned: bool,
    /// The replica lets nothing more in.
    pub revoked: bool,
}

impl Endpoint {
    pub fn new(process: usize, replica: usize, member: Member) -> Self {
        Self { process, replica, member, in_flight: VecDeque::new(), awaited: None, abandoned: false, revoked: false }
    }

    /// Nothing can come of it any more.
    pub fn is_over(&self) -> bool {
        self.abandoned && (self.revoked || self.in_flight.is_empty())
    }

    pub fn is_open(&self) -> bool {
        !self.abandoned
    }

    pub fn revoke(&mut self) {
        self.revoked = true;
        self.in_flight.clear();
    }
}
