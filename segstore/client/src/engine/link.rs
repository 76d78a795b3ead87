//! The data endpoint to one replica, and the push under way on it.
//!
//! What a push writes comes from two places: blocks from working memory, as they are; marks, table entries and headers from a staging
//! area of the link, where they are laid out once and stay until the push has ended.

use arrayvec::ArrayVec;
use segstore_core::changes::Changes;
use segstore_core::id::{Epoch, Member};
use segstore_core::layout::geometry::SLOT_HEAD;
use segstore_core::layout::{BlockIndex, Geometry};
use segstore_core::push::{Checkpoint, Source, Target};
use segstore_transport::{Completion, Endpoint, Error as TransportError, Memory, Operation, Post, Region, Wait};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::control::message::LinkState;
use crate::domains::{Destination, DialError, Dialled, Domains};
use crate::way::Way;
use crate::working::in_memory;

/// Operations in one batch, and about how many bytes. A checkpoint of a few blocks is one batch; a large one is several, between which
/// the engine looks at everything else.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 4 << 20;
/// The longest piece of a plan.
const PIECE: usize = 1 << 20;
/// Batches in flight.
const WINDOW: usize = 4;

/// An open endpoint to one replica.
pub(crate) struct Link {
    pub(crate) member: Member,
    pub(crate) way: Way,
    /// Why it is no better way, if there is one.
    pub(crate) instead: Option<String>,
    /// Whether there may be a better way, or come one.
    pub(crate) may_be_better: bool,
    /// Whether nothing was known against its way when it was opened.
    pub(crate) was_trusted: bool,
    /// Whether a push has got through.
    pub(crate) has_delivered: bool,
    endpoint: Endpoint,
    working: Region,
    staging: Region,
    /// Where slot 0 stands in a replica: endpoints are granted what comes from there on.
    origin: u64,
    plan: Vec<Piece>,
    /// Pieces of the plan that were posted.
    posted: usize,
    /// Of these, those that have completed.
    completed: usize,
    /// How many each batch has that was posted and has not completed; they complete in this order.
    in_flight: VecDeque<usize>,
    /// Bytes of the plan, and of these the posted ones.
    bytes: u64,
    posted_bytes: u64,
    /// When somebody looked first whether it is stuck, since something was posted, or completed, last: the clock is not read on the
    /// way of a checkpoint that is done before.
    idle_since: Option<Instant>,
    epoch: Option<Epoch>,
    /// What became of a push that was ended, until somebody asks.
    ended: Option<Ended>,
    block_size: usize,
}

/// A push that was ended.
pub(crate) struct Ended {
    pub(crate) epoch: Epoch,
    /// All blocks below this one stand in the replica, with their entries.
    pub(crate) blocks: BlockIndex,
}

/// One write of the plan.
#[derive(Clone, Copy)]
struct Piece {
    from: From,
    offset: usize,
    length: usize,
    to: u64,
}

impl Piece {
    /// The same, in parts of which none is too long.
    fn parts(self) -> impl Iterator<Item = Piece> {
        (0..self.length).step_by(PIECE).map(move |done| Piece {
            offset: self.offset + done,
            length: PIECE.min(self.length - done),
            to: self.to + done as u64,
            ..self
        })
    }
}

#[derive(Clone, Copy)]
enum From {
    Staging,
    Working,
}

/// What became of the push.
pub(crate) enum Progress {
    /// Nothing new.
    Waiting,
    /// The replica has it.
    Completed(Epoch),
    /// The endpoint is gone.
    Broken(TransportError),
}

impl Link {
    /// Opens an endpoint to a replica, for pushes from this working memory.
    pub(crate) fn open(
        domains: &Domains,
        to: &Destination<'_>,
        working: &Memory,
        geometry: &Geometry,
    ) -> Result<Self, DialError> {
        let bytes = in_memory(geometry.data_in_slot()) + 2 * SLOT_HEAD;
        let staging = Memory::local(bytes);
        let staging = staging.map_err(|error| DialError::OutOfReach(format!("mapping a staging area: {error}")))?;
        let may_be_better = |way| way == Way::Tcp && to.channel.welcome().rdma.wanted;
        let Dialled { way, endpoint, regions: [working, staging], instead, is_trusted } =
            domains.dial(to, [working, &staging])?;
        Ok(Self {
            member: to.place.member,
            way,
            may_be_better: instead.is_some() || may_be_better(way),
            instead,
            was_trusted: is_trusted,
            has_delivered: false,
            endpoint,
            working,
            staging,
            origin: geometry.slot(0),
            plan: Vec::with_capacity(64),
            posted: 0,
            completed: 0,
            in_flight: VecDeque::with_capacity(WINDOW),
            bytes: 0,
            posted_bytes: 0,
            idle_since: None,
            epoch: None,
            ended: None,
            block_size: in_memory(u64::from(geometry.block_size())),
        })
    }

    /// How it reaches its replica.
    pub(crate) fn state(&self) -> LinkState {
        LinkState { member: self.member, provider: self.way.provider().to_owned() }
    }

    /// Begins to push a checkpoint. Working memory must rest until it has ended.
    pub(crate) fn push(&mut self, epoch: Epoch, checkpoint: &Checkpoint, changes: &Changes, target: Target) -> u64 {
        self.plan.clear();
        let (mut staged, mut bytes) = (0, 0);
        let (staging, plan, origin) = (self.staging.memory(), &mut self.plan, self.origin);
        checkpoint.plan(changes, target, &mut |at: u64, source: Source<'_>| {
            let to = at - origin;
            let piece = match source {
                Source::Bytes(these) => {
                    let written = staging.write_at(staged, these);
                    debug_assert!(written.is_ok(), "the staging area holds a whole table and the heads");
                    let piece = Piece { from: From::Staging, offset: staged, length: these.len(), to };
                    staged += these.len();
                    piece
                }
                Source::Working { offset, length } => {
                    Piece { from: From::Working, offset: in_memory(offset), length: in_memory(length), to }
                }
            };
            bytes += piece.length as u64;
            plan.extend(piece.parts());
        });
        (self.posted, self.completed, self.posted_bytes, self.bytes) = (0, 0, 0, bytes);
        self.idle_since = None;
        self.epoch = Some(epoch);
        bytes
    }

    /// Bytes of the push under way that were posted, and all of them.
    pub(crate) fn sent(&self) -> (u64, u64) {
        if self.is_busy() { (self.posted_bytes, self.bytes) } else { (self.bytes, self.bytes) }
    }

    /// Posts the next batch, and takes what has completed.
    pub(crate) fn progress(&mut self) -> Progress {
        let Some(epoch) = self.epoch else { return Progress::Waiting };
        if let Err(error) = self.post() {
            return self.broken(error);
        }
        while let Some(completion) = self.endpoint.poll() {
            if let Err(error) = self.take(completion) {
                return self.broken(error);
            }
        }
        if self.completed == self.plan.len() {
            self.epoch = None;
            self.has_delivered = true;
            return Progress::Completed(epoch);
        }
        Progress::Waiting
    }

    fn take(&mut self, completion: Completion) -> Result<(), TransportError> {
        let pieces = self.in_flight.pop_front().unwrap_or(0);
        self.idle_since = None;
        completion.result?;
        self.completed += pieces;
        Ok(())
    }

    fn post(&mut self) -> Result<(), TransportError> {
        if self.posted == self.plan.len() || self.in_flight.len() == WINDOW {
            return Ok(());
        }
        let (mut batch, mut bytes) = (ArrayVec::<Operation<'_>, BATCH>::new(), 0);
        for piece in &self.plan[self.posted..] {
            if batch.is_full() || bytes >= BATCH_BYTES {
                break;
            }
            let region = match piece.from {
                From::Staging => &self.staging,
                From::Working => &self.working,
            };
            batch.push(Operation::write(region.slice(piece.offset, piece.length)?, 0, piece.to));
            bytes += piece.length;
        }
        match self.endpoint.post(&batch, 0) {
            Ok(()) => {
                self.posted += batch.len();
                self.posted_bytes += bytes as u64;
                self.in_flight.push_back(batch.len());
                Ok(())
            }
            Err(Post::WouldBlock) => Ok(()),
            Err(Post::Failed(error)) => Err(error),
        }
    }

    fn broken(&mut self, error: TransportError) -> Progress {
        self.ended = self.abort();
        Progress::Broken(error)
    }

    /// Whether the replica has taken nothing of the push for longer than `limit`.
    pub(crate) fn is_stuck(&mut self, now: Instant, limit: Duration) -> bool {
        self.is_busy() && now.saturating_duration_since(*self.idle_since.get_or_insert(now)) > limit
    }

    /// Whether a push is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.epoch.is_some()
    }

    /// Sleeps until something may have completed, at most until `deadline`.
    pub(crate) fn sleep(&mut self, wait: Wait, deadline: Instant) -> Progress {
        if self.epoch.is_none() || self.in_flight.is_empty() {
            return Progress::Waiting;
        }
        if let Some(completion) = self.endpoint.wait(wait, Some(deadline))
            && let Err(error) = self.take(completion)
        {
            return self.broken(error);
        }
        self.progress()
    }

    /// Ends it: when this returns, nothing reads working memory for this link. What is known of the push that was ended by it, or had broken.
    pub(crate) fn abort(&mut self) -> Option<Ended> {
        self.endpoint.abort();
        self.in_flight.clear();
        let ended = self.epoch.take().map(|epoch| Ended { epoch, blocks: self.standing() });
        ended.or(self.ended.take())
    }

    /// The first block that may not stand in the replica: the plan has them by rising number, after all their entries.
    fn standing(&self) -> BlockIndex {
        let is_of_blocks = |piece: &Piece| matches!(piece.from, From::Working);
        let rest = &self.plan[self.completed..];
        let next = match rest.first() {
            Some(piece) if is_of_blocks(piece) => piece.offset / self.block_size,
            Some(_) if rest.iter().any(is_of_blocks) => 0,
            _ => usize::MAX,
        };
        BlockIndex::try_from(next).unwrap_or(BlockIndex::MAX)
    }
}
