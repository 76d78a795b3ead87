//! The target's end of a connection: requests become memory accesses and answers, a bounded amount at a turn.

use std::net::SocketAddr;

use nix::errno::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::fault::Fault;
use super::inbox::{Inbox, Placed};
use super::outbox::{Outbox, Sent};
use super::peer::Admission;
use super::socket::Span;
use super::stream::Stream;
use super::tls;
use super::wire::{HEAD, Head, LAST, SWAP, Swap, kind};
use crate::sync::{Ordering, fence};
use crate::{Error, ErrorKind, Rights};

/// About how many bytes one peer may move, in both directions, before it is the next one's turn: whoever writes a little waits so
/// long for whoever reads much.
const TURN: usize = 64 << 10;
/// What may be sent of answers when a turn's bytes are used up: a write's acknowledgement does not wait for the next.
const ANSWERS: usize = 4 << 10;
/// The answers that may wait to be sent; meanwhile no request is read.
const MAX_ANSWERS: usize = 64;

pub(super) struct Connection {
    stream: Stream,
    pub(super) from: SocketAddr,
    inbox: Inbox,
    outbox: Outbox,
    /// Events that came before it had its number are lost: it is read until nothing is there.
    is_new: bool,
    /// The long write that is under way.
    under_way: Option<Head>,
    /// Batches whose last request is done, and how many of them the initiator was told.
    done: u64,
    told: u64,
    operations: u64,
    bytes: u64,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// The bytes received and sent.
    pub(super) bytes: usize,
    /// Nothing is left to do until the socket has news.
    pub(super) drained: bool,
}

impl Turn {
    /// How many bytes it may still move.
    fn left(&self) -> usize {
        TURN.saturating_sub(self.bytes)
    }
}

/// Why a connection ends.
pub(super) enum End {
    /// The peer did what it may not.
    Fault(Fault),
    /// The way to the peer, or the peer, is gone.
    Lost(Error),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> End {
        End::Fault(fault)
    }
}

impl Connection {
    pub(super) fn new(stream: Stream, from: SocketAddr) -> Connection {
        let (inbox, outbox) = (Inbox::new(), Outbox::new());
        let (done, told, operations, bytes) = (0, 0, 0, 0);
        Connection { stream, from, inbox, outbox, is_new: true, under_way: None, done, told, operations, bytes }
    }

    /// What is sent here goes behind all else.
    pub(super) fn yield_to_others(&self) {
        self.stream.yield_to_others();
    }

    /// Answers the knock. The regions' lengths and rights go in small frames of their own size.
    pub(super) fn welcome(&mut self, grants: &[u8]) {
        let count = grants.len() / super::wire::GRANT;
        let (count, len) = (u8::try_from(count).unwrap_or(u8::MAX), u32::try_from(grants.len()).unwrap_or(u32::MAX));
        let head = Head::new(kind::WELCOME).at(count, len, super::wire::VERSION.into());
        self.outbox.push(head.as_bytes(), Span::NONE);
        for part in grants.chunks(HEAD + SWAP) {
            self.outbox.push(part, Span::NONE);
        }
    }

    /// Receives, does and answers what there is, up to a bound.
    pub(super) fn turn(&mut self, to: &Admission) -> Result<Turn, End> {
        let mut turn = Turn { bytes: 0, drained: false };
        loop {
            let stalled = self.apply(to)?;
            self.acknowledge(to);
            let (sent, how) = self.flush(turn.left().max(ANSWERS))?;
            turn.bytes += sent;
            match (how, stalled) {
                (Sent::All, true) => continue,
                (Sent::Blocked, true) => turn.drained = true,
                (Sent::Budget, _) => return Ok(turn),
                (Sent::All | Sent::Blocked, false) => {}
            }
            if turn.drained || turn.left() == 0 || to.is_revoking() {
                return Ok(turn);
            }
            // SAFETY: a long write goes to a range that `apply` checked against a region, whose memory `to` keeps mapped.
            match unsafe { self.inbox.receive(&mut self.stream, turn.left()) } {
                Ok(received) if received.closed => return Err(End::Lost(gone("the peer closed the connection"))),
                Ok(received) => {
                    turn.bytes += received.bytes;
                    turn.drained = received.drained && !self.is_new && !to.is_ending();
                    if received.bytes == 0 {
                        return Ok(turn); // A record in small parts costs the peer its turn.
                    }
                }
                Err(Errno::EAGAIN) => {
                    self.is_new = false;
                    turn.drained = true;
                }
                Err(Errno::EFAULT) => return Err(Fault::Lost.into()),
                Err(tls::BROKEN) => return Err(End::Lost(tls::broken())),
                Err(error) => return Err(lost("receiving from the peer", error)),
            }
        }
    }

    /// Does the requests that are here. True when the next has to wait for answers to be sent.
    fn apply(&mut self, to: &Admission) -> Result<bool, Fault> {
        loop {
            if self.inbox.is_filling() {
                return Ok(false);
            }
            if let Some(write) = self.under_way.take() {
                self.finish(&write, to)?;
            }
            let Some(head) = self.inbox.head() else { return Ok(false) };
            head.check_request()?;
            if self.has_to_wait(&head) {
                return Ok(true);
            }
            if !self.request(&head, to)? {
                return Ok(false);
            }
        }
    }

    /// Answers are limited. And a read takes effect when its bytes are read, which is when they are sent: what changes
    /// memory waits for that.
    fn has_to_wait(&self, head: &Head) -> bool {
        let changes = matches!(head.kind, kind::WRITE | kind::COMPARE_SWAP);
        self.outbox.len() >= MAX_ANSWERS || changes && self.outbox.has_bodies()
    }

    /// One request. False when more of it has to arrive.
    fn request(&mut self, head: &Head, to: &Admission) -> Result<bool, Fault> {
        match head.kind {
            kind::WRITE => {
                let place = to.place(head, head.len.get(), Rights::WRITE)?;
                // SAFETY: the place is inside a region's memory, which `to` keeps mapped as long as this connection.
                match unsafe { self.inbox.place(place) } {
                    Placed::Whole => self.finish(head, to)?,
                    Placed::Begun => self.under_way = Some(*head),
                    Placed::Waiting => return Ok(false),
                }
            }
            kind::READ => {
                let place = to.place(head, head.len.get(), Rights::READ)?;
                self.inbox.consume(0);
                self.outbox.push(Head::new(kind::DATA).at(0, head.len.get(), 0).as_bytes(), place);
                self.finish(head, to)?;
            }
            kind::COMPARE_SWAP => {
                let Some(swap) = self.inbox.payload(SWAP).and_then(|bytes| Swap::read_from_bytes(bytes).ok()) else {
                    return Ok(false);
                };
                let was = to.compare_swap(head, &swap)?;
                self.inbox.consume(SWAP);
                self.outbox.push(Head::new(kind::WORD).valued(was).as_bytes(), Span::NONE);
                self.finish(head, to)?;
            }
            kind::NOTIFY => {
                self.inbox.consume(0);
                if !to.notifications.push(head.value.get()) {
                    return Err(Fault::Notifications);
                }
                self.finish(head, to)?;
            }
            _ => {
                self.inbox.consume(0);
                self.finish(head, to)?;
            }
        }
        Ok(true)
    }

    /// A request took effect, if what it touched is memory still.
    fn finish(&mut self, head: &Head, to: &Admission) -> Result<(), Fault> {
        to.check_whole()?;
        // Orders what it stored before what the next one stores.
        fence(Ordering::AcqRel);
        self.operations += 1;
        if head.kind != kind::COMPARE_SWAP {
            self.bytes += u64::from(head.len.get());
        } else {
            self.bytes += 8;
        }
        self.done += u64::from(head.flags & LAST);
        Ok(())
    }

    /// One acknowledgement for all batches that were done since the last; it also tells of room for notifications.
    fn acknowledge(&mut self, to: &Admission) {
        to.count(self.operations, self.bytes);
        if (self.done == self.told && !to.notifications.is_owed()) || self.outbox.len() >= MAX_ANSWERS {
            return;
        }
        let taken = to.notifications.taken();
        #[expect(clippy::cast_possible_truncation, reason = "the initiator knows the rest: it counts what it sends")]
        let head = Head::new(kind::DONE).at(0, taken as u32, self.done);
        self.outbox.push(head.as_bytes(), Span::NONE);
        to.notifications.tell(taken);
        self.told = self.done;
    }

    fn flush(&mut self, budget: usize) -> Result<(usize, Sent), End> {
        // SAFETY: bodies are ranges that `apply` checked against a region, whose memory the admission keeps mapped.
        let sent = unsafe { self.outbox.flush(&mut self.stream, budget) };
        sent.map_err(|error| match error {
            Errno::EFAULT => Fault::Lost.into(),
            error => lost("sending to the peer", error),
        })
    }

    /// Tells the initiator why the connection ends, if its socket takes it now, and ends it. Nothing of the region is
    /// read or written afterwards.
    pub(super) fn end(mut self, why: Option<Fault>) {
        self.inbox.forget();
        if let Some(fault) = why
            && !self.stream.is_sending()
            && self.outbox.clear()
        {
            self.outbox.push(fault.to_head().as_bytes(), Span::NONE);
            let _ = self.flush(ANSWERS);
        }
        self.stream.shut_down();
    }
}

fn gone(why: &str) -> Error {
    Error::endpoint(ErrorKind::PeerGone, why)
}

fn lost(doing: &str, error: Errno) -> End {
    End::Lost(gone(&format!("{doing}: {error}")).with_code(error as i64))
}
