//! The initiator's side: copies into the target's memory, and checks the fence before it says so.

use std::collections::VecDeque;

use super::agent::Watch;
use super::control::Control;
use super::fence;
use crate::contract::driver::{EndpointDriver, Local, Place, Work};
use crate::memory::{Memory, Warmth, copy, loss};
use crate::sync::shared::AtomicU64;
use crate::sync::{Ordering, fence as barrier};
use crate::{Error, ErrorKind, Post};

/// A mapped region of the target.
pub(super) struct Mapped {
    memory: Memory,
}

impl Mapped {
    pub(super) fn new(memory: Memory) -> Mapped {
        Mapped { memory }
    }
}

pub(super) struct ShmEndpoint {
    control: Control,
    mapped: Vec<Mapped>,
    /// Notifications pushed so far: this side's own count.
    tail: u64,
    ended: VecDeque<Result<(), Error>>,
    /// Where this endpoint wrote lately.
    warmth: Warmth,
    /// Tells when the target's process is gone.
    watch: Watch,
    /// Whether that is no reason to stop.
    outlives_target: bool,
}

impl ShmEndpoint {
    pub(super) fn new(control: Control, mapped: Vec<Mapped>, watch: Watch, outlives_target: bool) -> ShmEndpoint {
        let ended = VecDeque::with_capacity(super::capabilities().max_outstanding);
        ShmEndpoint { control, mapped, tail: 0, ended, warmth: Warmth::new(), watch, outlives_target }
    }

    /// Whether the batch may start: target there, fence down, room for its notifications.
    fn may_start(&self, batch: &[Work]) -> Result<(), Post> {
        fence::peek(self.control.fence())?;
        self.target_lives()?;
        let notifications = batch.iter().filter(|work| matches!(work, Work::Notify { .. })).count() as u64;
        if notifications > 0 && self.control.room(self.tail)? < notifications {
            return Err(Post::WouldBlock);
        }
        Ok(())
    }

    fn target_lives(&self) -> Result<(), Error> {
        if !self.outlives_target && self.watch.is_gone() {
            // A target that revoked has closed the socket too: the fence knows the better reason.
            fence::peek(self.control.fence())?;
            return Err(Error::endpoint(
                ErrorKind::PeerGone,
                "the target's process, or its handle of this peer, is gone",
            ));
        }
        Ok(())
    }

    /// Whether everything stored before counts: the fence is down, and all that was touched is memory still.
    fn counts(&self, batch: &[Work]) -> Result<(), Error> {
        fence::check(self.control.fence())?;
        if loss::any() { self.check_whole(batch) } else { Ok(()) }
    }

    #[cold]
    fn check_whole(&self, batch: &[Work]) -> Result<(), Error> {
        self.control.memory().check_whole()?;
        self.mapped.iter().try_for_each(|mapped| mapped.memory.check_whole())?;
        batch.iter().try_for_each(|work| match work {
            Work::Write { local, .. } | Work::Read { local, .. } | Work::CompareSwap { local, .. } => {
                loss::check_at(local.address, local.len)
            }
            Work::Notify { .. } | Work::Flush => Ok(()),
        })
    }

    /// # Safety
    /// As for `post`.
    unsafe fn run(&mut self, batch: &[Work]) -> Result<(), Error> {
        let mut stored = false;
        for work in batch {
            // A load may pass an earlier store to another place; in order means that it must not.
            if stored && matches!(work, Work::Read { .. }) {
                barrier(Ordering::SeqCst);
            }
            // SAFETY: as the caller promised.
            unsafe { self.step(work, batch)? };
            stored |= matches!(work, Work::Write { .. });
            // Orders this operation before the next; non-temporal stores were ordered by the copy, in both directions.
            barrier(Ordering::AcqRel);
        }
        self.counts(batch)?;
        self.target_lives()
    }

    /// # Safety
    /// As for `post`.
    unsafe fn step(&mut self, work: &Work, batch: &[Work]) -> Result<(), Error> {
        match *work {
            Work::Write { local, remote } => {
                let to = self.at(remote);
                // SAFETY: the local range is valid (caller), the remote one was checked against the mapped length; a
                // peer's mapping never overlaps this process's own in addresses.
                unsafe { self.warmth.copy(local.address, to, local.len) };
            }
            Work::Read { local, remote } => {
                let from = self.at(remote);
                // SAFETY: as above, in the other direction.
                unsafe { copy(from, local.address, local.len) };
            }
            Work::Notify { value } => {
                // What the target reads after the notification must be in its memory, not in an orphan.
                self.counts(batch)?;
                self.control.push(self.tail, value);
                self.tail += 1;
            }
            Work::CompareSwap { local, remote, expected, new } => {
                // SAFETY: the eight bytes are mapped and aligned: offset and mapping are checked multiples of 8.
                let target = unsafe { AtomicU64::from_ptr(self.at(remote).cast()) };
                let swapped = target.compare_exchange(expected, new, Ordering::SeqCst, Ordering::SeqCst);
                let was = swapped.unwrap_or_else(|was| was);
                // SAFETY: eight valid (caller), aligned (checked by the contract) bytes.
                unsafe { word(local) }.store(was, Ordering::Relaxed);
            }
            // The stores are in memory that the target's processor reads coherently; `run` ends in a full barrier.
            Work::Flush => {}
        }
        Ok(())
    }

    /// The contract checked grant and range against what `complete` reported, which is what is mapped.
    fn at(&self, place: Place) -> *mut u8 {
        let memory = &self.mapped[place.grant as usize].memory;
        #[expect(clippy::cast_possible_truncation, reason = "checked to be inside a mapping")]
        memory.as_ptr().wrapping_add(place.offset as usize)
    }
}

/// # Safety
/// The local range is eight valid, aligned bytes.
unsafe fn word<'a>(local: Local) -> &'a AtomicU64 {
    // SAFETY: as the caller promised.
    unsafe { AtomicU64::from_ptr(local.address.cast()) }
}

// SAFETY: local memory is touched only inside `post`.
unsafe impl EndpointDriver for ShmEndpoint {
    unsafe fn post(&mut self, batch: &[Work]) -> Result<(), Post> {
        self.may_start(batch)?;
        // SAFETY: as the caller promised.
        let ended = unsafe { self.run(batch) };
        self.ended.push_back(ended);
        Ok(())
    }

    fn poll(&mut self) -> Option<Result<(), Error>> {
        self.ended.pop_front()
    }

    fn abort(&mut self) {
        self.ended.clear();
    }
}
