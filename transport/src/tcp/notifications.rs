//! Notifications on their way from the connection to whoever takes them: a ring, and what the initiator was told of its
//! room.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};

/// Notifications that fit.
pub(super) const RING: u64 = 1024;
/// The most in one batch: however the initiator was told last, there is room for so many when all were taken.
pub(super) const MAX_IN_BATCH: usize = (RING / 2) as usize;
/// So many are taken before the initiator is told out of turn.
const UNTOLD: u64 = RING / 4;

/// Only the thread that holds the connection pushes; any thread takes.
pub(super) struct Notifications {
    slots: Box<[AtomicU64]>,
    pushed: AtomicU64,
    taken: AtomicU64,
    /// What the initiator knows of `taken`.
    told: AtomicU64,
    sleepers: AtomicU64,
    bed: Mutex<()>,
    bell: Condvar,
}

impl Notifications {
    pub(super) fn new() -> Notifications {
        Notifications {
            slots: (0..RING).map(|_| AtomicU64::new(0)).collect(),
            pushed: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            told: AtomicU64::new(0),
            sleepers: AtomicU64::new(0),
            bed: Mutex::new(()),
            bell: Condvar::new(),
        }
    }

    /// False when there is no room, which no correct peer meets.
    pub(super) fn push(&self, value: u64) -> bool {
        let pushed = self.pushed.load(Ordering::Relaxed);
        if pushed - self.taken.load(Ordering::Acquire) >= RING {
            return false;
        }
        self.slot(pushed).store(value, Ordering::Relaxed);
        // Whoever sees the number sees the slot, and the bytes that the notification speaks of.
        self.pushed.store(pushed + 1, Ordering::SeqCst);
        self.ring();
        true
    }

    pub(super) fn take(&self) -> Option<u64> {
        loop {
            let head = self.taken.load(Ordering::Acquire);
            if head == self.pushed.load(Ordering::Acquire) {
                return None;
            }
            // It is overwritten only after `taken` has passed it: then the exchange fails.
            let value = self.slot(head).load(Ordering::Relaxed);
            if self.taken.compare_exchange(head, head + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Some(value);
            }
        }
    }

    /// How many were taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// The initiator is told this number of taken ones.
    pub(super) fn tell(&self, taken: u64) {
        self.told.store(taken, Ordering::Relaxed);
    }

    /// Whether the initiator should be told of room although nothing of it ends.
    pub(super) fn is_owed(&self) -> bool {
        self.taken() - self.told.load(Ordering::Relaxed) >= UNTOLD
    }

    /// Sleeps until there is one, or somebody rings; at most `limit`.
    pub(super) fn sleep(&self, limit: Duration) {
        let bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        if self.pushed.load(Ordering::SeqCst) == self.taken() {
            drop(self.bell.wait_timeout(bed, limit));
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Wakes who sleeps.
    pub(super) fn ring(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // Who counted as asleep before waits by the time that the lock is free.
            drop(self.bed.lock());
            self.bell.notify_all();
        }
    }

    fn slot(&self, number: u64) -> &AtomicU64 {
        &self.slots[(number % RING) as usize]
    }
}
