//! An owned segment: working memory, and checkpoints of it.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::{Duration, Instant};

use segstore_core::changes::Changes;
use segstore_core::id::{Epoch, Term};
use segstore_core::owner::{BeginError, End, Outcome, Owner};

use crate::compare::Before;
use crate::control::message::SegmentInfo;
use crate::engine::Engine;
use crate::engine::seat::Shared;
use crate::engine::wanted::Wanted;
use crate::error::{Error, Result};
use crate::moves::Moves;
use crate::name::HeldName;
use crate::options::{OpenOptions, Tracking};
use crate::session;
use crate::takeover::{self, Times};
use crate::ticket::Ticket;
use crate::turn::Turn;
use crate::working::{Working, in_memory};

/// An owned segment. Its bytes are changed in place; a checkpoint makes them survive this process and its node.
///
/// Dropping it lets go of the segment, with whatever was not checkpointed; [`Segment::release`] also spares the next owner work.
pub struct Segment {
    pub(crate) shared: Tenure,
    working: Working,
    /// Away while a checkpoint is under way.
    changes: Option<Box<Changes>>,
    /// With [`Tracking::Compared`]: working memory as it was at the last checkpoint.
    before: Option<Before>,
    pub(crate) timeout: Duration,
    /// After the engine: the name is free when nothing is pushed any more.
    held: HeldName,
    times: Times,
}

/// The engine for as long as this process owns the segment. Its end ends every transfer.
pub(crate) struct Tenure(Arc<Shared>);

impl std::ops::Deref for Tenure {
    type Target = Arc<Shared>;

    fn deref(&self) -> &Arc<Shared> {
        &self.0
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        if self.session.channel.is_inherited() {
            // The owner is its parent, and so are what reaches replicas and whoever had the engine.
            std::mem::forget(self.0.clone());
            return;
        }
        self.close();
        let mut engine = self.enter();
        engine.end();
        self.leave(engine);
    }
}

/// A checkpoint that was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Its number: rises in the segment's life, may skip.
    pub epoch: Epoch,
    /// How many replicas in sync hold it.
    pub in_sync: usize,
    /// How many of these are on other nodes than this one.
    pub elsewhere: usize,
}

impl Segment {
    /// Takes over a segment whose name the session holds.
    pub(crate) fn take_over(turn: Turn, info: SegmentInfo, options: &OpenOptions) -> Result<Self> {
        let Turn { held, came, ahead } = turn;
        let began = Instant::now();
        let session = held.session();
        let geometry = session::geometry(&info)?;
        let taken = takeover::take_over(session, info, geometry, "opened", ahead)?;
        let taken_at = Instant::now();
        let owner = Owner::new(taken.start, taken.info.keeping.policy()).on_node(session.channel.welcome().node);
        let length = taken.changes.length();
        let engine = Engine::new(owner, Wanted::of(&taken.info), options.wait, length, began.elapsed());
        let memory = taken.working.memory().clone();
        let shared = Shared::new(session.clone(), taken.info, geometry, memory, options.patience, engine);
        let before = (options.tracking == Tracking::Compared).then(|| Before::of(&taken.working, length));
        session.own(&shared);
        shared.connect_all();
        let times = Times { prepared: began - came, opened: taken_at.elapsed(), ..taken.times };
        Ok(Self {
            shared: Tenure(shared),
            held,
            working: taken.working,
            changes: Some(taken.changes),
            before,
            timeout: options.timeout,
            times,
        })
    }

    /// Whether it is the segment of the process that forked this one.
    pub(crate) fn is_inherited(&self) -> bool {
        self.shared.session.channel.is_inherited()
    }

    // ---- bytes ----

    /// The segment's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Bytes of application state.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.as_ref().map_or(0, |changes| in_memory(changes.length()))
    }

    /// Whether the length is zero.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the segment may grow to.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.working.bytes().len()
    }

    /// Bytes of a block.
    #[must_use]
    pub fn block_size(&self) -> usize {
        self.shared.geometry.block_size() as usize
    }

    /// The state.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.working.bytes()[..self.len()]
    }

    /// Part of the state, to be changed in place. All of it counts as changed.
    ///
    /// # Errors
    /// [`Error::Invalid`]: the range is not inside the length.
    pub fn bytes_mut(&mut self, range: impl RangeBounds<usize>) -> Result<&mut [u8]> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => self.len(),
        };
        self.check(start, end)?;
        self.settle();
        if let Some(changes) = self.changes.as_mut() {
            changes.mark_bytes(start as u64, (end - start) as u64);
        }
        Ok(&mut self.working.bytes_mut()[start..end])
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    /// [`Error::Invalid`]: they do not fit into the length.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.bytes_mut(offset..offset.saturating_add(bytes.len()))?.copy_from_slice(bytes);
        Ok(())
    }

    /// All of the state, to be changed without marks: with [`Tracking::Compared`] the next checkpoint finds out what changed.
    ///
    /// # Errors
    /// [`Error::Invalid`]: the segment was opened with [`Tracking::Told`].
    pub fn bytes_unmarked(&mut self) -> Result<&mut [u8]> {
        if self.before.is_none() {
            let text = "changes without marks are only found in a segment that was opened with Tracking::Compared";
            return Err(Error::Invalid(text.into()));
        }
        self.settle();
        let length = self.len();
        Ok(&mut self.working.bytes_mut()[..length])
    }

    /// Changes the length, up to the capacity. What it gains is zeros.
    ///
    /// # Errors
    /// [`Error::Invalid`]: beyond the capacity.
    pub fn set_len(&mut self, length: usize) -> Result<()> {
        if length > self.capacity() {
            let text = format!("length {length}: segment {} has a capacity of {}", self.name(), self.capacity());
            return Err(Error::Invalid(text));
        }
        self.settle();
        let old = self.len();
        if length < old {
            self.working.bytes_mut()[length..old].fill(0);
        }
        if let Some(changes) = self.changes.as_mut() {
            changes.set_length(length as u64);
            let cut = length.min(old) as u64;
            if length != old && !cut.is_multiple_of(u64::from(self.shared.geometry.block_size())) {
                // The block that the end cuts through: its rest was zeroed, or comes within the length.
                changes.mark_bytes(cut - 1, 1);
            }
        }
        Ok(())
    }

    fn check(&self, start: usize, end: usize) -> Result<()> {
        if start > end || end > self.len() {
            let (name, length) = (self.name(), self.len());
            return Err(Error::Invalid(format!("bytes {start} to {end}: segment {name} has a length of {length}")));
        }
        Ok(())
    }

    // ---- checkpoints ----

    /// Makes the state as it is survive: returns when every replica in sync has it.
    ///
    /// # Errors
    /// [`Error::Fenced`]: somebody took the segment over; [`Error::NotFound`]: it was removed. [`Error::Pending`]: not in its time;
    /// it may still turn up, and the next checkpoint contains it.
    pub fn checkpoint(&mut self) -> Result<Checkpoint> {
        self.commit()?.wait()
    }

    /// Starts a checkpoint of the state as it is. The ticket keeps the state from being changed until it has ended.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::NotFound`].
    pub fn commit(&mut self) -> Result<Ticket<'_>> {
        self.settle();
        let Some(mut changes) = self.changes.take() else {
            return Err(Error::Internal("a checkpoint is under way that nobody ends".into()));
        };
        if let Some(before) = &mut self.before {
            before.mark(&self.working, &mut changes);
        }
        let (shared, working) = (&self.shared, &self.working);
        let mut engine = shared.enter();
        let began = engine.begin(shared, changes, |epoch, changes| changes.seal(epoch, |i| working.block(i)));
        shared.leave(engine);
        match began {
            Ok((epoch, began)) => Ok(Ticket::new(self, epoch, began)),
            Err((error, changes)) => {
                self.changes = Some(changes);
                Err(self.refused(error))
            }
        }
    }

    fn refused(&self, error: BeginError) -> Error {
        match error {
            BeginError::Ended(end) => self.ended(end),
            other => Error::Internal(format!("segment {}: {other}", self.name())),
        }
    }

    pub(crate) fn ended(&self, end: End) -> Error {
        let name = self.name().to_owned();
        match end {
            End::Fenced(by) => Error::Fenced { name, term: by.term },
            End::Unlinked => Error::NotFound(format!(
                "segment {name} was removed while this process owned it: its state is in this process's memory only"
            )),
        }
    }

    /// Takes the changes back from an attempt that has ended.
    pub(crate) fn take_back(&mut self, changes: Option<Box<Changes>>) {
        if changes.is_some() {
            self.changes = changes;
        }
    }

    /// Ends an attempt whose ticket was forgotten: nothing may read what is about to change.
    fn settle(&mut self) {
        if self.changes.is_some() {
            return;
        }
        let mut engine = self.shared.enter();
        engine.give_up(&self.shared);
        self.changes = engine.take_changes();
        self.shared.leave(engine);
    }

    // ---- what is known ----

    /// The newest acknowledged checkpoint.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        let engine = self.shared.enter();
        let epoch = engine.owner.acknowledged().epoch;
        self.shared.leave(engine);
        epoch
    }

    /// The number of this ownership.
    #[must_use]
    pub fn term(&self) -> Term {
        self.shared.ownership.term
    }

    /// What became of a checkpoint of this ownership.
    #[must_use]
    pub fn outcome(&self, epoch: Epoch) -> Outcome {
        let engine = self.shared.enter();
        let outcome = engine.outcome(epoch);
        self.shared.leave(engine);
        outcome
    }

    /// How long the parts of the takeover took that made this process the owner.
    #[must_use]
    pub fn takeover_times(&self) -> Times {
        self.times
    }

    /// From now on this owner can be asked to hand the segment over, as `segctl move` does: it makes its last checkpoint then, and
    /// [releases](Self::release) the segment, which goes to whom it is wished for, as long as that one stands by. So it is with a process
    /// that just ends. In what `segctl run` runs the name is the runner's, and goes when the program ends.
    ///
    /// Whoever stands by for several segments stands by for the first of their names that is not free: an application that is asked for
    /// one of several lets go of all.
    ///
    /// # Errors
    /// [`Error::NoRoom`]: no descriptor is left.
    pub fn moves(&self) -> Result<Moves> {
        self.shared.moves.listen()
    }

    /// Lets go of the segment, so that another session may own it at once. Its replicas bring their stale slots up to date in their
    /// own memory first, so that the next owner's first checkpoint sends only what changes.
    ///
    /// # Errors
    /// [`Error::Unreachable`]: the daemon or the directory does not answer; the name is free as soon as they do.
    pub fn release(self) -> Result<()> {
        let shared = self.shared.clone();
        let members = {
            let engine = shared.enter();
            let members = if engine.owner.end().is_some() { Vec::new() } else { engine.owner.followers().collect() };
            shared.leave(engine);
            members
        };
        let Self { shared: tenure, held, .. } = self;
        drop(tenure);
        shared.level(&members);
        held.release()
    }
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("name", &self.name()).field("term", &self.term()).finish_non_exhaustive()
    }
}
