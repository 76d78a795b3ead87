//! Working memory: the application's mapping of a segment.
//!
//! The only unsafe code of this crate. What makes it sound: the mapping belongs to this process alone and is never granted to a peer;
//! transfers of this process read it only while a checkpoint is under way, and write it only while it is loaded, and whoever
//! starts one holds the memory exclusively until it has ended.
#![allow(unsafe_code, reason = "plain slices over mapped memory")]

use segstore_core::layout::{BlockIndex, Geometry};
use segstore_transport::Memory;

use crate::error::{Error, Result};

/// A number of bytes that is mapped, or meant to be: the transport asks for a target on which all of them fit.
#[expect(clippy::cast_possible_truncation, reason = "the transport builds for 64-bit targets only")]
pub(crate) fn in_memory(bytes: u64) -> usize {
    bytes as usize
}

/// The mapping of one segment. Bytes beyond the segment's length are zero.
#[derive(Debug)]
pub(crate) struct Working {
    memory: Memory,
    block_size: usize,
    /// Beyond that are zeros.
    reach: usize,
}

impl Working {
    /// Zeros.
    pub(crate) fn new(geometry: &Geometry) -> Result<Self> {
        let capacity = in_memory(geometry.capacity());
        let memory = Memory::local(capacity);
        let memory = memory.map_err(|error| Error::of_transport("mapping working memory", &error))?;
        Ok(Self { memory, block_size: geometry.block_size() as usize, reach: 0 })
    }

    /// An image of that length is about to be read into it.
    pub(crate) fn reaches(&mut self, length: u64) {
        self.reach = self.reach.max(in_memory(length));
    }

    /// What is beyond an image of that length, which stands there, is the application's to grow into: zeros.
    pub(crate) fn clear_beyond(&mut self, length: u64) {
        let length = in_memory(length);
        let end = length.max(self.reach).next_multiple_of(self.block_size).min(self.memory.len());
        self.bytes_mut()[length..end].fill(0);
        self.reach = length;
    }

    /// Has the system give memory for these blocks before bytes come there.
    pub(crate) fn populate(&self, blocks: std::ops::Range<BlockIndex>) {
        let [start, end] = [blocks.start, blocks.end].map(|at| at as usize * self.block_size);
        // Where it cannot, the bytes find it.
        let _ = self.memory.populate(start, end - start);
    }

    /// For registration. Whoever posts operations on it holds `&mut Working`, or keeps others from having it.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped, initialised (zeros) and this long for as long as `self`; nobody writes it while it is shared:
        // the application needs `&mut self`, loads too, and checkpoints only read.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.memory.len()) }
    }

    /// All of it.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; `&mut self` keeps everybody else in this process away, and no other process has the mapping.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.memory.len()) }
    }

    /// One block. Others may be written by a transfer meanwhile, this one may not.
    pub(crate) fn block(&self, index: BlockIndex) -> &[u8] {
        let start = index as usize * self.block_size;
        assert!(start + self.block_size <= self.memory.len(), "block {index} is outside the segment");
        // SAFETY: inside the mapping, as was just checked, which lives as long as `self`; nobody writes this block now.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().wrapping_add(start), self.block_size) }
    }
}
