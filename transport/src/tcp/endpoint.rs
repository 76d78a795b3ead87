//! The initiator's side: sends a batch straight from local memory, and takes the answers straight into it.

use std::collections::VecDeque;
use std::time::Duration;

use nix::errno::Errno;
use zerocopy::IntoBytes;

use super::fault::Fault;
use super::inbox::{Inbox, Placed};
use super::notifications::RING;
use super::outbox::Outbox;
use super::socket::Span;
use super::stream::Stream;
use super::tls;
use super::wire::{HEAD, Head, LAST, MARK, SWAP, Swap, kind};
use crate::contract::driver::{EndpointDriver, Local, Place, Work};
use crate::memory::copy;
use crate::{Error, ErrorKind, Post};

/// About how many bytes one call sends or receives.
const BUDGET: usize = 2 << 20;
/// The frames that may wait to be sent before a batch is refused.
const MAX_WAITING: usize = 1 << 16;

pub(super) struct TcpEndpoint {
    /// `None` after an abort.
    stream: Option<Stream>,
    inbox: Inbox,
    outbox: Outbox,
    /// The answers to come, in order.
    awaited: VecDeque<Awaited>,
    /// Batches posted, done by the target's word, and reported.
    posted: u64,
    done: u64,
    reported: u64,
    /// Notifications sent, and taken by the target's word.
    notified: u64,
    taken: u64,
    /// Sending failed; why is perhaps still to be received.
    unsent: Option<Errno>,
    broken: Option<Error>,
}

/// An answer to come.
struct Awaited {
    /// The number of its batch, from 1 on.
    batch: u64,
    kind: u8,
    local: Local,
}

impl TcpEndpoint {
    pub(super) fn new(stream: Stream) -> TcpEndpoint {
        TcpEndpoint {
            stream: Some(stream),
            inbox: Inbox::new(),
            outbox: Outbox::new(),
            awaited: VecDeque::with_capacity(64),
            posted: 0,
            done: 0,
            reported: 0,
            notified: 0,
            taken: 0,
            unsent: None,
            broken: None,
        }
    }

    /// Whether the batch may start: room to wait in, and for its notifications at the target.
    fn may_start(&mut self, batch: &[Work]) -> Result<(), Post> {
        if !self.outbox.is_empty() && self.outbox.len() + batch.len() > MAX_WAITING {
            return Err(Post::WouldBlock);
        }
        let notifications = batch.iter().filter(|work| matches!(work, Work::Notify { .. })).count() as u64;
        if self.notified + notifications - self.taken > RING {
            // Nobody polls when nothing is in flight, so news of room is looked for here.
            self.hear()?;
            if self.notified + notifications - self.taken > RING {
                return Err(Post::WouldBlock);
            }
        }
        self.notified += notifications;
        Ok(())
    }

    fn push(&mut self, work: &Work, last: bool) {
        let flags = if last { LAST } else { 0 };
        let marked = |head: Head| Head { flags, ..head };
        match *work {
            Work::Write { local, remote } => {
                let head = marked(at(kind::WRITE, remote, local.len));
                self.outbox.push(head.as_bytes(), Span::new(local.address, local.len));
            }
            Work::Read { local, remote } => {
                self.outbox.push(marked(at(kind::READ, remote, local.len)).as_bytes(), Span::NONE);
                self.awaited.push_back(Awaited { batch: self.posted, kind: kind::DATA, local });
            }
            Work::CompareSwap { local, remote, expected, new } => {
                let mut bytes = [0; HEAD + SWAP];
                bytes[..HEAD].copy_from_slice(marked(at(kind::COMPARE_SWAP, remote, SWAP)).as_bytes());
                bytes[HEAD..].copy_from_slice(Swap { expected: expected.into(), new: new.into() }.as_bytes());
                self.outbox.push(&bytes, Span::NONE);
                self.awaited.push_back(Awaited { batch: self.posted, kind: kind::WORD, local });
            }
            Work::Notify { value } => {
                self.outbox.push(marked(Head::new(kind::NOTIFY).valued(value)).as_bytes(), Span::NONE);
            }
            Work::Flush => self.outbox.push(marked(Head::new(kind::FLUSH)).as_bytes(), Span::NONE),
        }
    }

    fn flush(&mut self) {
        if let (Some(stream), None) = (&mut self.stream, self.unsent) {
            // SAFETY: bodies are local ranges of batches in flight: not reported, and not aborted, which clears them.
            match unsafe { self.outbox.flush(stream, BUDGET) } {
                Ok(_) => {}
                Err(error) => self.unsent = Some(error),
            }
        }
    }

    /// Receives until a batch is done, nothing more is there, or it was enough for one call. After sending failed: until it is known why.
    fn hear(&mut self) -> Result<(), Error> {
        let mut budget = BUDGET;
        loop {
            self.take()?;
            if budget == 0 || self.done > self.reported && self.unsent.is_none() {
                return Ok(());
            }
            let Some(stream) = &mut self.stream else { return Ok(()) };
            // SAFETY: a long answer goes to the local range of a batch in flight: not reported, because its `DONE` comes
            // after it, and not aborted, which forgets it.
            match unsafe { self.inbox.receive(stream, budget) } {
                Ok(received) if received.closed => return Err(self.gone("closed the connection", None)),
                Ok(received) => {
                    budget = budget.saturating_sub(received.bytes);
                    if received.bytes == 0 || received.drained && self.unsent.is_none() {
                        return self.take();
                    }
                }
                Err(Errno::EAGAIN) => {
                    return self.unsent.map_or(Ok(()), |error| Err(self.gone("takes no more", Some(error))));
                }
                Err(tls::BROKEN) => return Err(tls::broken()),
                Err(error) => return Err(self.gone("broke off the connection", Some(error))),
            }
        }
    }

    /// Takes the answers that are here.
    fn take(&mut self) -> Result<(), Error> {
        while let Some(head) = self.inbox.head() {
            match (head.mark, head.kind) {
                (MARK, kind::DATA | kind::WORD) => {
                    if !self.answer(&head)? {
                        return Ok(());
                    }
                }
                (MARK, kind::DONE) => {
                    self.inbox.consume(0);
                    self.settle(&head)?;
                }
                (MARK, kind::REFUSED) => return Err(refused(&head)),
                (mark, kind) => {
                    return Err(protocol(&format!("an answer of kind {kind} that starts with {mark:#04x}")));
                }
            }
        }
        Ok(())
    }

    /// The answer to a read or a compare and swap. False when more of it has to arrive.
    fn answer(&mut self, head: &Head) -> Result<bool, Error> {
        let unexpected = || protocol(&format!("an answer of kind {} and {} bytes, not awaited", head.kind, head.len));
        let awaited = self.awaited.front().filter(|awaited| awaited.kind == head.kind).ok_or_else(unexpected)?;
        let local = awaited.local;
        if head.kind == kind::WORD {
            let was = head.value.get().to_ne_bytes();
            // SAFETY: eight bytes (checked by the contract) of a batch in flight.
            unsafe { copy(was.as_ptr(), local.address, was.len()) };
            self.inbox.consume(0);
        } else {
            if head.len.get() as usize != local.len {
                return Err(unexpected());
            }
            // SAFETY: the local range of a batch in flight; an abort forgets it.
            let placed = unsafe { self.inbox.place(Span::new(local.address, local.len)) };
            if placed == Placed::Waiting {
                return Ok(false);
            }
        }
        self.awaited.pop_front();
        Ok(true)
    }

    /// Batches are done: only those that were posted, and only when their answers are here.
    fn settle(&mut self, head: &Head) -> Result<(), Error> {
        let done = head.value.get();
        let unanswered = self.awaited.front().is_some_and(|awaited| awaited.batch <= done);
        if done < self.done || done > self.posted || unanswered {
            let (posted, before) = (self.posted, self.done);
            return Err(protocol(&format!("{done} batches are said to be done: {posted} were posted, {before} done")));
        }
        // The low half of the target's count: it is at most a ring behind this side's.
        #[expect(clippy::cast_possible_truncation, reason = "the arithmetic is modulo 2^32")]
        let untaken = u64::from((self.notified as u32).wrapping_sub(head.len.get()));
        let taken = self.notified.checked_sub(untaken).filter(|&taken| untaken <= RING && taken >= self.taken);
        let Some(taken) = taken else {
            return Err(protocol(&format!("the target's count of notifications makes no sense: {}", head.len)));
        };
        (self.done, self.taken) = (done, taken);
        Ok(())
    }

    fn gone(&self, what: &str, error: Option<Errno>) -> Error {
        if error.or(self.unsent) == Some(Errno::EFAULT) {
            let text =
                "local memory of a batch in flight is gone: somebody cut its file short, or its file system is full";
            return Error::endpoint(ErrorKind::Lost, text).with_code(Errno::EFAULT as i64);
        }
        let why = error.or(self.unsent).map(|error| format!(": {error}")).unwrap_or_default();
        let text = format!("the target, or the way to it, {what}{why}");
        Error::endpoint(ErrorKind::PeerGone, text).with_code(error.or(self.unsent).map_or(0, |error| error as i64))
    }
}

// SAFETY: `poll` reports a batch only when the target's `DONE` for it was received, after every answer to it, so nothing
// of it waits to be sent or received; `abort` forgets everything, and no system call outlives its caller.
unsafe impl EndpointDriver for TcpEndpoint {
    unsafe fn post(&mut self, batch: &[Work]) -> Result<(), Post> {
        if let Some(error) = &self.broken {
            return Err(error.clone().into());
        }
        self.may_start(batch)?;
        self.posted += 1;
        for (index, work) in batch.iter().enumerate() {
            self.push(work, index + 1 == batch.len());
        }
        self.flush();
        Ok(())
    }

    fn poll(&mut self) -> Option<Result<(), Error>> {
        if self.reported == self.done && self.broken.is_none() {
            if !self.outbox.is_empty() {
                self.flush();
            }
            self.broken = self.hear().err();
        }
        if self.reported < self.done {
            self.reported += 1;
            return Some(Ok(()));
        }
        self.broken.clone().map(Err)
    }

    fn abort(&mut self) {
        self.stream = None;
        self.inbox.forget();
        self.outbox.clear();
        self.awaited.clear();
    }

    fn sleep(&mut self, limit: Duration) {
        let ready = self.reported < self.done || self.broken.is_some() || self.unsent.is_some();
        if let (Some(stream), false) = (&mut self.stream, ready) {
            stream.sleep(!self.outbox.is_empty(), limit);
        }
    }
}

/// A request for a place; the contract checked it against the grants, of which there are at most 64.
fn at(kind: u8, place: Place, len: usize) -> Head {
    let (grant, len) = (u8::try_from(place.grant).unwrap_or(u8::MAX), u32::try_from(len).unwrap_or(u32::MAX));
    Head::new(kind).at(grant, len, place.offset)
}

/// What a target's refusal says.
pub(super) fn refused(head: &Head) -> Error {
    let unknown = || {
        let text = format!("the target ended the connection for reason {}, which is not known here", head.flags);
        Error::endpoint(ErrorKind::PeerGone, text).with_code(head.flags.into())
    };
    Fault::from_head(head).map_or_else(unknown, Fault::error)
}

fn protocol(what: &str) -> Error {
    Error::endpoint(ErrorKind::Protocol, format!("{what}: the target is broken"))
}
