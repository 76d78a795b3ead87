//! A replica: real bytes, and the daemon that serves them.

use std::sync::Arc;

use segstore_core::forget::Forgettable;
use segstore_core::id::{Incarnation, Member};
use segstore_core::layout::geometry::SLOT_HEAD;
use segstore_core::layout::{Entry, Geometry, Mark, Ownership, SlotHeader, header};
use segstore_core::replica::{Granted, Refused, Replica as Decisions, Request, Turn};
use segstore_core::slot::SlotView;
use zerocopy::{FromBytes, IntoBytes};

use super::work::Work;
use super::{SEGMENT, incarnation, key, node_id};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Replica {
    index: usize,
    life: u8,
    /// Whether the node keeps one of the segment. It has room for one.
    pub is_kept: bool,
    /// The daemon's mind; gone when it restarts.
    decisions: Decisions,
    /// What stands in the replica's head; survives with the memory.
    stored: Ownership,
    slots: Vec<Arc<Vec<u8>>>,
    /// What the daemon does to it.
    pub work: Vec<Work>,
}

impl Replica {
    /// Freshly formatted: every slot closed on the empty image.
    pub fn new(index: usize, geometry: &Geometry) -> Self {
        let mut replica = Self { is_kept: true, ..Self::none(index, 0, geometry) };
        for slot in 0..geometry.slots() {
            replica.close(geometry, slot, &SlotHeader::of_empty_segment(SEGMENT, geometry));
        }
        replica
    }

    /// A node that keeps nothing of the segment, after `life` lives.
    fn none(index: usize, life: u8, geometry: &Geometry) -> Self {
        let slot = Arc::new(vec![0; geometry.slot_bytes() as usize]);
        Self {
            index,
            life,
            is_kept: false,
            decisions: Decisions::new(SEGMENT, incarnation(index, life), Ownership::default()),
            stored: Ownership::default(),
            slots: vec![slot; geometry.slots() as usize],
            work: Vec::new(),
        }
    }

    /// A replica is made here for an owner, whose slots hold nothing.
    pub fn make(&mut self, by: Ownership) -> Turn {
        self.is_kept = true;
        self.stored = by;
        self.decisions = Decisions::new(SEGMENT, self.incarnation(), by);
        self.decisions.turn
    }

    /// What stands in the slots of a former replica stands in these, as no image.
    pub fn begin_with(&mut self, former: &Self) {
        self.slots = former.slots.clone();
        self.slots.iter_mut().for_each(|slot| Arc::make_mut(slot)[..SLOT_HEAD].fill(0));
    }

    /// The memory is gone: its node restarted without it, or gave it back.
    pub fn lose_memory(&mut self, geometry: &Geometry) {
        *self = Self::none(self.index, self.life + 1, geometry);
    }

    /// Whether it is to be forgotten.
    pub fn is_covered(&self, forgettable: &Forgettable) -> Result<bool, Refused> {
        if self.is_kept { forgettable.covers(self.member(), &self.decisions) } else { Ok(false) }
    }

    /// Whoever owned it last, as far as it knows.
    pub fn remembered(&self) -> Ownership {
        self.decisions.remembered
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
        let decisions = self.decisions;
        self.work.retain(|work| decisions.allows(work.turn));
        Ok(granted)
    }

    /// The daemon restarts; its memory stays.
    pub fn restart(&mut self) {
        self.decisions = Decisions::new(SEGMENT, self.incarnation(), self.stored);
        self.work.clear();
    }

    /// Turns are told apart, not counted: worlds that differ in nothing else are one.
    pub fn forget_past_turns(&mut self) {
        if self.work.iter().all(|work| work.turn == self.decisions.turn) {
            self.work.iter_mut().for_each(|work| work.turn = Turn::default());
            self.decisions.turn = Turn::default();
        }
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

    /// Closes a slot with this header.
    pub fn close(&mut self, geometry: &Geometry, slot: u32, header: &SlotHeader) {
        let at = geometry.slot(slot) as usize;
        self.mark(geometry, slot, Mark { image: header.image, former: None, is_closed: true });
        self.write(geometry, at + header::OFFSET, header.encode(key()).as_slice());
    }

    pub fn mark(&mut self, geometry: &Geometry, slot: u32, mark: Mark) {
        self.write(geometry, geometry.slot(slot) as usize, &mark.encode(key()));
    }

    pub fn put_entries(&mut self, geometry: &Geometry, slot: u32, first: u32, entries: &[Entry]) {
        let at = geometry.slot(slot) + geometry.entry_in_slot(first);
        self.write(geometry, at as usize, entries.as_bytes());
    }

    pub fn put_blocks(&mut self, geometry: &Geometry, slot: u32, first: u32, blocks: &[u8]) {
        let at = geometry.slot(slot) + geometry.block_in_slot(first);
        self.write(geometry, at as usize, blocks);
    }
}
