//! Endpoints with one-sided writes in flight.

use std::collections::VecDeque;

use segstore_core::id::{Epoch, Member};

use super::{BLOCK, BLOCKS};

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
    /// All blocks below this one had landed of it when the replica let nothing more in.
    landed: u32,
    /// The process has given it up; what is in flight may still land.
    pub abandoned: bool,
    /// The replica lets nothing more in.
    pub revoked: bool,
}

impl Endpoint {
    pub fn new(process: usize, replica: usize, member: Member) -> Self {
        let in_flight = VecDeque::new();
        Self { process, replica, member, in_flight, awaited: None, landed: 0, abandoned: false, revoked: false }
    }

    /// A push begins.
    pub fn push(&mut self, epoch: Epoch, writes: Vec<Write>) {
        (self.awaited, self.landed) = (Some(epoch), 0);
        if !self.revoked {
            self.in_flight.extend(writes);
        }
    }

    /// All blocks below this one have landed of the push that is awaited: the most that a process can know when it ends it.
    pub fn landed(&self) -> u32 {
        if self.revoked {
            return self.landed;
        }
        let are_blocks_left = self.in_flight.iter().any(|write| write.source.is_some());
        match self.in_flight.front() {
            Some(Write { source: Some(offset), .. }) => (*offset / BLOCK) as u32,
            Some(_) if are_blocks_left => 0,
            _ => BLOCKS,
        }
    }

    /// The process gives it up.
    pub fn abandon(&mut self) {
        // Nobody asks any more how far it came.
        (self.abandoned, self.landed) = (true, 0);
    }

    /// Nothing can come of it any more.
    pub fn is_over(&self) -> bool {
        self.abandoned && (self.revoked || self.in_flight.is_empty())
    }

    pub fn is_open(&self) -> bool {
        !self.abandoned
    }

    pub fn revoke(&mut self) {
        if self.awaited.is_some() {
            self.landed = self.landed();
        }
        self.revoked = true;
        self.in_flight.clear();
    }
}
