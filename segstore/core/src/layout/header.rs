//! A slot's header: what the image is. A push writes it when everything else stands; the mark that follows closes the slot.
//!
//! The lineage follows the fixed part; only as many of its entries are written as there are.

use zerocopy::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::Key;
use super::geometry::{Geometry, SLOT_HEAD};
use super::{VERSION, mark};
use crate::id::{Epoch, OwnerId, SegmentId, Stamp, Term};
use crate::lineage::{self, Lineage};

/// Where a slot's header stands, from the slot's start.
pub const OFFSET: usize = mark::BYTES;
/// The most bytes that a header takes.
pub const MAX_BYTES: usize = FIXED + lineage::CAPACITY * STAMP;
const FIXED: usize = size_of::<Raw>();
const STAMP: usize = size_of::<RawStamp>();
const MAGIC: u64 = u64::from_le_bytes(*b"SEGSLOT1");
/// Whole images in data blocks, each in its place. Other kinds may follow.
const LAYOUT_PLAIN: u32 = 1;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawStamp {
    term: U64,
    epoch: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    magic: U64,
    version: U32,
    layout: U32,
    segment: U128,
    owner: U128,
    group: U128,
    image: RawStamp,
    acknowledged: RawStamp,
    length: U64,
    capacity: U64,
    block_size: U32,
    lineage: U32,
    table_sum: U64,
    checksum: U64,
}

const _: () = assert!(FIXED == 136, "the fixed part of a header is 136 bytes: peers count on it");
const _: () =
    assert!(OFFSET + MAX_BYTES <= SLOT_HEAD, "mark, header and the longest lineage must fit in the slot's head");
const CHECKED: usize = FIXED - 8;

/// What a closed slot says of its image.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SlotHeader {
    /// The segment's life that the image belongs to.
    pub segment: SegmentId,
    /// The owner that made the image.
    pub owner: OwnerId,
    /// The group of segments that it was made with; zero: none.
    pub group: u128,
    /// The image's place in the order.
    pub image: Stamp,
    /// The newest image that its owner knew to be acknowledged when it made this one.
    pub acknowledged: Stamp,
    /// What the image descends from.
    pub lineage: Lineage,
    /// Bytes of application state.
    pub length: u64,
    /// Bytes that the segment may grow to.
    pub capacity: u64,
    /// Bytes of a block.
    pub block_size: u32,
    /// The checksum of the block table, over the blocks that `length` needs.
    pub table_sum: u64,
}

/// Header bytes of bounded size, built without allocating.
#[derive(Clone, Debug)]
pub struct HeaderBytes {
    bytes: [u8; MAX_BYTES],
    length: usize,
}

impl HeaderBytes {
    /// The bytes to write at [`OFFSET`].
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl SlotHeader {
    /// The header of a freshly formatted slot: an image of length zero, which every image descends from.
    #[must_use]
    pub fn of_empty_segment(segment: SegmentId, geometry: &Geometry) -> Self {
        Self {
            segment,
            owner: OwnerId::default(),
            group: 0,
            image: Stamp::EMPTY,
            acknowledged: Stamp::EMPTY,
            lineage: Lineage::root(),
            length: 0,
            capacity: geometry.capacity(),
            block_size: geometry.block_size(),
            table_sum: 0,
        }
    }

    /// The bytes to write.
    #[must_use]
    pub fn encode(&self, key: Key) -> HeaderBytes {
        let entries = self.lineage.entries();
        let length = FIXED + entries.len() * STAMP;
        let mut bytes = [0; MAX_BYTES];
        for (place, entry) in bytes[FIXED..length].chunks_exact_mut(STAMP).zip(entries) {
            place.copy_from_slice(raw_stamp(*entry).as_bytes());
        }
        let raw = self.raw(entries.len());
        bytes[..FIXED].copy_from_slice(raw.as_bytes());
        let checksum = checksum(key, &bytes[..length]);
        bytes[CHECKED..FIXED].copy_from_slice(&checksum.to_le_bytes());
        HeaderBytes { bytes, length }
    }

    /// The header in `bytes` (a slot's head from [`OFFSET`] on), or `None` where it was torn, altered, of another version or
    /// segment, or does not fit `geometry`.
    #[must_use]
    pub fn decode(key: Key, segment: SegmentId, geometry: &Geometry, bytes: &[u8]) -> Option<Self> {
        let (raw, rest) = Raw::ref_from_prefix(bytes).ok()?;
        let entries = usize::try_from(raw.lineage.get()).ok().filter(|&n| n <= lineage::CAPACITY)?;
        let length = FIXED + entries * STAMP;
        let known = raw.magic.get() == MAGIC && raw.version.get() == VERSION && raw.layout.get() == LAYOUT_PLAIN;
        let fits = raw.capacity.get() == geometry.capacity()
            && raw.block_size.get() == geometry.block_size()
            && raw.length.get() <= geometry.capacity();
        if !known
            || !fits
            || raw.segment.get() != segment.0
            || raw.checksum.get() != checksum(key, bytes.get(..length)?)
        {
            return None;
        }
        let stamps =
            rest[..entries * STAMP].chunks_exact(STAMP).filter_map(|chunk| RawStamp::ref_from_bytes(chunk).ok());
        Some(Self {
            segment,
            owner: OwnerId(raw.owner.get()),
            group: raw.group.get(),
            image: stamp(&raw.image),
            acknowledged: stamp(&raw.acknowledged),
            lineage: Lineage::from_entries(stamps.map(stamp).collect()).ok()?,
            length: raw.length.get(),
            capacity: raw.capacity.get(),
            block_size: raw.block_size.get(),
            table_sum: raw.table_sum.get(),
        })
    }

    fn raw(&self, entries: usize) -> Raw {
        #[allow(clippy::cast_possible_truncation, reason = "a lineage has at most 51 entries")]
        let entries = entries as u32;
        Raw {
            magic: MAGIC.into(),
            version: VERSION.into(),
            layout: LAYOUT_PLAIN.into(),
            segment: self.segment.0.into(),
            owner: self.owner.0.into(),
            group: self.group.into(),
            image: raw_stamp(self.image),
            acknowledged: raw_stamp(self.acknowledged),
            length: self.length.into(),
            capacity: self.capacity.into(),
            block_size: self.block_size.into(),
            lineage: entries.into(),
            table_sum: self.table_sum.into(),
            checksum: 0.into(),
        }
    }
}

/// The version of a header that says it is of another one. Where its checksum stands is that version's affair.
pub(crate) fn other_version(bytes: &[u8]) -> Option<u32> {
    let (raw, _) = Raw::ref_from_prefix(bytes).ok()?;
    Some(raw.version.get()).filter(|&version| raw.magic.get() == MAGIC && version != VERSION)
}

/// Over everything but the checksum's own place.
fn checksum(key: Key, header: &[u8]) -> u64 {
    key.structure(&header[..CHECKED]) ^ key.structure(&header[FIXED..]).rotate_left(1)
}

fn raw_stamp(stamp: Stamp) -> RawStamp {
    RawStamp { term: stamp.term.0.into(), epoch: stamp.epoch.0.into() }
}

fn stamp(raw: &RawStamp) -> Stamp {
    Stamp { term: Term(raw.term.get()), epoch: Epoch(raw.epoch.get()) }
}
