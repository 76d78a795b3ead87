//! One checkpoint into one slot, as an ordered list of one-sided writes.
//!
//! The order is the protocol's: the slot is marked open; then come the table entries, so that whoever finds the slot open sees in
//! its own table which blocks may have been touched; then the blocks; then the header; then the slot is marked closed. A crash
//! between any two bytes of this leaves a slot that nobody believes, and the other slot whole.
//!
//! Blocks are written by rising number, so that a push which was ended has left all below some block: the next one of the same owner
//! into that slot goes on from there.

use crate::changes::Changes;
use crate::id::{Epoch, Stamp};
use crate::layout::header::{self, HeaderBytes};
use crate::layout::{BlockIndex, Key, Mark, SlotHeader};
use crate::rule::{self, Rule};
use zerocopy::IntoBytes;

/// Where the bytes of a write come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source<'a> {
    /// These. They are gone when the call returns: copy them or send them.
    Bytes(&'a [u8]),
    /// The segment's working memory.
    Working {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
}

/// What takes the writes of a push, in their order.
pub trait Writes {
    /// Writes `source` at offset `at` of the replica.
    fn write(&mut self, at: u64, source: Source<'_>);
}

impl<F: FnMut(u64, Source<'_>)> Writes for F {
    fn write(&mut self, at: u64, source: Source<'_>) {
        self(at, source);
    }
}

/// Which slot a push goes to, and what that slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Target {
    /// The slot's number.
    pub slot: u32,
    /// The image from which it is brought up to date; `None`: it is filled in full.
    pub base: Option<Stamp>,
    /// What an earlier push of this term left in it that was ended.
    pub begun: Option<Begun>,
}

/// How far a push came that was ended: a slot has the blocks below `blocks`, and their entries, as that epoch had them, or as a later one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Begun {
    /// Its epoch.
    pub epoch: Epoch,
    /// The first block of which nothing is known.
    pub blocks: BlockIndex,
}

/// What is the same for every replica of one checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    image: Stamp,
    key: Key,
    header: HeaderBytes,
}

impl Checkpoint {
    /// Prepares the checkpoint that `header` describes. Its changes must have been sealed.
    #[must_use]
    pub fn new(header: &SlotHeader) -> Self {
        let key = Key::of(header.segment);
        Self { image: header.image, key, header: header.encode(key) }
    }

    /// Hands out the writes that bring `target` to this checkpoint.
    pub fn plan(&self, changes: &Changes, target: Target, writes: &mut impl Writes) {
        if rule::holds(Rule::OpenMark) {
            self.mark(changes, target, false, writes);
        }
        if !rule::holds(Rule::HeaderLast) {
            self.close(changes, target, writes);
        }
        if rule::holds(Rule::EntriesBeforeBlocks) {
            entries(changes, target, writes);
            blocks(changes, target, writes);
        } else {
            blocks(changes, target, writes);
            entries(changes, target, writes);
        }
        if rule::holds(Rule::HeaderLast) {
            self.close(changes, target, writes);
        }
    }

    fn mark(&self, changes: &Changes, target: Target, is_closed: bool, writes: &mut impl Writes) {
        let mark = Mark { image: self.image, former: target.base, is_closed };
        writes.write(changes.geometry().slot(target.slot), Source::Bytes(&mark.encode(self.key)));
    }

    fn close(&self, changes: &Changes, target: Target, writes: &mut impl Writes) {
        let at = changes.geometry().slot(target.slot) + header::OFFSET as u64;
        writes.write(at, Source::Bytes(self.header.as_slice()));
        self.mark(changes, target, true, writes);
    }
}

fn entries(changes: &Changes, target: Target, writes: &mut impl Writes) {
    let geometry = changes.geometry();
    let slot = geometry.slot(target.slot);
    changes.runs_for(target, |first, count| {
        let rows = &changes.entries()[first as usize..(first + count) as usize];
        writes.write(slot + geometry.entry_in_slot(first), Source::Bytes(rows.as_bytes()));
    });
}

fn blocks(changes: &Changes, target: Target, writes: &mut impl Writes) {
    let geometry = changes.geometry();
    let slot = geometry.slot(target.slot);
    changes.runs_for(target, |first, count| {
        let length = u64::from(count) * u64::from(geometry.block_size());
        let source = Source::Working { offset: geometry.block_in_segment(first), length };
        writes.write(slot + geometry.block_in_slot(first), source);
    });
}
