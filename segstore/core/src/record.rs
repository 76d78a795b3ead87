//! The directory's record of a segment, and its compare-and-swap.
//!
//! The record says who owns the segment and which replicas hold every acknowledged checkpoint. It changes only by
//! compare-and-swap on the whole of it; the directory raises its version with each change. (The version alone would do, but for a
//! directory that was restored from an old copy, in which versions come again.)

use serde::{Deserialize, Serialize};

use crate::id::{Member, OwnerId, SegmentId, Term};
use crate::layout::Ownership;
use crate::replica::Refused;
use crate::rule::{self, Rule};

/// What the directory knows of a segment as far as the protocol needs it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The segment's life.
    pub segment: SegmentId,
    /// The number of the ownership.
    pub term: Term,
    /// The owner: it tells one's own lost write from another's.
    pub owner: OwnerId,
    /// The replicas that hold every acknowledged checkpoint, rising.
    pub in_sync: Vec<Member>,
}

/// Counts the changes of a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct RecordVersion(pub u64);

/// A record as the directory holds it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Versioned {
    /// What a compare-and-swap must name.
    pub version: RecordVersion,
    /// The record.
    pub record: Record,
}

/// A change that is to happen only if the record is still the one that was read.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Swap {
    /// The record that was read.
    pub expected: Versioned,
    /// The record to put in its place.
    pub new: Record,
}

impl Record {
    /// Whose the segment is.
    #[must_use]
    pub fn ownership(&self) -> Ownership {
        Ownership { term: self.term, owner: self.owner }
    }

    /// Whether the asker owns the segment: nobody else has anything done to its replicas.
    ///
    /// # Errors
    /// It does not: its term is over, or is another's.
    pub fn check_owner(&self, asked: Ownership) -> Result<(), Refused> {
        match self.ownership() {
            owner if asked == owner => Ok(()),
            owner if asked.term < owner.term => Err(Refused::TermOver { asked, remembered: owner }),
            owner => Err(Refused::TermTaken { asked, remembered: owner }),
        }
    }

    /// This record with `owner` in the next term. The in-sync set stays.
    #[must_use]
    pub fn claimed_by(&self, owner: OwnerId) -> Self {
        Self { term: self.term.next(), owner, ..self.clone() }
    }

    /// This record with another in-sync set.
    #[must_use]
    pub fn with_in_sync(&self, mut in_sync: Vec<Member>) -> Self {
        in_sync.sort_unstable();
        Self { in_sync, ..self.clone() }
    }
}

impl Versioned {
    /// Whose the segment is.
    #[must_use]
    pub fn ownership(&self) -> Ownership {
        self.record.ownership()
    }

    /// Applies `swap`, as every directory must.
    ///
    /// # Errors
    /// The record has changed; `self` is as before.
    pub fn apply(&mut self, swap: Swap) -> Result<(), Conflict> {
        let unchanged = if rule::holds(Rule::WholeRecord) {
            *self == swap.expected
        } else {
            self.record.term <= swap.new.term && swap.expected.record.term == self.record.term
        };
        if !unchanged || self.record.segment != swap.new.segment {
            return Err(Conflict);
        }
        self.version.0 += 1;
        self.record = swap.new;
        Ok(())
    }
}

/// The record is not the one that was expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the record has changed since it was read")]
pub struct Conflict;
