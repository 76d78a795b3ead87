//! Repair: a replica that was made for it is filled from one in the in-sync set while the owner goes on.
//!
//! The copy may be fuzzy: while it runs, the owner writes the source's slots. It need only be true that every block stands at the
//! base image or later, because the owner then pushes every block modified since the base, and only that push makes a slot
//! valid. For that, a block's table entry is read before the block: an entry may be older than its block, never newer.
//!
//! Where the source stood still meanwhile, the copy is exact and its first slot is closed: an idle segment is repaired without
//! waiting for its next checkpoint.

use crate::id::Stamp;
use crate::layout::{BlockIndex, Geometry, SlotHeader};
use crate::rule::{self, Rule};
use crate::slot::{SlotView, stood_still};

/// The next thing to do, in this order. The target's own memory is meant unless the source is named.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// Read the head of the source's slot; then call [`Repair::source_head`].
    ReadHead,
    /// Read these table entries of the source.
    ReadEntries {
        /// The first block.
        first: BlockIndex,
        /// How many.
        count: u32,
    },
    /// Read these blocks of the source.
    ReadBlocks {
        /// The first block.
        first: BlockIndex,
        /// How many.
        count: u32,
    },
    /// Put these blocks, and then their entries, into every one of `slots`. What follows may be read meanwhile: pieces share nothing. It
    /// is done before the copy is closed or reported.
    Store {
        /// The first block.
        first: BlockIndex,
        /// How many.
        count: u32,
        /// The slots to fill.
        slots: u32,
    },
    /// If every block that was stored is what its entry says, and the table is what this header says, close slot 0 with it.
    Close(Box<SlotHeader>),
    /// The copy is complete; report it to the owner.
    Finished,
    /// The source does not hold what the owner said; report that.
    SourceChanged,
}

/// One repair, from one slot of a source.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Repair {
    geometry: Geometry,
    base: Stamp,
    chunk: u32,
    stage: Stage,
    /// The source's slot as it was before the copy.
    head: Option<SlotHeader>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Stage {
    Head,
    Entries(BlockIndex),
    Blocks(BlockIndex),
    Store(BlockIndex),
    HeadAgain,
    Close,
    Finished,
    SourceChanged,
}

impl Repair {
    /// Copies the image `base`, or what follows it, in pieces of `chunk` blocks.
    #[must_use]
    pub fn new(geometry: Geometry, base: Stamp, chunk: u32) -> Self {
        Self { geometry, base, chunk: chunk.max(1), stage: Stage::Head, head: None }
    }

    /// What the copy is at least.
    #[must_use]
    pub fn base(&self) -> Stamp {
        self.base
    }

    /// How far the copy is: blocks copied, blocks to copy.
    #[must_use]
    pub fn progress(&self) -> (u32, u32) {
        match self.stage {
            Stage::Head => (0, self.blocks()),
            Stage::Entries(first) | Stage::Blocks(first) | Stage::Store(first) => (first, self.blocks()),
            _ => (self.blocks(), self.blocks()),
        }
    }

    /// The step to perform. It stays the same until [`Repair::advance`] or [`Repair::source_head`] is called.
    #[must_use]
    pub fn step(&self) -> Step {
        let entries_first = rule::holds(Rule::RepairEntryFirst);
        match self.stage {
            Stage::Head | Stage::HeadAgain => Step::ReadHead,
            Stage::Entries(first) if entries_first => Step::ReadEntries { first, count: self.count(first) },
            Stage::Blocks(first) if !entries_first => Step::ReadEntries { first, count: self.count(first) },
            Stage::Entries(first) | Stage::Blocks(first) => Step::ReadBlocks { first, count: self.count(first) },
            Stage::Store(first) => {
                let slots = if rule::holds(Rule::RepairAllSlots) { self.geometry.slots() } else { 1 };
                Step::Store { first, count: self.count(first), slots }
            }
            Stage::Close => match &self.head {
                Some(header) => Step::Close(Box::new(header.clone())),
                None => Step::SourceChanged,
            },
            Stage::Finished => Step::Finished,
            Stage::SourceChanged => Step::SourceChanged,
        }
    }

    /// The step was performed.
    pub fn advance(&mut self) {
        self.stage = match self.stage {
            Stage::Entries(first) => Stage::Blocks(first),
            Stage::Blocks(first) => Stage::Store(first),
            Stage::Store(first) => self.copy_from(first + self.count(first)),
            Stage::Close => Stage::Finished,
            other => other,
        };
    }

    /// The source's slot looks like this.
    pub fn source_head(&mut self, view: SlotView) {
        self.stage = match self.stage {
            // The owner may have gone on meanwhile; whatever it closed there contains the base.
            Stage::Head => match view.into_closed().filter(|header| header.image >= self.base) {
                Some(header) => {
                    self.base = header.image;
                    self.head = Some(header);
                    self.copy_from(0)
                }
                None => Stage::SourceChanged,
            },
            Stage::HeadAgain if self.head.as_ref().is_some_and(|before| stood_still(before, &view)) => Stage::Close,
            Stage::HeadAgain => Stage::Finished,
            other => other,
        };
    }

    fn copy_from(&self, first: BlockIndex) -> Stage {
        if first < self.blocks() { Stage::Entries(first) } else { Stage::HeadAgain }
    }

    fn blocks(&self) -> u32 {
        self.head.as_ref().map_or(0, |header| self.geometry.blocks_of(header.length))
    }

    fn count(&self, first: BlockIndex) -> u32 {
        self.chunk.min(self.blocks() - first)
    }
}
