//! When leases end. The time is handed in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::directory::LeaseId;

/// Every lease that has not ended.
#[derive(Debug, Default)]
pub(super) struct Leases(BTreeMap<LeaseId, Lease>);

#[derive(Clone, Copy, Debug)]
struct Lease {
    time: Duration,
    ends: Instant,
}

impl Leases {
    pub(super) fn insert(&mut self, id: LeaseId, time: Duration, now: Instant) {
        self.0.insert(id, Lease { time, ends: now + time });
    }

    /// Every lease gets its whole time from now on: nobody could be heard.
    pub(super) fn begin_again(&mut self, now: Instant) {
        self.0.values_mut().for_each(|lease| lease.ends = now + lease.time);
    }

    /// Whether the lease had not ended.
    pub(super) fn keep_alive(&mut self, id: LeaseId, now: Instant) -> bool {
        match self.0.get_mut(&id) {
            Some(lease) => {
                lease.ends = now + lease.time;
                true
            }
            None => false,
        }
    }

    pub(super) fn contains(&self, id: LeaseId) -> bool {
        self.0.contains_key(&id)
    }

    pub(super) fn remove(&mut self, id: LeaseId) {
        self.0.remove(&id);
    }

    pub(super) fn remove_all(&mut self, ids: &[LeaseId]) {
        self.0.retain(|id, _| !ids.contains(id));
    }

    /// Leases whose time is up.
    pub(super) fn over(&self, now: Instant) -> Vec<LeaseId> {
        self.0.iter().filter(|(_, lease)| lease.ends <= now).map(|(id, _)| *id).collect()
    }

    /// When the next one ends, if nobody keeps it alive.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.0.values().map(|lease| lease.ends).min()
    }
}
