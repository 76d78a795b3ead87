//! Where an ownership begins.

use crate::id::{Member, SegmentId, Stamp};
use crate::layout::Ownership;
use crate::lineage::Lineage;
use crate::record::Versioned;

/// Where an ownership starts: what a takeover, or the creation of the segment, leaves behind.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Start {
    /// The segment's life.
    pub segment: SegmentId,
    /// The term and its owner.
    pub ownership: Ownership,
    /// The record as it was confirmed last.
    pub record: Versioned,
    /// The image that working memory holds.
    pub loaded: Stamp,
    /// What that image descends from.
    pub ancestry: Lineage,
    /// For each member of the in-sync set, what each of its slots can be brought up to date from, and the slot that holds the
    /// loaded image.
    pub followers: Vec<(Member, Vec<Option<Stamp>>, u32)>,
}

impl Start {
    /// The start of a segment that was just created, with `record` in the directory and freshly formatted replicas.
    #[must_use]
    pub fn of_new_segment(record: Versioned, slots: u32) -> Self {
        let formatted = |&member: &Member| (member, vec![Some(Stamp::EMPTY); slots as usize], 0);
        Self {
            segment: record.record.segment,
            ownership: record.ownership(),
            loaded: Stamp::EMPTY,
            ancestry: Lineage::root(),
            followers: record.record.in_sync.iter().map(formatted).collect(),
            record,
        }
    }
}
