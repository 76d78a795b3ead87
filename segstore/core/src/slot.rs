//! What a reader finds in a slot, and whether it may be believed.
//!
//! A slot's memory may hold anything: a push that was cut off at any byte, another segment's image, damage. It is parsed once,
//! here, into a view that later code trusts.

use serde::{Deserialize, Serialize};

use crate::id::{SegmentId, Stamp};
use crate::layout::geometry::SLOT_HEAD;
use crate::layout::table::table_sum;
use crate::layout::{BlockIndex, Entry, Geometry, Key, Mark, SlotHeader, header, mark};
use crate::lineage::Lineage;
use crate::rule::{self, Rule};

/// What a slot's head says.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum SlotView {
    /// A whole image, as far as its head can tell; table and blocks have checksums of their own.
    Closed(SlotHeader),
    /// A push began and did not end.
    Open(Mark),
    /// Nothing was ever written here.
    Blank,
    /// Written by a version of this software whose format is another one: of this version.
    OtherVersion(u32),
    /// Torn or altered: the mark, or the header under a closed mark, does not match its checksum.
    Damaged {
        /// The mark, where it is intact.
        mark: Option<Mark>,
        /// The header, where it is intact.
        header: Option<SlotHeader>,
    },
}

impl SlotView {
    /// What the heads of a replica's slots say. One of another length is damaged.
    #[must_use]
    pub fn parse_all<'h>(segment: SegmentId, geometry: &Geometry, heads: impl Iterator<Item = &'h [u8]>) -> Vec<Self> {
        let view = |head: &[u8]| match <&[u8; SLOT_HEAD]>::try_from(head) {
            Ok(head) => Self::parse(segment, geometry, head),
            Err(_) => Self::Damaged { mark: None, header: None },
        };
        heads.map(view).collect()
    }

    /// Parses a slot's head: its first [`SLOT_HEAD`] bytes.
    #[must_use]
    pub fn parse(segment: SegmentId, geometry: &Geometry, head: &[u8; SLOT_HEAD]) -> Self {
        let key = Key::of(segment);
        let (mark_bytes, rest) = head.split_first_chunk::<{ mark::BYTES }>().expect("a head is longer than a mark");
        debug_assert_eq!(mark_bytes.len(), header::OFFSET);
        let mark = Mark::decode(key, mark_bytes);
        let other_version = mark::other_version(key, mark_bytes).or_else(|| header::other_version(rest));
        match (mark, SlotHeader::decode(key, segment, geometry, rest)) {
            (Some(mark), Some(header)) if mark.is_closed && header.image == mark.image => Self::Closed(header),
            (_, Some(header)) if !rule::holds(Rule::VerifySlots) => Self::Closed(header),
            (Some(mark), _) if !mark.is_closed => Self::Open(mark),
            (None, None) if head.iter().all(|byte| *byte == 0) => Self::Blank,
            (mark, header) => match other_version.filter(|_| mark.is_none() && header.is_none()) {
                Some(version) => Self::OtherVersion(version),
                None => Self::Damaged { mark, header },
            },
        }
    }

    /// The header of a closed slot.
    #[must_use]
    pub fn closed(&self) -> Option<&SlotHeader> {
        match self {
            Self::Closed(header) => Some(header),
            Self::Open(_) | Self::Blank | Self::OtherVersion(_) | Self::Damaged { .. } => None,
        }
    }

    /// The header of a closed slot.
    #[must_use]
    pub fn into_closed(self) -> Option<SlotHeader> {
        match self {
            Self::Closed(header) => Some(header),
            Self::Open(_) | Self::Blank | Self::OtherVersion(_) | Self::Damaged { .. } => None,
        }
    }

    /// The image that a closed slot holds.
    #[must_use]
    pub fn image(&self) -> Option<Stamp> {
        self.closed().map(|header| header.image)
    }

    /// The header of an image that is worth loading: of a closed slot, or under a mark that is damaged. In that case only the
    /// checksums of table and blocks tell whether the image is whole.
    #[must_use]
    pub fn candidate(&self) -> Option<&SlotHeader> {
        match self {
            Self::Closed(header) | Self::Damaged { mark: None, header: Some(header) } => Some(header),
            Self::Open(_) | Self::Blank | Self::OtherVersion(_) | Self::Damaged { .. } => None,
        }
    }

    /// The epoch from which an owner on `lineage` can fill this slot by difference; `None`: it must be filled in full, since it
    /// was touched by a push that is not on the lineage, or one that never ended.
    #[must_use]
    pub fn base(&self, lineage: &Lineage) -> Option<Stamp> {
        match self {
            Self::Closed(header) if !rule::holds(Rule::LineageDecides) => Some(header.image),
            Self::Closed(header) => Some(header.image).filter(|&image| lineage.contains(image)),
            Self::Open(mark) if !rule::holds(Rule::FillTouchedSlots) => mark.former,
            Self::Open(_) | Self::Blank | Self::OtherVersion(_) | Self::Damaged { .. } => None,
        }
    }

    /// The newest image that the slot can ever have held as a whole; `None` if that is not known.
    #[must_use]
    pub fn upper_bound(&self) -> Option<Stamp> {
        match self {
            Self::Closed(header) => Some(header.image),
            // The push never ended, so its image never stood here. What was there before may have.
            Self::Open(mark) => mark.former,
            Self::Blank => Some(Stamp::EMPTY),
            Self::OtherVersion(_) => None,
            Self::Damaged { mark, header } => {
                mark.map(|mark| mark.image).max(header.as_ref().map(|header| header.image))
            }
        }
    }

    /// Whether this slot proves that it never held `image` as a whole, nor anything newer.
    #[must_use]
    pub fn never_held(&self, image: Stamp) -> bool {
        self.upper_bound().is_some_and(|bound| bound < image)
    }

    /// Whether what cannot be read here may hide an image above `image` here.
    #[must_use]
    pub fn may_hide_above(&self, image: Stamp) -> bool {
        matches!(self, Self::Damaged { .. } | Self::OtherVersion(_))
            && self.upper_bound().is_none_or(|bound| bound > image)
    }
}

/// What is wrong with an image under a header that is right.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Damage {
    /// The block table does not match its checksum in the header.
    #[error("the block table fails its checksum")]
    Table,
    /// These blocks do not match their entries.
    #[error("{} of its blocks fail their checksums, the first is block {}", .0.len(), .0.first().copied().unwrap_or_default())]
    Blocks(Vec<BlockIndex>),
}

/// Checks the block table of the image that `header` describes; `entries` has a row for every block that its length needs.
///
/// # Errors
/// The table does not match.
pub fn verify_table(header: &SlotHeader, entries: &[Entry]) -> Result<(), Damage> {
    let intact = table_sum(Key::of(header.segment), entries) == header.table_sum;
    if intact || !rule::holds(Rule::VerifySlots) { Ok(()) } else { Err(Damage::Table) }
}

/// Checks blocks against a table that was checked before. `block(i)` gives the bytes of block `i`.
///
/// # Errors
/// Every block that does not match.
pub fn verify_blocks<'a>(
    segment: SegmentId,
    entries: &[Entry],
    mut block: impl FnMut(BlockIndex) -> &'a [u8],
) -> Result<(), Damage> {
    let key = Key::of(segment);
    let damaged: Vec<_> =
        (0..).zip(entries).filter(|(i, entry)| !entry.describes(key, *i, block(*i))).map(|(i, _)| i).collect();
    if damaged.is_empty() || !rule::holds(Rule::VerifySlots) { Ok(()) } else { Err(Damage::Blocks(damaged)) }
}

/// Whether a slot that was read piece by piece stood still meanwhile: it was closed with the header `before`, and is `after`.
#[must_use]
pub fn stood_still(before: &SlotHeader, after: &SlotView) -> bool {
    after.closed() == Some(before) || !rule::holds(Rule::StandStill)
}
