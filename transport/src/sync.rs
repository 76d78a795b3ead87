//! The atomics of this crate, in one place, so that a model checker can replace them (`--cfg loom`).

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// Words that stand in mapped memory: always the processor's own.
pub(crate) mod shared {
    /// What a signal handler shares with the threads that it interrupts.
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, compiler_fence};
    pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64};
}
