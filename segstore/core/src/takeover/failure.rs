//! Why a replica cannot be used, and why a takeover ended without the segment.

use crate::id::{Member, Stamp, Term};
use crate::layout::{self, Ownership};
use crate::replica::Refused;
use crate::slot::{Damage, SlotView};

/// Why a member could not be used.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Unusable {
    /// It did not answer.
    #[error("out of reach")]
    OutOfReach,
    /// It answered that it will not.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It holds no whole image.
    #[error("holds no whole image")]
    NoImage,
    /// The head of a slot is damaged: what stands in it is not known.
    #[error("the head of its slot {0} is damaged")]
    HeadDamaged(u32),
    /// A slot was written by another version of this software.
    #[error(
        "its slot {slot} has format version {version}, this version reads {}: use a version that reads it",
        layout::VERSION
    )]
    OtherVersion {
        /// The slot.
        slot: u32,
        /// The version of its format.
        version: u32,
    },
    /// It holds the image, damaged.
    #[error("holds {0}, but {1}")]
    Damaged(Stamp, Damage),
}

impl Unusable {
    /// What keeps the head of slot `slot` from being read, if anything does.
    #[must_use]
    pub fn of_slot(slot: u32, view: &SlotView) -> Option<Self> {
        match *view {
            SlotView::Damaged { .. } => Some(Self::HeadDamaged(slot)),
            SlotView::OtherVersion(version) => Some(Self::OtherVersion { slot, version }),
            SlotView::Closed(_) | SlotView::Open(_) | SlotView::Blank => None,
        }
    }

    /// Everything that is wrong with the heads of a replica's slots: that none is closed, at least, if none is.
    #[must_use]
    pub fn of_slots(slots: &[SlotView]) -> Vec<Self> {
        let mut wrong: Vec<_> = (0..).zip(slots).filter_map(|(slot, view)| Self::of_slot(slot, view)).collect();
        if wrong.is_empty() && slots.iter().all(|view| view.closed().is_none()) {
            wrong.push(Self::NoImage);
        }
        wrong
    }
}

/// Why a takeover ended without the segment.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Failure {
    /// Another claimant was faster.
    #[error("owner {} took the segment over in term {}", .0.owner, .0.term)]
    Overtaken(Ownership),
    /// No number is left.
    #[error("the record has term {0}, after which none can be counted: the directory is damaged, restore a copy of it")]
    TermsUsedUp(Term),
    /// No member of the in-sync set could be fenced.
    #[error("no replica in sync can be used: {}", members(.0))]
    NoneInReach(Vec<(Member, Unusable)>),
    /// No copy of the newest image can be used, and it may have been acknowledged.
    #[error("no good copy of {image}, which may have been acknowledged: {}", members(.replicas))]
    NoGoodCopy {
        /// The image.
        image: Stamp,
        /// What is wrong with each replica.
        replicas: Vec<(Member, Unusable)>,
    },
    /// The newest image that can be read may not be the newest that was acknowledged.
    #[error("something newer than {readable} may have been acknowledged: {}", members(.replicas))]
    Hidden {
        /// The newest image that can be read.
        readable: Stamp,
        /// Where something newer may stand.
        replicas: Vec<(Member, Unusable)>,
    },
    /// The directory was restored from an old copy.
    #[error(
        "the directory went back: its record has term {}, but {member} remembers term {}; restore a newer copy of the directory",
        .record.term, .remembered.term
    )]
    DirectoryWentBack {
        /// What the directory says.
        record: Ownership,
        /// The replica that knows better.
        member: Member,
        /// What it remembers.
        remembered: Ownership,
    },
}

pub(crate) fn members(replicas: &[(Member, Unusable)]) -> String {
    replicas.iter().map(|(member, why)| format!("{member}: {why}")).collect::<Vec<_>>().join("; ")
}
