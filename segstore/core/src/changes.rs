//! Which blocks changed in which epoch: the delta rule's memory at the owner.
//!
//! **A slot at epoch `s` needs exactly the blocks whose modified-epoch is above `s`.** The block table answers that for any `s`
//! by a scan. So that nothing is scanned, the blocks of the last few epochs also stand in lists; a slot that lags further behind
//! pays for a scan once.

use std::collections::VecDeque;
use std::ops::Range;

use crate::id::Epoch;
use crate::layout::{BlockIndex, Entry, Geometry, Key, SlotHeader};
use crate::push::Target;
use crate::rule::{self, Rule};

/// How many epochs are listed. Slots alternate, so a slot lags two epochs behind; a failed attempt adds one.
const LISTED: usize = 8;

/// The changed blocks of one epoch.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct List {
    epoch: Epoch,
    /// Rising, without repetition.
    blocks: Vec<BlockIndex>,
}

/// The epoch that was sealed last, or the image that was loaded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Sealed {
    length: u64,
    table_sum: u64,
}

/// The owner's block table, with the epochs' changes as lists.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Changes {
    key: Key,
    geometry: Geometry,
    /// What the next epoch will have.
    length: u64,
    /// What the last epoch had: every push of it, early or late, is planned from this.
    sealed: Sealed,
    /// A row for every block of the capacity; only those within the sealed length count.
    table: Vec<Entry>,
    /// Marked since the last epoch was sealed.
    marked: Vec<BlockIndex>,
    is_marked: BitSet,
    /// Oldest first.
    lists: VecDeque<List>,
    /// Everything above this epoch is listed.
    listed_above: Epoch,
}

impl Changes {
    /// A segment of which nothing was ever written; its length is zero.
    #[must_use]
    pub fn empty(key: Key, geometry: Geometry) -> Self {
        Self::of_table(key, geometry, Sealed { length: 0, table_sum: 0 }, Vec::new(), Epoch(0))
    }

    /// The state after loading an image, with its block table, which was verified against the header.
    #[must_use]
    pub fn of_image(geometry: Geometry, header: &SlotHeader, table: Vec<Entry>) -> Self {
        let sealed = Sealed { length: header.length, table_sum: header.table_sum };
        Self::of_table(Key::of(header.segment), geometry, sealed, table, header.image.epoch)
    }

    fn of_table(key: Key, geometry: Geometry, sealed: Sealed, mut table: Vec<Entry>, epoch: Epoch) -> Self {
        table.truncate(geometry.blocks_of(sealed.length) as usize);
        table.resize(geometry.blocks() as usize, Entry::default());
        Self {
            key,
            geometry,
            length: sealed.length,
            sealed,
            table,
            marked: Vec::new(),
            is_marked: BitSet::new(geometry.blocks()),
            lists: VecDeque::with_capacity(LISTED),
            listed_above: epoch,
        }
    }

    /// Bytes of application state, as the next epoch will have them.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes of application state in the epoch that was sealed last.
    #[must_use]
    pub fn sealed_length(&self) -> u64 {
        self.sealed.length
    }

    /// The shape of the segment's replicas.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The checksum of the table of the epoch that was sealed last.
    #[must_use]
    pub fn table_sum(&self) -> u64 {
        self.sealed.table_sum
    }

    /// The table of the epoch that was sealed last.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.table[..self.sealed_blocks() as usize]
    }

    /// Says that `block` changes.
    pub fn mark(&mut self, block: BlockIndex) {
        if self.is_marked.insert(block) {
            self.marked.push(block);
        }
    }

    /// Says that the bytes from `offset` to `offset + length` change.
    pub fn mark_bytes(&mut self, offset: u64, length: u64) {
        debug_assert!(offset + length <= self.geometry.capacity());
        if length == 0 {
            return;
        }
        let last = self.geometry.blocks_of(offset + length) - 1;
        let first = self.geometry.blocks_of(offset + 1) - 1;
        for block in first..=last {
            self.mark(block);
        }
    }

    /// Changes the segment's length from the next epoch on; pushes of the one that was sealed last are not touched by it. Blocks
    /// that the segment gains count as changed: a replica may hold anything there.
    ///
    /// The bytes beyond the length must be zero before they come within it again; that is the caller's part, and so is marking
    /// the block that the old end cut through, if its rest had to be zeroed.
    pub fn set_length(&mut self, length: u64) {
        let (before, after) = (self.geometry.blocks_of(self.length), self.geometry.blocks_of(length));
        (before..after).for_each(|block| self.mark(block));
        self.length = length;
    }

    /// Gives the marked blocks to `epoch`, with the checksums of what they hold now. `block(i)` gives the bytes of block `i`.
    pub fn seal<'a>(&mut self, epoch: Epoch, mut block: impl FnMut(BlockIndex) -> &'a [u8]) {
        let mut list = self.recycled_list();
        list.epoch = epoch;
        self.marked.sort_unstable();
        for &index in &self.marked {
            self.is_marked.remove(index);
        }
        let (before, within) = (self.sealed_blocks(), self.geometry.blocks_of(self.length));
        list.blocks.extend(self.marked.drain(..).filter(|&index| index < within));
        let mut table_sum = self.sealed.table_sum;
        for index in within..before {
            table_sum = table_sum.wrapping_sub(self.table[index as usize].share(self.key, index));
        }
        for &index in &list.blocks {
            let row = &mut self.table[index as usize];
            if index < before {
                table_sum = table_sum.wrapping_sub(row.share(self.key, index));
            }
            *row = Entry::new(epoch, self.key.block(index, block(index)));
            table_sum = table_sum.wrapping_add(row.share(self.key, index));
        }
        self.sealed = Sealed { length: self.length, table_sum };
        self.lists.push_back(list);
    }

    /// Visits the runs of adjacent blocks that a push to `target` writes, as (first, count), by rising number.
    pub fn runs_for(&self, target: Target, mut visit: impl FnMut(BlockIndex, u32)) {
        let (base, within) = (target.base.map(|base| base.epoch), self.sealed_blocks());
        let begun = target.begun.map_or(0, |begun| begun.blocks.min(within));
        if let Some(former) = target.begun.filter(|_| rule::holds(Rule::GoOnWithChanges)) {
            self.runs(Some(former.epoch), 0..begun, &mut visit);
        }
        self.runs(base, begun..within, visit);
    }

    /// The same of what a slot at `base` needs; `None`: all there is.
    pub fn runs_since(&self, base: Option<Epoch>, visit: impl FnMut(BlockIndex, u32)) {
        self.runs(base, 0..self.sealed_blocks(), visit);
    }

    fn runs(&self, base: Option<Epoch>, within: Range<BlockIndex>, mut visit: impl FnMut(BlockIndex, u32)) {
        match base {
            _ if within.is_empty() => {}
            None => visit(within.start, within.end - within.start),
            Some(base) if base < self.listed_above => {
                runs(within.filter(|&i| self.table[i as usize].modified() > base), visit);
            }
            Some(base) => {
                let newer = self.lists.iter().filter(|list| list.epoch > base).map(|list| list.blocks.as_slice());
                runs(merged(newer).filter(|index| within.contains(index)), visit);
            }
        }
    }

    fn sealed_blocks(&self) -> u32 {
        self.geometry.blocks_of(self.sealed.length)
    }

    /// An empty list, reusing the oldest one's memory once there are enough.
    fn recycled_list(&mut self) -> List {
        if self.lists.len() < LISTED {
            return List::default();
        }
        let mut oldest = self.lists.pop_front().unwrap_or_default();
        self.listed_above = oldest.epoch;
        oldest.blocks.clear();
        oldest
    }
}

/// The numbers of these lists, of which each rises: rising, and without repetition.
fn merged<'a>(lists: impl Iterator<Item = &'a [BlockIndex]>) -> impl Iterator<Item = BlockIndex> {
    let (mut rest, mut count) = ([[].as_slice(); LISTED], 0);
    for list in lists.filter(|list| !list.is_empty()) {
        rest[count] = list;
        count += 1;
    }
    std::iter::from_fn(move || {
        let rest = &mut rest[..count];
        let next = *rest.iter().filter_map(|list| list.first()).min()?;
        for list in rest.iter_mut().filter(|list| list.first() == Some(&next)) {
            *list = &list[1..];
        }
        Some(next)
    })
}

/// Joins adjacent numbers, which must rise, into (first, count).
pub fn runs(blocks: impl Iterator<Item = BlockIndex>, mut visit: impl FnMut(BlockIndex, u32)) {
    let mut run: Option<(BlockIndex, u32)> = None;
    for block in blocks {
        run = match run {
            Some((first, count)) if first + count == block => Some((first, count + 1)),
            Some((first, count)) => {
                visit(first, count);
                Some((block, 1))
            }
            None => Some((block, 1)),
        };
    }
    if let Some((first, count)) = run {
        visit(first, count);
    }
}

/// One bit for each block.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct BitSet(Vec<u64>);

impl BitSet {
    fn new(bits: u32) -> Self {
        Self(vec![0; bits.div_ceil(64) as usize])
    }

    /// Whether the bit was clear before.
    fn insert(&mut self, bit: u32) -> bool {
        let (word, mask) = (&mut self.0[(bit / 64) as usize], 1 << (bit % 64));
        let was_clear = *word & mask == 0;
        *word |= mask;
        was_clear
    }

    fn remove(&mut self, bit: u32) {
        self.0[(bit / 64) as usize] &= !(1 << (bit % 64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SegmentId;
    use crate::layout::table::table_sum;

    const BLOCK: usize = 1024;

    fn changes(blocks: u32) -> Changes {
        let geometry = Geometry::new(u64::from(blocks) * BLOCK as u64, 1024, 2).expect("a valid shape");
        let mut changes = Changes::empty(Key::of(SegmentId(1)), geometry);
        changes.set_length(geometry.capacity());
        changes
    }

    fn needed(changes: &Changes, base: Option<u64>) -> Vec<u32> {
        let mut blocks = Vec::new();
        changes.runs_since(base.map(Epoch), |first, count| blocks.extend(first..first + count));
        blocks.sort_unstable();
        blocks
    }

    fn seal(changes: &mut Changes, epoch: u64, marks: &[u32]) {
        marks.iter().for_each(|&block| changes.mark(block));
        changes.seal(Epoch(epoch), |_| &[0; BLOCK]);
    }

    #[test]
    fn a_slot_needs_what_changed_since_its_epoch() {
        let mut changes = changes(8);
        seal(&mut changes, 1, &[]);
        seal(&mut changes, 2, &[5, 1]);
        seal(&mut changes, 4, &[1, 2]);
        assert_eq!(needed(&changes, None), (0..8).collect::<Vec<_>>());
        assert_eq!(needed(&changes, Some(0)), (0..8).collect::<Vec<_>>());
        assert_eq!(needed(&changes, Some(1)), [1, 2, 5]);
        assert_eq!(needed(&changes, Some(3)), [1, 2]);
        assert_eq!(needed(&changes, Some(4)), [] as [u32; 0]);
    }

    #[test]
    fn old_epochs_are_found_by_scanning() {
        let mut changes = changes(64);
        for epoch in 1..=40 {
            seal(&mut changes, epoch, &[u32::try_from(epoch).expect("small")]);
        }
        assert_eq!(needed(&changes, Some(3)), (4..=40).collect::<Vec<_>>());
        assert_eq!(needed(&changes, Some(38)), [39, 40]);
    }

    #[test]
    fn the_table_sum_follows_every_change() {
        let mut changes = changes(8);
        seal(&mut changes, 1, &[]);
        seal(&mut changes, 2, &[3]);
        assert_eq!(changes.table_sum(), table_sum(changes.key, changes.entries()));
        assert_eq!(changes.sealed_length(), 8192);
        changes.set_length(2048 + 1);
        seal(&mut changes, 3, &[7]);
        assert_eq!(changes.entries().len(), 3);
        assert_eq!(changes.table_sum(), table_sum(changes.key, changes.entries()));
        changes.set_length(5000);
        seal(&mut changes, 4, &[]);
        assert_eq!(needed(&changes, Some(3)), [3, 4], "what the segment gained must be sent");
        assert_eq!(changes.table_sum(), table_sum(changes.key, changes.entries()));
    }

    /// A replica that is connected while an attempt is under way gets that attempt, not the length of the next one.
    #[test]
    fn a_length_counts_from_the_next_epoch() {
        for length in [1024, 8192] {
            let mut changes = changes(8);
            changes.set_length(4096);
            seal(&mut changes, 1, &[]);
            seal(&mut changes, 2, &[1, 3]);
            let sealed = changes.clone();
            changes.set_length(length);
            assert_eq!(changes.length(), length);
            assert_eq!((changes.sealed_length(), changes.table_sum()), (4096, sealed.table_sum()));
            assert_eq!(changes.entries(), sealed.entries());
            assert_eq!([needed(&changes, None), needed(&changes, Some(1))], [vec![0, 1, 2, 3], vec![1, 3]]);
        }
    }

    /// What is lost and gained again between two epochs may have been zeroed.
    #[test]
    fn a_length_that_goes_and_comes_back_is_a_change() {
        let mut changes = changes(4);
        seal(&mut changes, 1, &[]);
        changes.set_length(1024);
        changes.set_length(3072);
        seal(&mut changes, 2, &[]);
        assert_eq!(needed(&changes, Some(1)), [1, 2]);
        assert_eq!(changes.table_sum(), table_sum(changes.key, changes.entries()));
    }

    #[test]
    fn marking_bytes_marks_every_block_they_touch() {
        let mut changes = changes(8);
        seal(&mut changes, 1, &[]);
        changes.mark_bytes(1023, 2);
        changes.mark_bytes(4096, 1);
        changes.mark_bytes(6000, 0);
        seal(&mut changes, 2, &[]);
        assert_eq!(needed(&changes, Some(1)), [0, 1, 4]);
    }

    #[test]
    fn a_steady_writer_allocates_nothing() {
        let mut changes = changes(64);
        for epoch in 1..100 {
            seal(&mut changes, epoch, &[7]);
        }
        let capacities: Vec<_> = changes.lists.iter().map(|list| list.blocks.capacity()).collect();
        for epoch in 100..200 {
            seal(&mut changes, epoch, &[9]);
        }
        let mut later: Vec<_> = changes.lists.iter().map(|list| list.blocks.capacity()).collect();
        later.rotate_left(100 % LISTED);
        assert_eq!(capacities.iter().sum::<usize>(), later.iter().sum::<usize>());
    }
}
