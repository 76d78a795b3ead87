//! The control page of one endpoint: fence word and notifications, shared by its two sides and nobody else.
//!
//! Each side keeps its own counters outside the page, and believes the other's only after a check.

use std::time::Duration;

use nix::libc;

use super::fence::Word;
use crate::memory::Memory;
use crate::sync::Ordering;
use crate::sync::shared::{AtomicU32, AtomicU64};
use crate::{Error, ErrorKind, Result};

/// The page and the ring, in bytes.
pub(super) const LEN: usize = SLOTS + 8 * SLOT_COUNT;
/// Notifications that fit.
pub(super) const RING: u64 = SLOT_COUNT as u64;
pub(super) const SLOT_COUNT: usize = 1024;

// One cache line for each word that another side writes.
const FENCE: usize = 64;
const TAIL: usize = 128;
const HEAD: usize = 192;
const ASLEEP: usize = 256;
const SLOTS: usize = 4096;

/// A mapped control page.
pub(super) struct Control {
    memory: Memory,
}

impl Control {
    /// Wraps memory of exactly [`LEN`] bytes that this process may write.
    pub(super) fn new(memory: Memory) -> Result<Control> {
        if memory.len() != LEN || !memory.is_writable() {
            let text = format!("a control page of {} bytes; it has {LEN}", memory.len());
            return Err(Error::operation(ErrorKind::Protocol, text));
        }
        Ok(Control { memory })
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        debug_assert!(at + 8 <= LEN && at.is_multiple_of(8));
        // SAFETY: every caller passes one of the constants above, or a slot of the ring, all aligned and inside `LEN`;
        // `new` checked the length; the mapping lives as long as `self`.
        unsafe { AtomicU64::from_ptr(self.memory.as_ptr().wrapping_add(at).cast()) }
    }

    fn slot(&self, number: u64) -> &AtomicU64 {
        self.word(SLOTS + 8 * (number % RING) as usize)
    }

    fn asleep(&self) -> &AtomicU32 {
        // SAFETY: a constant, aligned and inside `LEN`, which `new` checked.
        unsafe { AtomicU32::from_ptr(self.memory.as_ptr().wrapping_add(ASLEEP).cast()) }
    }

    /// The fence word.
    pub(super) fn fence(&self) -> &impl Word {
        self.word(FENCE)
    }

    /// Initiator: how many notifications fit, when `tail` were pushed so far.
    pub(super) fn room(&self, tail: u64) -> Result<u64> {
        let used = tail.wrapping_sub(self.word(HEAD).load(Ordering::Acquire));
        RING.checked_sub(used).ok_or_else(|| {
            Error::endpoint(ErrorKind::Protocol, "the target's count of notifications makes no sense: it is broken")
        })
    }

    /// Initiator: pushes number `tail`, for which there is room, and wakes the target if it sleeps.
    pub(super) fn push(&self, tail: u64, value: u64) {
        self.slot(tail).store(value, Ordering::Relaxed);
        self.word(TAIL).store(tail.wrapping_add(1), Ordering::SeqCst);
        if self.asleep().load(Ordering::SeqCst) != 0 && self.asleep().swap(0, Ordering::SeqCst) != 0 {
            futex(self.asleep(), libc::FUTEX_WAKE, 1, None);
        }
    }

    /// Target: how many were pushed, by the peer's word.
    pub(super) fn pushed(&self) -> u64 {
        self.word(TAIL).load(Ordering::Acquire)
    }

    /// Target: what stands at `number`.
    pub(super) fn at(&self, number: u64) -> u64 {
        self.slot(number).load(Ordering::Relaxed)
    }

    /// Target: everything below `head` was taken.
    pub(super) fn took(&self, head: u64) {
        self.word(HEAD).fetch_max(head, Ordering::AcqRel);
    }

    /// Target: sleeps until the peer pushes, unless more than `seen` were pushed already.
    pub(super) fn sleep(&self, seen: u64, limit: Duration) {
        self.asleep().store(1, Ordering::SeqCst);
        if self.word(TAIL).load(Ordering::SeqCst) == seen {
            futex(self.asleep(), libc::FUTEX_WAIT, 1, Some(limit));
        }
        self.asleep().store(0, Ordering::SeqCst);
    }

    /// Target: ends a sleep, as when the peer is gone.
    pub(super) fn wake(&self) {
        self.asleep().store(0, Ordering::SeqCst);
        futex(self.asleep(), libc::FUTEX_WAKE, i32::MAX.unsigned_abs(), None);
    }
}

/// A shared futex call; a spurious return or an error is a short sleep, which every caller's loop expects.
fn futex(word: &AtomicU32, operation: i32, value: u32, limit: Option<Duration>) {
    let limit = limit.map(|limit| libc::timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the word is mapped and outlives the call; `limit` is null or a timespec that outlives the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, limit) };
}
