//! The block table: for each block the epoch that last changed it and its checksum, 16 bytes.

use std::fmt;

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::Key;
use crate::id::Epoch;

/// The number of a block within its segment.
pub type BlockIndex = u32;

/// One row of the block table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Entry {
    modified: U64,
    checksum: U64,
}

const _: () = assert!(size_of::<Entry>() == 16, "a block table row is 16 bytes: geometry and peers count on it");

impl Entry {
    /// Bytes of a row.
    pub const BYTES: u64 = 16;

    /// A block that `modified` last changed.
    #[must_use]
    pub fn new(modified: Epoch, checksum: u64) -> Self {
        Self { modified: modified.0.into(), checksum: checksum.into() }
    }

    /// The rows that stand in `bytes`, whole ones.
    #[must_use]
    pub fn rows(bytes: &[u8]) -> &[Self] {
        let whole = bytes.len() / size_of::<Self>();
        <[Self]>::ref_from_prefix_with_elems(bytes, whole).map_or(&[], |(rows, _)| rows)
    }

    /// The epoch that last changed the block.
    #[must_use]
    pub fn modified(&self) -> Epoch {
        Epoch(self.modified.get())
    }

    /// The block's checksum.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        self.checksum.get()
    }

    /// This row's share of the table's checksum.
    #[must_use]
    pub fn share(&self, key: Key, block: BlockIndex) -> u64 {
        key.entry(block, zerocopy::transmute_ref!(self))
    }

    /// Whether `bytes` are the block that this row describes.
    #[must_use]
    pub fn describes(&self, key: Key, block: BlockIndex, bytes: &[u8]) -> bool {
        self.checksum() == key.block(block, bytes)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "modified {} checksum {:016x}", self.modified(), self.checksum())
    }
}

/// The checksum of a whole table.
#[must_use]
pub fn table_sum(key: Key, entries: &[Entry]) -> u64 {
    (0..).zip(entries).fold(0, |sum, (block, entry)| sum.wrapping_add(entry.share(key, block)))
}
