//! Counts operations, bytes and errors.

use std::sync::Arc;
use std::time::Duration;

use super::{Layer, wrap};
use crate::contract::driver::{EndpointDriver, Work};
use crate::sync::{AtomicU64, Ordering};
use crate::{Domain, Error, Post};

/// What was counted over all endpoints of a wrapped domain. Cheap to clone; readable at any time.
#[derive(Clone, Default)]
pub struct Counters {
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    batches: AtomicU64,
    operations: AtomicU64,
    bytes_written: AtomicU64,
    bytes_read: AtomicU64,
    would_block: AtomicU64,
    completed: AtomicU64,
    errors: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counted {
    /// Batches posted.
    pub batches: u64,
    /// Operations in them, after splitting.
    pub operations: u64,
    /// Bytes to write in them.
    pub bytes_written: u64,
    /// Bytes to read in them.
    pub bytes_read: u64,
    /// Posts that met back-pressure.
    pub would_block: u64,
    /// Batches that completed well.
    pub completed: u64,
    /// Batches and posts that failed.
    pub errors: u64,
}

impl Counters {
    /// New ones, all zero.
    pub fn new() -> Counters {
        Counters::default()
    }

    /// The domain, counted here.
    pub fn around(&self, domain: &Domain) -> Domain {
        wrap(domain, self.clone())
    }

    /// What they show now.
    pub fn read(&self) -> Counted {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counted {
            batches: read(&self.counts.batches),
            operations: read(&self.counts.operations),
            bytes_written: read(&self.counts.bytes_written),
            bytes_read: read(&self.counts.bytes_read),
            would_block: read(&self.counts.would_block),
            completed: read(&self.counts.completed),
            errors: read(&self.counts.errors),
        }
    }
}

impl Counts {
    fn posted(&self, batch: &[Work]) {
        add(&self.batches, 1);
        add(&self.operations, batch.len() as u64);
        for work in batch {
            match work {
                Work::Write { local, .. } => add(&self.bytes_written, local.len as u64),
                Work::Read { local, .. } => add(&self.bytes_read, local.len as u64),
                Work::CompareSwap { .. } | Work::Notify { .. } | Work::Flush => {}
            }
        }
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

impl Layer for Counters {
    fn around(&self, inner: Box<dyn EndpointDriver>) -> Box<dyn EndpointDriver> {
        Box::new(Counting { inner, counts: self.counts.clone() })
    }
}

struct Counting {
    inner: Box<dyn EndpointDriver>,
    counts: Arc<Counts>,
}

// SAFETY: it touches no local memory, and passes every call on.
unsafe impl EndpointDriver for Counting {
    unsafe fn post(&mut self, batch: &[Work]) -> Result<(), Post> {
        // SAFETY: as the caller promised.
        let posted = unsafe { self.inner.post(batch) };
        match &posted {
            Ok(()) => self.counts.posted(batch),
            Err(Post::WouldBlock) => add(&self.counts.would_block, 1),
            Err(Post::Failed(_)) => add(&self.counts.errors, 1),
        }
        posted
    }

    fn poll(&mut self) -> Option<Result<(), Error>> {
        let ended = self.inner.poll()?;
        add(if ended.is_ok() { &self.counts.completed } else { &self.counts.errors }, 1);
        Some(ended)
    }

    fn abort(&mut self) {
        self.inner.abort();
    }

    fn sleep(&mut self, limit: Duration) {
        self.inner.sleep(limit);
    }
}
