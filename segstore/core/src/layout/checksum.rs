//! Checksums guard against damage; they never decide that two blocks are equal. XXH3, 64 bits.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::id::SegmentId;

/// What ties a checksum to one segment's life, so that bytes of another never pass for this one's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key(u64);

impl Key {
    /// The key of a segment.
    #[must_use]
    pub fn of(segment: SegmentId) -> Self {
        Self(xxh3_64(&segment.0.to_le_bytes()))
    }

    /// The checksum of a structure in a slot or replica head.
    #[must_use]
    pub fn structure(self, bytes: &[u8]) -> u64 {
        xxh3_64_with_seed(bytes, self.0)
    }

    /// The checksum of the block at `index`. The index is part of it: a block in another's place does not pass.
    #[must_use]
    pub fn block(self, index: u32, bytes: &[u8]) -> u64 {
        xxh3_64(bytes).wrapping_add(spread(self.0 ^ u64::from(index)))
    }

    /// One entry's share of a block table's checksum, which is the wrapping sum of the shares: it can be brought up to date for
    /// each changed entry without reading the others.
    #[must_use]
    pub fn entry(self, index: u32, entry: &[u8; 16]) -> u64 {
        xxh3_64_with_seed(entry, self.0 ^ spread(u64::from(index)))
    }
}

/// Distributes nearby numbers over all 64 bits (the finalizer of splitmix64, Steele et al., OOPSLA 2014).
const fn spread(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_belongs_to_its_place_and_segment() {
        let key = Key::of(SegmentId(1));
        let block = [7; 4096];
        assert_ne!(key.block(0, &block), key.block(1, &block));
        assert_ne!(key.block(0, &block), Key::of(SegmentId(2)).block(0, &block));
    }

    #[test]
    fn swapped_entries_change_the_sum() {
        let key = Key::of(SegmentId(1));
        let (a, b) = ([1; 16], [2; 16]);
        assert_ne!(key.entry(0, &a).wrapping_add(key.entry(1, &b)), key.entry(0, &b).wrapping_add(key.entry(1, &a)));
    }
}
