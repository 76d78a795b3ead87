//! What has arrived: a small buffer for heads and small payloads, and the rest of a long payload, which goes straight
//! to its place.

use super::socket::Span;
use super::stream::{Received, Stream};
use super::wire::{HEAD, Head};
use crate::memory::copy;
use zerocopy::FromBytes;

/// Payloads up to this length come through the buffer, and are placed when they are whole: in a batch of small writes
/// everything arrives by one system call.
pub(super) const SMALL: usize = 4096;
/// The buffer: a few small frames, so that one that is cut off does not cost a call for the next.
const BUFFER: usize = 4 * (HEAD + SMALL);

pub(super) struct Inbox {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Where the rest of a long payload goes. While there is some, the buffer is empty.
    long: Span,
}

/// What became of a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// It stands in its place; head and payload are consumed.
    Whole,
    /// It is long, and its rest goes straight there.
    Begun,
    /// It is small and not whole; nothing is consumed.
    Waiting,
}

impl Inbox {
    pub(super) fn new() -> Inbox {
        Inbox { buffer: vec![0; BUFFER].into(), start: 0, end: 0, long: Span::NONE }
    }

    /// Whether a long payload waits for its rest.
    pub(super) fn is_filling(&self) -> bool {
        self.long.len() > 0
    }

    /// The next frame's head, if it is here.
    pub(super) fn head(&self) -> Option<Head> {
        if self.is_filling() {
            return None;
        }
        Head::read_from_prefix(&self.buffer[self.start..self.end]).ok().map(|(head, _)| head)
    }

    /// The `len` bytes behind the head, if they are here.
    pub(super) fn payload(&self, len: usize) -> Option<&[u8]> {
        self.buffer[self.start..self.end].get(HEAD..HEAD + len)
    }

    /// Leaves the head, and `len` bytes behind it, which are here.
    pub(super) fn consume(&mut self, len: usize) {
        self.start += HEAD + len;
        debug_assert!(self.start <= self.end);
    }

    /// Puts the payload behind the head to its place.
    ///
    /// # Safety
    /// `to` is writable until the payload is whole, or `forget` was called.
    pub(super) unsafe fn place(&mut self, to: Span) -> Placed {
        let here = self.end - self.start - HEAD;
        if to.len() <= SMALL && here < to.len() {
            return Placed::Waiting;
        }
        let count = here.min(to.len());
        let from = self.buffer[self.start + HEAD..][..count].as_ptr();
        // SAFETY: `count` bytes are in the buffer, and `to` has room for them (caller); the buffer is this side's own.
        unsafe { copy(from, to.at(), count) };
        self.consume(count);
        self.long = to.skip(count);
        if self.is_filling() { Placed::Begun } else { Placed::Whole }
    }

    /// Takes what has arrived, at most about `budget` bytes.
    ///
    /// # Safety
    /// The place given for a long payload is still writable.
    pub(super) unsafe fn receive(&mut self, stream: &mut Stream, budget: usize) -> nix::Result<Received> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let rest = &mut self.buffer[self.end..];
        let rest = Span::new(rest.as_mut_ptr(), rest.len());
        let long = self.long.first(budget);
        let parts = [long, rest];
        let parts = match long.len() {
            0 => &parts[1..],
            // The rest of the payload comes first: nothing else may follow it yet.
            len if len < self.long.len() => &parts[..1],
            _ => &parts[..],
        };
        // SAFETY: the buffer's rest is this side's own, and nothing else refers to it; the long payload's place is the
        // caller's promise.
        let received = unsafe { stream.receive(parts)? };
        let straight = received.bytes.min(long.len());
        self.long = self.long.skip(straight);
        self.end += received.bytes - straight;
        Ok(received)
    }

    /// Forgets everything, also where a long payload goes.
    pub(super) fn forget(&mut self) {
        (self.start, self.end, self.long) = (0, 0, Span::NONE);
    }
}
