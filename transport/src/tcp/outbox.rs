//! What waits to be sent: heads by value, bodies by address. Nothing of a body is ever copied here.

use std::collections::VecDeque;

use nix::errno::Errno;

use super::socket::Span;
use super::stream::Stream;
use super::wire::{HEAD, SWAP};

/// The most parts of one system call; two for each frame.
const PARTS: usize = 256;

pub(super) struct Outbox {
    pieces: VecDeque<Piece>,
    /// The bytes of the first piece that have been sent.
    sent: usize,
    /// The pieces with a body.
    bodies: usize,
    /// Kept so that sending allocates nothing.
    parts: Vec<Span>,
}

/// A head, with what belongs to it by value, and a body.
struct Piece {
    head: [u8; HEAD + SWAP],
    head_len: usize,
    body: Span,
}

/// How sending went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Everything is on its way.
    All,
    /// The socket takes no more now.
    Blocked,
    /// The budget is used up.
    Budget,
}

impl Outbox {
    pub(super) fn new() -> Outbox {
        Outbox { pieces: VecDeque::with_capacity(64), sent: 0, bodies: 0, parts: Vec::with_capacity(PARTS) }
    }

    /// The pieces not sent yet.
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether a body has still to be read from where it stands.
    pub(super) fn has_bodies(&self) -> bool {
        self.bodies > 0
    }

    /// Adds a frame: at most `HEAD + SWAP` bytes by value, and a body.
    pub(super) fn push(&mut self, head: &[u8], body: Span) {
        let mut piece = Piece { head: [0; HEAD + SWAP], head_len: head.len(), body };
        piece.head[..head.len()].copy_from_slice(head);
        self.bodies += usize::from(body.len() > 0);
        self.pieces.push_back(piece);
    }

    /// Sends what the socket takes, at most about `budget` bytes; gives how many.
    ///
    /// # Safety
    /// The bodies of all pieces are readable.
    pub(super) unsafe fn flush(&mut self, stream: &mut Stream, budget: usize) -> nix::Result<(usize, Sent)> {
        let mut sent = 0;
        while !self.pieces.is_empty() {
            if sent >= budget {
                return Ok((sent, Sent::Budget));
            }
            self.gather(budget - sent);
            // SAFETY: heads stand in pieces that nobody moves meanwhile; the bodies are the caller's promise.
            match unsafe { stream.send(&self.parts) } {
                Ok(count) => {
                    sent += count;
                    self.advance(count);
                }
                Err(Errno::EAGAIN) => return Ok((sent, Sent::Blocked)),
                Err(error) => return Err(error),
            }
        }
        Ok((sent, Sent::All))
    }

    /// Forgets everything; true when no frame was left half sent.
    pub(super) fn clear(&mut self) -> bool {
        self.pieces.clear();
        self.bodies = 0;
        std::mem::take(&mut self.sent) == 0
    }

    fn gather(&mut self, budget: usize) {
        self.parts.clear();
        let (mut skip, mut left) = (self.sent, budget);
        for piece in &self.pieces {
            let head = &piece.head[..piece.head_len];
            if skip < head.len() {
                self.parts.push(Span::of(&head[skip..]));
                skip = 0;
            } else {
                skip -= head.len();
            }
            let body = piece.body.skip(skip).first(left);
            if body.len() > 0 {
                self.parts.push(body);
            }
            left -= body.len();
            skip = 0;
            if left == 0 || self.parts.len() + 2 > PARTS {
                return;
            }
        }
    }

    fn advance(&mut self, count: usize) {
        self.sent += count;
        while let Some(piece) = self.pieces.front() {
            let whole = piece.head_len + piece.body.len();
            if self.sent < whole {
                return;
            }
            self.sent -= whole;
            self.bodies -= usize::from(piece.body.len() > 0);
            self.pieces.pop_front();
        }
    }
}
