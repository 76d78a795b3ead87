//! What has arrived of a source's slot: verified, and put into every slot of the new replica.

use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};
use segstore_core::id::Stamp;
use segstore_core::layout::{BlockIndex, Entry, Geometry, Key};
use segstore_core::repair::Repair;
use segstore_core::replica::Turn;
use segstore_transport::{Error as TransportError, ErrorKind, Region};

use super::Source;
use crate::replicas::error::ReplicaError;
use crate::replicas::hosted::Hosted;

/// The most threads that verify and store. A file takes one write at a time: a further thread verifies meanwhile, and no more is of use.
const WRITERS: usize = 2;
/// Bytes of the target's own blocks that are looked at together, at least a block.
const OWN_PIECE: usize = 1 << 20;
/// Bytes of a row of the block table.
pub(super) const ROW: usize = size_of::<Entry>();

/// A piece that has arrived: stretches of blocks.
pub(super) struct Piece {
    /// Their first blocks, and how many each has.
    pub(super) stretches: Vec<(BlockIndex, u32)>,
    /// How many slots it goes to.
    pub(super) slots: u32,
    /// What the copy is at least.
    pub(super) base: Stamp,
    pub(super) buffer: Region,
}

/// How many blocks these stretches have together.
pub(super) fn blocks_of(stretches: &[(BlockIndex, u32)]) -> u32 {
    stretches.iter().map(|(_, count)| count).sum()
}

/// Where what belongs to a piece stands in its buffer: room for blocks, for their rows as they were before the blocks, and as they were after.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    block_size: usize,
    room: u32,
}

impl Layout {
    /// Of pieces of so many blocks, or of all that a segment of this shape has.
    fn new(geometry: &Geometry, blocks: u32) -> Self {
        Self { block_size: geometry.block_size() as usize, room: blocks.min(geometry.blocks()) }
    }

    /// How many blocks it has room for.
    pub(super) fn room(&self) -> u32 {
        self.room
    }

    pub(super) fn bytes(&self) -> usize {
        self.rows_after(self.room)
    }

    /// Bytes of so many blocks, behind which the next one stands.
    pub(super) fn blocks(&self, count: u32) -> usize {
        count as usize * self.block_size
    }

    pub(super) fn rows_before(&self, block: u32) -> usize {
        self.blocks(self.room) + block as usize * ROW
    }

    pub(super) fn rows_after(&self, block: u32) -> usize {
        self.rows_before(self.room) + block as usize * ROW
    }
}

/// Where pieces go.
pub(super) struct Store<'r> {
    target: &'r Hosted,
    turn: Turn,
    source: Source,
    layout: Layout,
    key: Key,
    is_fuzzy: AtomicBool,
}

/// The threads that store, as whoever reads sees them.
pub(super) struct Writers {
    to_store: Sender<Piece>,
    stored: Receiver<Result<Region, ReplicaError>>,
}

/// Runs `work` beside threads that store what it gives them. They have ended when this returns.
pub(super) fn with_writers<T>(
    store: &Store<'_>,
    work: impl FnOnce(Writers) -> Result<T, ReplicaError>,
) -> Result<T, ReplicaError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (to_store, arrived) = unbounded::<Piece>();
    let (done, stored) = unbounded();
    std::thread::scope(|scope| {
        for _ in 0..WRITERS.min(cores.saturating_sub(1)).max(1) {
            let (arrived, done) = (arrived.clone(), done.clone());
            let writer = std::thread::Builder::new().name("segstored-fill".into());
            let started = writer.spawn_scoped(scope, move || {
                let mut bytes = Vec::new();
                for piece in arrived {
                    let result = store.store(&piece, &mut bytes).map(|()| piece.buffer);
                    // Nobody waits for it where the repair has ended.
                    let _ = done.send(result);
                }
            });
            started.map_err(|error| {
                let error = TransportError::operation(ErrorKind::Exhausted, error.to_string());
                ReplicaError::transport("starting a thread that fills a replica")(error)
            })?;
        }
        drop((arrived, done));
        work(Writers { to_store, stored })
    })
}

impl Writers {
    /// Has a piece stored.
    pub(super) fn give(&self, piece: Piece) {
        // Where no thread takes it, none gives it back, which is seen there.
        let _ = self.to_store.send(piece);
    }

    /// Whether one was given back, without waiting.
    pub(super) fn poll(&self) -> Option<Result<Region, ReplicaError>> {
        self.stored.try_recv().ok()
    }

    /// Waits for the buffer of a piece that was stored.
    pub(super) fn wait(&self) -> Result<Region, ReplicaError> {
        // None is left only after a panic, which goes on where they are joined.
        self.stored.recv().map_err(|_| ReplicaError::Ended)?
    }
}

impl<'r> Store<'r> {
    /// For pieces of at most so many blocks.
    pub(super) fn new(target: &'r Hosted, turn: Turn, source: &Source, chunk: u32) -> Self {
        let (layout, key) = (Layout::new(&source.geometry, chunk), Key::of(source.segment));
        Self { target, turn, source: *source, layout, key, is_fuzzy: AtomicBool::new(false) }
    }

    /// Of its pieces.
    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// Whether every block that was stored is what its row says.
    pub(super) fn is_exact(&self) -> bool {
        !self.is_fuzzy.load(Ordering::Acquire)
    }

    /// Everything is stored, and what was modified at the source meanwhile is copied now: so is every block that is not what its row says.
    pub(super) fn begin_again(&self) {
        self.is_fuzzy.store(false, Ordering::Release);
    }

    /// Blocks first, then their entries, into every slot.
    fn store(&self, piece: &Piece, bytes: &mut Vec<u8>) -> Result<(), ReplicaError> {
        let (geometry, layout) = (&self.source.geometry, self.layout);
        let count = blocks_of(&piece.stretches);
        let (blocks, rows) = (layout.blocks(count), count as usize * ROW);
        bytes.resize(blocks + 2 * rows, 0);
        let (blocks, both) = bytes.split_at_mut(blocks);
        let (before, after) = both.split_at_mut(rows);
        let parts = [(0, &mut *blocks), (layout.rows_before(0), &mut *before), (layout.rows_after(0), &mut *after)];
        for (at, part) in parts {
            piece.buffer.memory().read_at(at, part).map_err(ReplicaError::transport("reading what has arrived"))?;
        }
        self.check(piece, blocks, Entry::rows(before), Entry::rows(after))?;
        self.target.change(self.turn, |files| {
            for slot in 0..piece.slots {
                let (mut blocks, mut rows) = (&*blocks, &*before);
                for (first, count) in &piece.stretches {
                    let (these, others) = blocks.split_at(layout.blocks(*count));
                    let (their_rows, other_rows) = rows.split_at(*count as usize * ROW);
                    files.write(slot, geometry.block_in_slot(*first), these)?;
                    files.write(slot, geometry.entry_in_slot(*first), their_rows)?;
                    (blocks, rows) = (others, other_rows);
                }
            }
            Ok(())
        })
    }

    /// Of the blocks whose rows at the source are these: whether one is to be copied, since not every slot has it as it should be.
    pub(super) fn lacking(
        &self,
        repair: &Repair,
        first: BlockIndex,
        rows: &[Entry],
    ) -> Result<Vec<bool>, ReplicaError> {
        let geometry = &self.source.geometry;
        let block_size = geometry.block_size() as usize;
        let piece = (OWN_PIECE / block_size).max(1);
        let (mut own_rows, mut blocks) = (vec![0; piece * ROW], vec![0; piece * block_size]);
        let mut are_lacking = vec![false; rows.len()];
        for slot in 0..geometry.slots() {
            let pieces = (first..).step_by(piece).zip(rows.chunks(piece).zip(are_lacking.chunks_mut(piece)));
            for (first, (rows, are_lacking)) in pieces {
                let own_rows = &mut own_rows[..rows.len() * ROW];
                self.target.with_files(|files| files.read(slot, geometry.entry_in_slot(first), own_rows))?;
                for ((row, own), is_lacking) in rows.iter().zip(Entry::rows(own_rows)).zip(are_lacking.iter_mut()) {
                    *is_lacking |= !repair.keeps(row, own);
                }
                if are_lacking.iter().all(|is_lacking| *is_lacking) {
                    continue; // Whatever stands there.
                }
                let blocks = &mut blocks[..rows.len() * block_size];
                self.target.with_files(|files| files.read(slot, geometry.block_in_slot(first), blocks))?;
                for (index, ((row, block), is_lacking)) in
                    (first..).zip(rows.iter().zip(blocks.chunks_exact(block_size)).zip(are_lacking))
                {
                    *is_lacking = *is_lacking || !row.describes(self.key, index, block);
                }
            }
        }
        Ok(are_lacking)
    }

    /// Checks blocks that were read between two readings of their rows. A block that the owner was writing meanwhile matches neither
    /// row, and comes again with its next push. But a push writes the row first: where it still stands as it was, nobody was writing.
    fn check(&self, piece: &Piece, blocks: &[u8], before: &[Entry], after: &[Entry]) -> Result<(), ReplicaError> {
        let blocks = blocks.chunks_exact(self.source.geometry.block_size() as usize);
        let indexes = piece.stretches.iter().flat_map(|(first, count)| *first..first + count);
        for (index, ((row, later), block)) in indexes.zip(before.iter().zip(after).zip(blocks)) {
            if row.describes(self.key, index, block) {
                continue;
            }
            if row == later && row.modified() <= piece.base.epoch {
                return Err(ReplicaError::SourceDamaged { slot: self.source.slot, block: index });
            }
            self.is_fuzzy.store(true, Ordering::Release);
        }
        Ok(())
    }
}
