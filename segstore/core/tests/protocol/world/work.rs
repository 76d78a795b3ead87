//! What a replica's daemon does to it in an owner's name, step by step: filling it, and levelling its slots.

use segstore_core::id::{Member, Stamp};
use segstore_core::layout::{Entry, Geometry, Ownership};
use segstore_core::level::{Level, Step as LevelStep};
use segstore_core::repair::{Repair, Step as RepairStep};
use segstore_core::replica::Turn;

use super::key;
use super::replica::Replica;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Work {
    pub turn: Turn,
    pub job: Job,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Job {
    Fill(Box<Fill>),
    Level(Box<Level>),
}

/// A repair under way at its target.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Fill {
    /// Who asked, if it still waits for the answer.
    pub asker: Option<usize>,
    pub by: Ownership,
    pub source: Member,
    pub source_slot: u32,
    repair: Repair,
    /// What the target is made out of.
    former: Option<Replica>,
    entries: Vec<Entry>,
    blocks: Vec<u8>,
    closed: bool,
}

/// What came of a step.
pub enum Progress {
    Continues,
    Done,
    Filled { base: Stamp, closed: Option<u32> },
    Failed,
}

impl Fill {
    pub fn new(
        asker: Option<usize>,
        by: Ownership,
        source: (Member, u32),
        repair: Repair,
        former: Option<Replica>,
    ) -> Self {
        let ((source, source_slot), entries, blocks) = (source, Vec::new(), Vec::new());
        Self { asker, by, source, source_slot, repair, former, entries, blocks, closed: false }
    }

    /// One step; `source` is the replica to copy from.
    pub fn step(&mut self, target: &mut Replica, geometry: &Geometry, source: &Replica) -> Progress {
        if source.member() != self.source {
            return Progress::Failed; // The memory that was copied from is gone, and the endpoint with it.
        }
        match self.repair.step() {
            RepairStep::ReadHead => {
                self.repair.source_head(source.view(geometry, self.source_slot));
                self.begin_with_former(target, geometry);
                return Progress::Continues;
            }
            RepairStep::Compare { first, count } => {
                let theirs = source.entries(geometry, self.source_slot, first, count);
                let lacks = |(block, theirs): (u32, &Entry)| {
                    let keeps = |slot| {
                        let own = target.entries(geometry, slot, block, 1)[0];
                        self.repair.keeps(theirs, &own)
                            && own.describes(key(), block, target.blocks(geometry, slot, block, 1))
                    };
                    !(0..geometry.slots()).all(keeps)
                };
                let are_lacking: Vec<_> = (first..).zip(&theirs).map(lacks).collect();
                self.repair.compared(&are_lacking);
                return Progress::Continues;
            }
            RepairStep::Survey { first, count } => {
                let theirs = source.entries(geometry, self.source_slot, first, count);
                self.repair.compared(&theirs.iter().map(|entry| self.repair.is_newer(entry)).collect::<Vec<_>>());
                return Progress::Continues;
            }
            RepairStep::ReadEntries { first, count } => {
                self.entries = source.entries(geometry, self.source_slot, first, count);
            }
            RepairStep::ReadBlocks { first, count } => {
                self.blocks = source.blocks(geometry, self.source_slot, first, count).to_vec();
            }
            RepairStep::Store { first, slots, .. } => {
                for slot in 0..slots {
                    target.put_blocks(geometry, slot, first, &self.blocks);
                    target.put_entries(geometry, slot, first, &self.entries);
                }
            }
            RepairStep::Close(header) => {
                target.close(geometry, 0, &header);
                self.closed = true;
            }
            RepairStep::Finished => {
                return Progress::Filled { base: self.repair.base(), closed: self.closed.then_some(0) };
            }
            RepairStep::SourceChanged => return Progress::Failed,
        }
        self.repair.advance();
        Progress::Continues
    }
}

impl Fill {
    /// Whether it can be reported, and what was modified meanwhile copied first.
    pub fn is_copied(&self) -> bool {
        self.repair.step() == RepairStep::Finished && !self.closed
    }

    pub fn copy_again(&mut self) {
        self.repair.again(self.by.term);
    }

    /// What a former replica holds stands in the new one, whose slots are blank.
    fn begin_with_former(&mut self, target: &mut Replica, geometry: &Geometry) {
        let Some(mut former) = self.former.take() else { return };
        let mut level = Level::new(&self.repair.usable(former.views(geometry)), 1);
        while !matches!(step_level(&mut level, &mut former, geometry), Progress::Done) {}
        self.repair.onto(&self.repair.usable(former.views(geometry)));
        target.begin_with(&former);
    }
}

/// One step of levelling.
pub fn step_level(level: &mut Level, replica: &mut Replica, geometry: &Geometry) -> Progress {
    match level.step() {
        LevelStep::ReadTable { slot, header } => {
            let entries = replica.entries(geometry, slot, 0, geometry.blocks_of(header.length));
            level.table(entries);
            return Progress::Continues;
        }
        LevelStep::Open { slot, mark } => replica.mark(geometry, slot, mark),
        LevelStep::Copy { from, to, first, entries } => {
            let blocks = replica.blocks(geometry, from, first, entries.len() as u32).to_vec();
            replica.put_entries(geometry, to, first, entries);
            replica.put_blocks(geometry, to, first, &blocks);
        }
        LevelStep::Close { slot, header } => replica.close(geometry, slot, header),
        LevelStep::Finished => return Progress::Done,
    }
    level.advance();
    Progress::Continues
}
