//! A checkpoint under way.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use nix::sys::eventfd::{EfdFlags, EventFd};
use segstore_core::id::Epoch;

use crate::engine::{Committed, Engine};
use crate::error::{Error, Result};
use crate::segment::{Checkpoint, Segment};
use crate::time::after;

/// A checkpoint under way. The state rests until it has ended. Dropping it waits for that, or for the segment's time limit.
#[must_use = "a checkpoint is not safe before its ticket says so"]
pub struct Ticket<'s> {
    segment: &'s mut Segment,
    epoch: Epoch,
    began: Instant,
    bell: Option<Arc<EventFd>>,
    is_over: bool,
}

impl<'s> Ticket<'s> {
    pub(crate) fn new(segment: &'s mut Segment, epoch: Epoch, began: Instant) -> Self {
        Self { segment, epoch, began, bell: None, is_over: false }
    }

    /// Its number.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether it has ended: its result, if so.
    pub fn poll(&mut self) -> Option<Result<Checkpoint>> {
        let mut engine = self.segment.shared.enter();
        engine.step(&self.segment.shared);
        let ended = self.look(&mut engine);
        self.segment.shared.leave(engine);
        ended
    }

    /// How many bytes are on their way to replicas, or there, and how many there are to send: for people who wait.
    #[must_use]
    pub fn sent(&self) -> (u64, u64) {
        let engine = self.segment.shared.enter();
        let sent = engine.sent();
        self.segment.shared.leave(engine);
        sent
    }

    /// A descriptor that becomes readable when it has ended, for `poll`, `select` or an event loop. From then on a thread of the
    /// library drives the checkpoint.
    ///
    /// # Errors
    /// [`Error::NoRoom`]: no descriptor, or no thread, is left.
    pub fn descriptor(&mut self) -> Result<BorrowedFd<'_>> {
        if self.bell.is_none() {
            let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
            let bell =
                EventFd::from_flags(flags).map_err(|error| Error::NoRoom(format!("making an eventfd: {error}")))?;
            let bell = Arc::new(bell);
            let driven = self.segment.shared.drive(self.epoch, bell.clone());
            driven.map_err(|error| Error::NoRoom(format!("starting a thread that drives a checkpoint: {error}")))?;
            self.bell = Some(bell);
        }
        let bell = self.bell.as_ref().ok_or_else(|| Error::Internal("no eventfd".into()))?;
        Ok(bell.as_fd())
    }

    /// Waits for its end, at most for the time that the segment was opened with.
    ///
    /// # Errors
    /// As [`Segment::checkpoint`].
    pub fn wait(mut self) -> Result<Checkpoint> {
        let deadline = after(self.began, self.segment.timeout);
        self.until(deadline)
    }

    /// Waits for its end, at most until `deadline`.
    ///
    /// # Errors
    /// As [`Segment::checkpoint`].
    pub fn wait_until(mut self, deadline: Instant) -> Result<Checkpoint> {
        self.until(deadline)
    }

    fn until(&mut self, deadline: Instant) -> Result<Checkpoint> {
        let mut engine = self.segment.shared.enter();
        let mut since = None;
        let result = loop {
            if let Some(ended) = self.look(&mut engine) {
                break ended;
            }
            let now = Instant::now();
            if now >= deadline {
                let waiting_for = engine.give_up(&self.segment.shared);
                self.end(&mut engine);
                let name = self.segment.name().to_owned();
                break Err(Error::Pending { name, epoch: self.epoch, waiting_for });
            }
            engine.rest(&self.segment.shared, *since.get_or_insert(now), now, deadline);
            engine.step(&self.segment.shared);
        };
        self.segment.shared.leave(engine);
        result
    }

    fn look(&mut self, engine: &mut Engine) -> Option<Result<Checkpoint>> {
        if let Some(Committed { epoch, in_sync, elsewhere }) = engine.committed() {
            self.end(engine);
            return Some(Ok(Checkpoint { epoch, in_sync, elsewhere }));
        }
        let end = engine.owner.end()?;
        self.end(engine);
        Some(Err(self.segment.ended(end)))
    }

    fn end(&mut self, engine: &mut Engine) {
        self.is_over = true;
        self.segment.take_back(engine.take_changes());
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        // A forked child has nothing under way: its parent has.
        if !self.is_over && !self.segment.is_inherited() {
            let deadline = after(self.began, self.segment.timeout);
            let _ = self.until(deadline);
        }
    }
}
