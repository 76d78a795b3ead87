//! What became of an attempt, and what one that is under way waits for.

use super::{BelowMinimum, Owner};
use crate::id::{Epoch, Member, Stamp};

/// What is known of an epoch of this term.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// Acknowledged, in its own right.
    Committed,
    /// Not acknowledged, but a later one that contains it is.
    Superseded(Epoch),
    /// Not acknowledged so far. It may still turn up: it was asked for.
    Pending,
    /// Pushed at this moment.
    UnderWay,
    /// Nobody asked for it in this term.
    Never,
}

/// What an attempt waits for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Blocked {
    /// Pushes are under way.
    #[error("waiting for {}", members(.0))]
    Replicas(Vec<Member>),
    /// Every slot that could be written is read by somebody.
    #[error("readers hold the slots of {}", members(.0))]
    Held(Vec<Member>),
    /// Replicas failed; the directory has not confirmed their removal.
    #[error("the directory has not confirmed the removal of {}", members(.0))]
    Removal(Vec<Member>),
    /// These replicas are out of reach, and nobody is removed if nothing could be acknowledged without them: they are the last, or
    /// needed for the policy's minimum.
    #[error("out of reach, and needed: {}", members(.0))]
    Needed(Vec<Member>),
    /// These replicas are neither reached nor given up, so far or again.
    #[error("being connected: {}", members(.0))]
    Connecting(Vec<Member>),
    /// Too few replicas are in sync on other nodes than the owner's.
    #[error("{in_sync} replicas in sync on other nodes, the policy asks for {minimum}")]
    BelowMinimum {
        /// How many are.
        in_sync: usize,
        /// How many should be.
        minimum: usize,
    },
}

impl Blocked {
    /// The replicas that it is about.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        match self {
            Self::Replicas(members) | Self::Held(members) | Self::Removal(members) => members,
            Self::Needed(members) | Self::Connecting(members) => members,
            Self::BelowMinimum { .. } => &[],
        }
    }
}

fn members(members: &[Member]) -> String {
    members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Owner {
    /// What became of `epoch`.
    #[must_use]
    pub fn outcome(&self, epoch: Epoch) -> Outcome {
        let first = self.lineage.entries().last().map_or(Epoch(1), |loaded| loaded.epoch.next());
        let acknowledged = self.acknowledged.term == self.ownership.term && epoch <= self.acknowledged.epoch;
        if epoch < first || epoch >= self.next {
            Outcome::Never
        } else if self.attempt == Some(epoch) {
            Outcome::UnderWay
        } else if acknowledged && !self.abandoned.iter().any(|range| range.contains(&epoch)) {
            Outcome::Committed
        } else if acknowledged {
            Outcome::Superseded(self.acknowledged.epoch)
        } else {
            Outcome::Pending
        }
    }

    /// What the attempt under way waits for; `None` if there is none.
    #[must_use]
    pub fn blocked(&self) -> Option<Blocked> {
        let epoch = self.attempt?;
        let awaited = || self.followers.iter().filter(|f| f.is_awaited() && !f.has_done(epoch));
        let connecting: Vec<_> = awaited().filter(|f| f.is_connecting()).map(|f| f.member).collect();
        let gone: Vec<_> = awaited().filter(|f| f.has_failed()).map(|f| f.member).collect();
        let busy: Vec<_> = awaited().filter(|f| f.is_busy()).map(|f| f.member).collect();
        let held: Vec<_> = awaited().filter(|f| f.is_connected() && !f.is_busy()).map(|f| f.member).collect();
        let in_sync = self.elsewhere(self.in_sync().iter().copied());
        Some(if !gone.is_empty() && self.desired_set() == self.in_sync() {
            Blocked::Needed(gone)
        } else if !gone.is_empty() {
            Blocked::Removal(gone)
        } else if !connecting.is_empty() {
            Blocked::Connecting(connecting)
        } else if !busy.is_empty() {
            Blocked::Replicas(busy)
        } else if !held.is_empty() {
            Blocked::Held(held)
        } else {
            debug_assert_eq!(self.policy.below, BelowMinimum::Stop, "nothing else is left to wait for");
            Blocked::BelowMinimum { in_sync, minimum: self.policy.minimum }
        })
    }

    /// What became of an image of an earlier term, seen from this one; `None` if that is too long ago to be known.
    #[must_use]
    pub fn was_taken_over(&self, image: Stamp) -> Option<bool> {
        self.lineage.knows(image.term).then(|| self.lineage.contains(image))
    }
}
