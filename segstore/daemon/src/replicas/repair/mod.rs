//! Filling a replica from another: core's [`Repair`] over an endpoint that reads the source.

use std::time::{Duration, Instant};

use segstore_core::id::{Member, SegmentId, Stamp};
use segstore_core::layout::geometry::SLOT_HEAD;
use segstore_core::layout::{Entry, Geometry, Key, SlotHeader};
use segstore_core::repair::{Repair, Step};
use segstore_core::replica::Turn;
use segstore_core::slot::{SlotView, verify_table};
use segstore_transport::{
    Domain, Endpoint, Error as TransportError, ErrorKind, Memory, Operation, Post, Region, Rights, Wait,
};
use zerocopy::IntoBytes;

use super::error::ReplicaError;
use super::hosted::Hosted;
use super::pace::Pace;

/// Bytes of one piece, at least a block.
const PIECE: u64 = 4 << 20;
/// Bytes of one read within a piece.
const READ: usize = 1 << 20;
/// How long a source may be silent: one whose daemon hangs breaks no connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a replica is filled from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    /// Whose it is.
    pub segment: SegmentId,
    /// The shape of both.
    pub geometry: Geometry,
    /// The slot to copy.
    pub slot: u32,
    /// The image that it holds.
    pub base: Stamp,
}

/// A replica that was filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Filled {
    /// Which.
    pub member: Member,
    /// Every slot holds this image or what follows it.
    pub base: Stamp,
    /// The slot that is exactly that image, closed.
    pub closed: Option<u32>,
}

/// Reads of the source's slot, through a buffer.
struct Reader {
    endpoint: Endpoint,
    buffer: Region,
    slot: u64,
}

pub(super) fn fill(
    target: &Hosted,
    domain: &Domain,
    endpoint: Endpoint,
    source: &Source,
    turn: Turn,
    pace: &Pace,
) -> Result<Filled, ReplicaError> {
    let geometry = source.geometry;
    let chunk = u32::try_from((PIECE / u64::from(geometry.block_size())).max(1)).unwrap_or(u32::MAX);
    let mut reader = Reader::new(domain, endpoint, source, chunk)?;
    let mut repair = Repair::new(geometry, source.base, chunk);
    let (mut entries, mut blocks, mut closed) = (Vec::new(), Vec::new(), None);
    loop {
        // It may be over before anything is written.
        target.change(turn, |_| Ok(()))?;
        match repair.step() {
            Step::ReadHead => {
                let head = reader.head(source)?;
                repair.source_head(head);
                continue;
            }
            Step::ReadEntries { first, count } => {
                entries.resize(count as usize * size_of::<Entry>(), 0);
                reader.read(geometry.entry_in_slot(first), &mut entries)?;
            }
            Step::ReadBlocks { first, count } => {
                blocks.resize(count as usize * geometry.block_size() as usize, 0);
                std::thread::sleep(pace.take(blocks.len() as u64, Instant::now()));
                reader.read(geometry.block_in_slot(first), &mut blocks)?;
                reader.check_blocks(source, repair.base(), first, &entries, &blocks)?;
            }
            Step::Store { first, slots, .. } => {
                store(target, turn, &geometry, first, slots, &blocks, &entries)?;
                target.report_progress(Some(repair.progress()));
            }
            Step::Close(header) => closed = close(target, turn, &geometry, &header)?,
            Step::Finished => return Ok(Filled { member: target.member, base: repair.base(), closed }),
            Step::SourceChanged => return Err(ReplicaError::SourceChanged(source.base)),
        }
        repair.advance();
    }
}

/// Blocks first, then their entries, into every slot.
fn store(
    target: &Hosted,
    turn: Turn,
    geometry: &Geometry,
    first: u32,
    slots: u32,
    blocks: &[u8],
    entries: &[u8],
) -> Result<(), ReplicaError> {
    target.change(turn, |files| {
        for slot in 0..slots {
            files.write(slot, geometry.block_in_slot(first), blocks)?;
            files.write(slot, geometry.entry_in_slot(first), entries)?;
        }
        Ok(())
    })
}

/// Closes slot 0 with `header`, if that is what stands there.
fn close(target: &Hosted, turn: Turn, geometry: &Geometry, header: &SlotHeader) -> Result<Option<u32>, ReplicaError> {
    let entries = target.with_files(|files| files.table(0, header))?;
    if verify_table(header, &entries).is_err() {
        return Ok(None);
    }
    let mut block = vec![0; geometry.block_size() as usize];
    let key = Key::of(header.segment);
    for (index, entry) in (0..).zip(&entries) {
        target.with_files(|files| files.read(0, geometry.block_in_slot(index), &mut block))?;
        if !entry.describes(key, index, &block) {
            return Ok(None);
        }
    }
    target.change(turn, |files| files.close_slot(0, header))?;
    Ok(Some(0))
}

impl Reader {
    fn new(domain: &Domain, endpoint: Endpoint, source: &Source, chunk: u32) -> Result<Self, ReplicaError> {
        let geometry = source.geometry;
        let bytes = (chunk as usize * geometry.block_size() as usize).max(SLOT_HEAD);
        let memory = Memory::anonymous(bytes).map_err(ReplicaError::transport("mapping a buffer"))?;
        let buffer =
            domain.register(&memory, Rights::LOCAL).map_err(ReplicaError::transport("registering a buffer"))?;
        Ok(Self { endpoint, buffer, slot: geometry.slot(source.slot) - geometry.slot(0) })
    }

    fn head(&mut self, source: &Source) -> Result<SlotView, ReplicaError> {
        let mut head = [0; SLOT_HEAD];
        self.read(0, head.as_mut_bytes())?;
        Ok(SlotView::parse(source.segment, &source.geometry, &head))
    }

    /// Checks blocks that were read against the rows that were read before. A block that the owner was writing meanwhile matches neither
    /// row, and comes again with its next push. But a push writes the row first: where it still stands as it was, nobody was writing.
    fn check_blocks(
        &mut self,
        source: &Source,
        base: Stamp,
        first: u32,
        rows: &[u8],
        blocks: &[u8],
    ) -> Result<(), ReplicaError> {
        let (geometry, key, before) = (source.geometry, Key::of(source.segment), Entry::rows(rows));
        let blocks = blocks.chunks_exact(geometry.block_size() as usize);
        let is_wrong = |index: u32, row: &Entry, block: &[u8]| {
            row.modified() <= base.epoch && !row.describes(key, first + index, block)
        };
        let read = (0..).zip(before.iter().zip(blocks));
        let wrong: Vec<u32> =
            read.filter(|(index, (row, block))| is_wrong(*index, row, block)).map(|(index, _)| index).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        let mut now = vec![0; rows.len()];
        self.read(geometry.entry_in_slot(first), &mut now)?;
        let now = Entry::rows(&now);
        match wrong.into_iter().find(|&index| now[index as usize] == before[index as usize]) {
            Some(index) => Err(ReplicaError::SourceDamaged { slot: source.slot, block: first + index }),
            None => Ok(()),
        }
    }

    /// Reads from the slot, several reads in flight.
    fn read(&mut self, at: u64, bytes: &mut [u8]) -> Result<(), ReplicaError> {
        let lost = ReplicaError::transport("reading the source of a repair");
        let (length, mut posted) = (bytes.len(), 0);
        let mut waiting = 0;
        while posted < length || waiting > 0 {
            if posted < length {
                let part = READ.min(length - posted);
                let to = self.buffer.slice(posted, part).map_err(&lost)?;
                match self.endpoint.post(&[Operation::read(to, 0, self.slot + at + posted as u64)], 0) {
                    Ok(()) => {
                        posted += part;
                        waiting += 1;
                        continue;
                    }
                    Err(Post::WouldBlock) => {}
                    Err(Post::Failed(error)) => return Err(lost(error)),
                }
            }
            match self.endpoint.wait(Wait::default(), Some(Instant::now() + PATIENCE)) {
                Some(completion) => completion.result.map_err(&lost)?,
                None => {
                    self.endpoint.abort();
                    let text = format!("nothing has come for {} s", PATIENCE.as_secs());
                    return Err(lost(TransportError::endpoint(ErrorKind::TimedOut, text)));
                }
            }
            waiting -= 1;
        }
        self.buffer.memory().read_at(0, bytes).map_err(&lost)
    }
}
