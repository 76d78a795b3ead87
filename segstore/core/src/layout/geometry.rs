//! Where things stand in a replica's memory.

use super::{replica_head, table::Entry};

/// The smallest block, in bytes.
pub const MIN_BLOCK: u32 = 1 << 10;
/// The largest block, in bytes.
pub const MAX_BLOCK: u32 = 2 << 20;
/// The block size unless asked otherwise, in bytes.
pub const DEFAULT_BLOCK: u32 = 4 << 10;
/// The fewest slots a replica can work with: one holds the newest acknowledged image, one is written.
pub const MIN_SLOTS: u32 = 2;
/// The most slots a replica can have.
pub const MAX_SLOTS: u32 = 64;
/// Bytes at the start of a slot for its mark, header and lineage.
pub const SLOT_HEAD: usize = 1024;
/// Slots and their data start at multiples of this, so that they can be mapped.
const PAGE: u64 = 4096;

/// The shape of a replica: fixed when the segment is created.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Geometry {
    block_size: u32,
    blocks: u32,
    slots: u32,
    alignment: u64,
}

/// A shape that no replica can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GeometryError {
    /// Blocks are a power of two between 1 KiB and 2 MiB.
    #[error("block size {0}: choose a power of two between {MIN_BLOCK} and {MAX_BLOCK} bytes")]
    BlockSize(u32),
    /// A segment holds at least one byte.
    #[error("capacity 0: a segment holds at least one byte")]
    NoCapacity,
    /// Blocks are counted in 32 bits and the whole replica in 63.
    #[error(
        "capacity {capacity}: too large for blocks of {block_size} bytes; choose larger blocks or a smaller capacity"
    )]
    Capacity {
        /// Bytes asked for.
        capacity: u64,
        /// Bytes of a block.
        block_size: u32,
    },
    /// A replica has 2 to 64 slots.
    #[error("{0} slots: a replica has {MIN_SLOTS} to {MAX_SLOTS}")]
    Slots(u32),
}

impl Geometry {
    /// The shape of a replica with room for `capacity` bytes (rounded up to whole blocks) in `slots` slots.
    ///
    /// # Errors
    /// What is outside the limits, with its value.
    pub fn new(capacity: u64, block_size: u32, slots: u32) -> Result<Self, GeometryError> {
        if !block_size.is_power_of_two() || !(MIN_BLOCK..=MAX_BLOCK).contains(&block_size) {
            return Err(GeometryError::BlockSize(block_size));
        }
        if capacity == 0 {
            return Err(GeometryError::NoCapacity);
        }
        if !(MIN_SLOTS..=MAX_SLOTS).contains(&slots) {
            return Err(GeometryError::Slots(slots));
        }
        let too_large = GeometryError::Capacity { capacity, block_size };
        let blocks = u32::try_from(capacity.div_ceil(u64::from(block_size))).map_err(|_| too_large)?;
        let geometry = Self { block_size, blocks, slots, alignment: PAGE };
        // 2^32 blocks of 2^21 bytes in 2^6 slots stay below 2^60 with their tables: nothing below can overflow.
        Ok(geometry)
    }

    /// The same layout with blocks and alignment below the public minimum, so that a model checker can hold millions of
    /// replicas. Nothing but tests should want it.
    #[doc(hidden)]
    #[must_use]
    pub const fn miniature(block_size: u32, blocks: u32, slots: u32) -> Self {
        Self { block_size, blocks, slots, alignment: 8 }
    }

    /// Bytes of a block.
    #[must_use]
    pub const fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Blocks in a slot.
    #[must_use]
    pub const fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Slots in a replica.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.slots
    }

    /// Bytes of application state that fit: whole blocks.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        self.blocks as u64 * self.block_size as u64
    }

    /// How many blocks hold `length` bytes.
    ///
    /// `length` must not exceed the capacity.
    #[must_use]
    pub fn blocks_of(&self, length: u64) -> u32 {
        debug_assert!(length <= self.capacity());
        #[allow(clippy::cast_possible_truncation, reason = "at most `blocks`, which is 32 bits wide")]
        let blocks = length.div_ceil(u64::from(self.block_size)) as u32;
        blocks
    }

    /// Bytes of a whole replica.
    #[must_use]
    pub const fn replica_bytes(&self) -> u64 {
        self.slot(self.slots)
    }

    /// Where slot `slot` starts.
    #[must_use]
    pub const fn slot(&self, slot: u32) -> u64 {
        self.align(replica_head::BYTES as u64) + slot as u64 * self.slot_bytes()
    }

    /// Bytes from one slot to the next.
    #[must_use]
    pub const fn slot_bytes(&self) -> u64 {
        self.align(self.data_in_slot() + self.capacity())
    }

    /// Where a slot's table entry for `block` stands, from the slot's start.
    #[must_use]
    pub const fn entry_in_slot(&self, block: u32) -> u64 {
        SLOT_HEAD as u64 + block as u64 * Entry::BYTES
    }

    /// Where a slot's data starts, from the slot's start.
    #[must_use]
    pub const fn data_in_slot(&self) -> u64 {
        self.align(self.entry_in_slot(self.blocks))
    }

    /// Where `block` stands in a slot, from the slot's start.
    #[must_use]
    pub const fn block_in_slot(&self, block: u32) -> u64 {
        self.data_in_slot() + self.block_in_segment(block)
    }

    /// Where `block` stands in the segment's working memory.
    #[must_use]
    pub const fn block_in_segment(&self, block: u32) -> u64 {
        block as u64 * self.block_size as u64
    }

    const fn align(&self, offset: u64) -> u64 {
        offset.next_multiple_of(self.alignment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_shapes_outside_the_limits() {
        assert_eq!(Geometry::new(1, 3000, 2), Err(GeometryError::BlockSize(3000)));
        assert_eq!(Geometry::new(1, 512, 2), Err(GeometryError::BlockSize(512)));
        assert_eq!(Geometry::new(1, 4 << 20, 2), Err(GeometryError::BlockSize(4 << 20)));
        assert_eq!(Geometry::new(0, 4096, 2), Err(GeometryError::NoCapacity));
        assert_eq!(Geometry::new(1, 4096, 1), Err(GeometryError::Slots(1)));
        assert_eq!(
            Geometry::new(u64::MAX, 1024, 2),
            Err(GeometryError::Capacity { capacity: u64::MAX, block_size: 1024 })
        );
    }

    #[test]
    fn the_largest_shape_does_not_overflow() {
        let capacity = u64::from(u32::MAX) * u64::from(MAX_BLOCK);
        let geometry = Geometry::new(capacity, MAX_BLOCK, MAX_SLOTS).expect("the largest shape");
        assert!(geometry.replica_bytes() > capacity * u64::from(MAX_SLOTS));
        assert!(geometry.replica_bytes() < 1 << 60);
    }

    #[test]
    fn slots_and_data_can_be_mapped() {
        let geometry = Geometry::new(10_000, 1024, 3).expect("a valid shape");
        assert_eq!(geometry.capacity(), 10_240);
        for slot in 0..3 {
            assert_eq!(geometry.slot(slot) % 4096, 0);
            assert_eq!((geometry.slot(slot) + geometry.block_in_slot(0)) % 4096, 0);
        }
        assert!(geometry.block_in_slot(geometry.blocks()) <= geometry.slot_bytes());
    }

    #[test]
    fn two_slots_cost_at_most_two_percent_more_than_twice_the_capacity() {
        let geometry = Geometry::new(64 << 20, DEFAULT_BLOCK, 2).expect("a valid shape");
        assert!(geometry.replica_bytes() <= (64 << 20) * 2 * 102 / 100);
    }
}
