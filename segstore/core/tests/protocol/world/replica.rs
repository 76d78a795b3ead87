//! A replica: real bytes, and the daemon that serves them.

use std::sync::Arc;

use segstore_core::id::{Incarnation, Member, Stamp};
use segstore_core::layout::geometry::SLOT_HEAD;
use segstore_core::layout::{Entry, Geometry, Mark, Ownership, SlotHeader, header};
use segstore_core::repair::{Repair, Step as RepairStep};
use segstore_core::replica::{Granted, Refused, Replica as Decisions, Request};
use segstore_core::slot::SlotView;
use zerocopy::{FromBytes, IntoBytes};

use super::{SEGMENT, incarnation, key, node_id};

/// A repair under way at its target.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RepairJob {
    pub process: usize,
    by: Ownership,
    pub source: Member,
    pub source_slot: u32,
    pub repair: Repair,
    entries: Vec<Entry>,
    blocks: Vec<u8>,
    closed: bool,
}

/// What came of a repair's step.
pub enum Repaired {
    Continues,
    Finished { by: Ownership, base: Stamp, closed: Option<u32> },
    Failed,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Replica {
    index: usize,
    life: u8,
    /// The daemon's mind; gone when it restarts.
    decisions: Decisions,
    /// What stands in the replica's head; survives with the memory.
    stored: Ownership,
    slots: Vec<Arc<Vec<u8>>>,
    pub repair: Option<RepairJob>,
}

impl Replica {
    /// Freshly formatted: every slot closed on the empty image.
    pub fn new(index: usize, geometry: &Geometry) -> Self {
        let mut replica = Self::blank(index, 0, geometry);
        for slot in 0..geometry.slots() {
            replica.close(geometry, slot, &SlotHeader::of_empty_segment(SEGMENT, geometry));
        }
        replica
    }

    fn blank(index: usize, life: u8, geometry: &Geometry) -> Self {
        let slot = Arc::new(vec![0; geometry.slot_bytes() as usize]);
        Self {
            index,
            life,
            decisions: Decisions {
                segment: SEGMENT,
                incarnation: incarnation(index, life),
                remembered: Ownership::default(),
            },
            stored: Ownership::default(),
            slots: vec![slot; geometry.slots() as usize],
            repair: None,
        }
    }

    pub fn member(&self) -> Member {
        Member { node: node_id(self.index), incarnation: self.incarnation() }
    }

    pub fn incarnation(&self) -> Incarnation {
        incarnation(self.index, self.life)
    }

    /// Decides, and stores what is to be stored. The caller revokes.
    pub fn decide(&mut self, request: &Request) -> Result<Granted, Refused> {
        let granted = self.decisions.decide(request)?;
        if let Some(ownership) = granted.remember {
            self.stored = ownership;
        }
        if granted.revoke {
            self.repair = None;
        }
        Ok(granted)
    }

    /// The daemon restarts; its memory stays.
    pub fn restart(&mut self) {
        self.decisions.remembered = self.stored;
        self.repair = None;
    }

    /// The node restarts without its memory.
    pub fn lose_memory(&mut self, geometry: &Geometry) {
        *self = Self::blank(self.index, self.life + 1, geometry);
    }

    pub fn write(&mut self, geometry: &Geometry, at: usize, bytes: &[u8]) {
        let slots = (0..geometry.slots()).rev();
        let slot = slots.into_iter().find(|&slot| geometry.slot(slot) as usize <= at).unwrap();
        let at = at - geometry.slot(slot) as usize;
        Arc::make_mut(&mut self.slots[slot as usize])[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn views(&self, geometry: &Geometry) -> Vec<SlotView> {
        (0..geometry.slots()).map(|slot| self.view(geometry, slot)).collect()
    }

    pub fn view(&self, geometry: &Geometry, slot: u32) -> SlotView {
        SlotView::parse(SEGMENT, geometry, self.head(slot))
    }

    pub fn head(&self, slot: u32) -> &[u8; SLOT_HEAD] {
        self.slots[slot as usize].first_chunk().unwrap()
    }

    pub fn entries(&self, geometry: &Geometry, slot: u32, first: u32, count: u32) -> Vec<Entry> {
        let at = geometry.entry_in_slot(first) as usize;
        let bytes = &self.slots[slot as usize][at..at + count as usize * Entry::BYTES as usize];
        <[Entry]>::ref_from_bytes(bytes).unwrap().to_vec()
    }

    pub fn blocks(&self, geometry: &Geometry, slot: u32, first: u32, count: u32) -> &[u8] {
        let at = geometry.block_in_slot(first) as usize;
        &self.slots[slot as usize][at..at + count as usize * geometry.block_size() as usize]
    }

    fn close(&mut self, geometry: &Geometry, slot: u32, header: &SlotHeader) {
        let at = geometry.slot(slot) as usize;
        self.write(geometry, at, &Mark { image: header.image, former: None, is_closed: true }.encode(key()));
        self.write(geometry, at + header::OFFSET, header.encode(key()).as_slice());
    }

    pub fn begin_repair(&mut self, (process, by): (usize, Ownership), source: (Member, u32), repair: Repair) {
        self.repair = Some(RepairJob {
            process,
            by,
            source: source.0,
            source_slot: source.1,
            repair,
            entries: Vec::new(),
            blocks: Vec::new(),
            closed: false,
        });
    }

    /// One step of the repair; `source` is the replica that it copies from.
    pub fn step_repair(&mut self, geometry: &Geometry, source: &Self) -> Repaired {
        let Some(mut job) = self.repair.take() else { return Repaired::Failed };
        if source.member() != job.source {
            return Repaired::Failed; // The memory that was copied from is gone, and the endpoint with it.
        }
        match job.repair.step() {
            RepairStep::Invalidate => {
                for slot in 0..geometry.slots() {
                    self.write(geometry, geometry.slot(slot) as usize, &[0; SLOT_HEAD]);
                }
                job.repair.advance();
            }
            RepairStep::ReadHead => job.repair.source_head(source.view(geometry, job.source_slot)),
            RepairStep::ReadEntries { first, count } => {
                job.entries = source.entries(geometry, job.source_slot, first, count);
                job.repair.advance();
            }
            RepairStep::ReadBlocks { first, count } => {
                job.blocks = source.blocks(geometry, job.source_slot, first, count).to_vec();
                job.repair.advance();
            }
            RepairStep::Store { first, slots, .. } => {
                for slot in 0..slots {
                    let at = geometry.slot(slot);
                    self.write(geometry, (at + geometry.block_in_slot(first)) as usize, &job.blocks);
                    self.write(geometry, (at + geometry.entry_in_slot(first)) as usize, job.entries.as_bytes());
                }
                job.repair.advance();
            }
            RepairStep::Close(header) => {
                self.close(geometry, 0, &header);
                job.closed = true;
                job.repair.advance();
            }
            RepairStep::Finished => {
                let closed = job.closed.then_some(0);
                return Repaired::Finished { by: job.by, base: job.repair.base(), closed };
            }
            RepairStep::SourceChanged => return Repaired::Failed,
        }
        self.repair = Some(job);
        Repaired::Continues
    }
}
