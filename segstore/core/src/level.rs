//! Bringing a replica's stale slots to its newest image, in its own node's memory, for an owner that writes no more.
//!
//! Slots alternate, so the slot that a checkpoint did not go into lags behind, after the first one by everything. Left so, whoever
//! owns the segment next sends all of it again. Here it costs no network.
//!
//! It is a push to oneself: a mark, entries before blocks, the header last.

use crate::id::Stamp;
use crate::layout::{BlockIndex, Entry, Mark, SlotHeader};
use crate::slot::{SlotView, verify_table};

/// The next thing to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step<'a> {
    /// Read the block table of the image that `header` describes; then call [`Level::table`].
    ReadTable {
        /// Where it stands.
        slot: u32,
        /// What the image is.
        header: &'a SlotHeader,
    },
    /// Write this mark.
    Open {
        /// The stale slot.
        slot: u32,
        /// Its mark.
        mark: Mark,
    },
    /// Write these entries, then copy the blocks that they describe.
    Copy {
        /// The slot to copy from.
        from: u32,
        /// The stale slot.
        to: u32,
        /// The first block.
        first: BlockIndex,
        /// An entry for each block.
        entries: &'a [Entry],
    },
    /// Write this header, then close the mark.
    Close {
        /// The slot, which is stale no more.
        slot: u32,
        /// What it holds.
        header: &'a SlotHeader,
    },
    /// There is nothing more to do.
    Finished,
}

/// One levelling of one replica.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Level {
    chunk: u32,
    newest: Option<(u32, SlotHeader)>,
    table: Vec<Entry>,
    /// The slots to bring up to date, each with the image that it has every block of; the next one last.
    stale: Vec<(u32, Option<Stamp>)>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Stage {
    Table,
    Open,
    /// The stale slot's lacking blocks from this one on.
    Copy(BlockIndex),
}

impl Level {
    /// Levels the replica whose slots look like this, in pieces of at most `chunk` blocks.
    ///
    /// A slot that cannot be read may hold something newer, which only a takeover can judge: then nothing is done.
    #[must_use]
    pub fn new(slots: &[SlotView], chunk: u32) -> Self {
        let closed = (0..).zip(slots).filter_map(|(slot, view)| Some((slot, view.closed()?)));
        let newest = closed.max_by_key(|(_, header)| header.image);
        let newest = newest.filter(|(_, header)| !slots.iter().any(|view| view.may_hide_above(header.image)));
        let newest = newest.map(|(slot, header)| (slot, header.clone()));
        let mut level = Self { chunk: chunk.max(1), newest, table: Vec::new(), stale: Vec::new(), stage: Stage::Table };
        if let Some((_, header)) = &level.newest {
            let lineage = header.lineage.extended_by(header.image);
            let lags = |(_, view): &(u32, &SlotView)| view.image() != Some(header.image);
            level.stale = (0..).zip(slots).filter(lags).map(|(slot, view)| (slot, view.base(&lineage))).collect();
        }
        level
    }

    /// The step to perform. It stays the same until [`Level::table`] or [`Level::advance`] is called.
    #[must_use]
    pub fn step(&self) -> Step<'_> {
        let (Some((from, header)), Some(&(slot, base))) = (&self.newest, self.stale.last()) else {
            return Step::Finished;
        };
        match self.stage {
            Stage::Table => Step::ReadTable { slot: *from, header },
            Stage::Open => Step::Open { slot, mark: Mark { image: header.image, former: base, is_closed: false } },
            Stage::Copy(block) => match self.lacking_from(block) {
                Some((first, entries)) => Step::Copy { from: *from, to: slot, first, entries },
                None => Step::Close { slot, header },
            },
        }
    }

    /// The newest image's table. Damage is not multiplied: with a table that does not match nothing is done.
    pub fn table(&mut self, entries: Vec<Entry>) {
        let Some((_, header)) = self.newest.as_ref().filter(|_| self.stage == Stage::Table) else { return };
        if verify_table(header, &entries).is_err() {
            self.newest = None;
        }
        (self.table, self.stage) = (entries, Stage::Open);
    }

    /// The step was performed.
    pub fn advance(&mut self) {
        self.stage = match self.stage {
            Stage::Table => Stage::Table,
            Stage::Open => Stage::Copy(0),
            Stage::Copy(block) => match self.lacking_from(block) {
                Some((first, entries)) => Stage::Copy(first + u32::try_from(entries.len()).unwrap_or(u32::MAX)),
                None => {
                    self.stale.pop();
                    Stage::Open
                }
            },
        };
    }

    /// The next adjacent blocks, from `block` on, that the stale slot lacks.
    fn lacking_from(&self, block: BlockIndex) -> Option<(BlockIndex, &[Entry])> {
        let base = self.stale.last()?.1;
        let lacks = |entry: &Entry| base.is_none_or(|base| entry.modified() > base.epoch);
        let rest = self.table.get(block as usize..)?;
        let skipped = rest.iter().position(lacks)?;
        let rest = &rest[skipped..];
        let count = rest.iter().take(self.chunk as usize).take_while(|entry| lacks(entry)).count();
        Some((block + u32::try_from(skipped).unwrap_or(u32::MAX), &rest[..count]))
    }
}
