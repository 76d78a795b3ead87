//! Connections that are looked at without asking the system: those that had work lately. Each stands here once at
//! most, so no two threads serve one connection, and they take turns.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::connection::Turn;
use super::peer::Admission;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// So many looks without a byte, and a connection is left to the system's events.
const LOOKS: u64 = 1000;
/// With more connections than this, only those with work are looked at.
const CROWD: usize = 4;

#[derive(Default)]
pub(super) struct Queue {
    line: Mutex<VecDeque<Arc<Admission>>>,
}

/// A connection's place in the queue.
#[derive(Default)]
pub(super) struct Listing {
    listed: AtomicBool,
    /// Something happened since it was served last.
    news: AtomicBool,
    /// Looks since the last byte.
    looks: AtomicU64,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.line().len()
    }

    /// There is news of this connection.
    pub(super) fn add(&self, admission: &Arc<Admission>) {
        let listing = &admission.listing;
        listing.news.store(true, Ordering::SeqCst);
        if !listing.listed.swap(true, Ordering::SeqCst) {
            self.line().push_back(admission.clone());
        }
    }

    /// The next to serve. It belongs to the caller until `put_back`.
    pub(super) fn take(&self) -> Option<Arc<Admission>> {
        let next = self.line().pop_front()?;
        next.listing.news.store(false, Ordering::SeqCst);
        Some(next)
    }

    /// After a turn: stays in the line if it has, or is likely to have, something to do.
    pub(super) fn put_back(&self, admission: Arc<Admission>, turn: Turn) {
        let listing = &admission.listing;
        let looks = if turn.bytes > 0 { 0 } else { listing.looks.load(Ordering::Relaxed) + 1 };
        listing.looks.store(looks, Ordering::Relaxed);
        let mut line = self.line();
        if !turn.drained || looks < LOOKS && line.len() < CROWD {
            return line.push_back(admission);
        }
        drop(line);
        listing.listed.store(false, Ordering::SeqCst);
        // News that came meanwhile found it listed.
        if listing.news.load(Ordering::SeqCst) {
            self.add(&admission);
        }
    }

    fn line(&self) -> MutexGuard<'_, VecDeque<Arc<Admission>>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
