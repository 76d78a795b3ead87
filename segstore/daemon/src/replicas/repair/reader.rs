//! Reads of the source's slot, some pieces in flight.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use segstore_core::id::Stamp;
use segstore_core::layout::geometry::{MIN_BLOCK, SLOT_HEAD};
use segstore_core::layout::{BlockIndex, Entry};
use segstore_core::repair::COMPARED;
use segstore_core::slot::SlotView;
use segstore_transport::{
    Domain, Endpoint, Error as TransportError, ErrorKind, Memory, Operation, Post, Region, Rights, Wait,
};

use super::Source;
use super::store::{Layout, Piece, ROW, Writers, blocks_of};
use crate::replicas::error::ReplicaError;

const _: () =
    assert!(COMPARED as usize * ROW <= MIN_BLOCK as usize, "the rows that are compared at once fit into a buffer");

/// Pieces in memory at once: in flight, and waiting to be stored.
const PIECES: usize = 8;
/// Stretches of blocks in one piece: they are read by as many times three operations, which every endpoint takes at once.
const STRETCHES: usize = 16;
/// How long a source may be silent: one whose daemon hangs breaks no connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// One read.
struct Read {
    in_slot: u64,
    in_buffer: usize,
    bytes: usize,
}

pub(super) struct Reader {
    endpoint: Endpoint,
    source: Source,
    /// Where the slot starts in what is granted.
    slot: u64,
    layout: Layout,
    free: Vec<Region>,
    /// The stretches of the next piece, and their reads in their order.
    stretches: Vec<(BlockIndex, u32)>,
    planned: Vec<Read>,
    /// Where it goes, and what the copy is at least.
    slots: u32,
    base: Stamp,
    in_flight: VecDeque<Piece>,
    writers: Writers,
}

impl Reader {
    pub(super) fn new(
        domain: &Domain,
        endpoint: Endpoint,
        source: &Source,
        layout: Layout,
        writers: Writers,
    ) -> Result<Self, ReplicaError> {
        let buffer = || register(domain, layout.bytes().max(SLOT_HEAD));
        Ok(Self {
            endpoint,
            source: *source,
            slot: slot(source),
            layout,
            free: (0..PIECES).map(|_| buffer()).collect::<Result<_, _>>()?,
            stretches: Vec::new(),
            planned: Vec::new(),
            slots: 0,
            base: source.base,
            in_flight: VecDeque::new(),
            writers,
        })
    }

    /// Reads the head of the slot, after everything that was posted before.
    pub(super) fn head(&mut self) -> Result<SlotView, ReplicaError> {
        let buffer = self.buffer_alone()?;
        let view = head(&mut self.endpoint, &buffer, &self.source)?;
        self.free.push(buffer);
        Ok(view)
    }

    /// Reads rows of the table, after everything that was posted before.
    pub(super) fn rows(&mut self, first: BlockIndex, count: u32) -> Result<Vec<Entry>, ReplicaError> {
        let (buffer, mut rows) = (self.buffer_alone()?, vec![0; count as usize * ROW]);
        read_now(&mut self.endpoint, &buffer, self.slot + self.source.geometry.entry_in_slot(first), &mut rows)?;
        self.free.push(buffer);
        Ok(Entry::rows(&rows).to_vec())
    }

    /// A buffer, with nothing in flight.
    fn buffer_alone(&mut self) -> Result<Region, ReplicaError> {
        self.post()?;
        let buffer = self.buffer()?;
        while !self.in_flight.is_empty() {
            self.complete()?;
        }
        Ok(buffer)
    }

    /// Of the next stretch the rows are read now, before or after its blocks.
    pub(super) fn plan_rows(&mut self, first: BlockIndex, count: u32) -> Result<(), ReplicaError> {
        let at = self.begin(count)?;
        self.plan_rows_to(self.layout.rows_before(at), first, count);
        Ok(())
    }

    /// Of the next stretch the blocks are read now.
    pub(super) fn plan_blocks(&mut self, first: BlockIndex, count: u32) -> Result<(), ReplicaError> {
        let at = self.begin(count)?;
        let (in_slot, bytes) = (self.source.geometry.block_in_slot(first), self.layout.blocks(count));
        self.planned.push(Read { in_slot, in_buffer: self.layout.blocks(at), bytes });
        Ok(())
    }

    /// Its rows are read again, and it is stored in so many slots when all of it has arrived.
    pub(super) fn plan_store(
        &mut self,
        first: BlockIndex,
        count: u32,
        slots: u32,
        base: Stamp,
    ) -> Result<(), ReplicaError> {
        let at = self.begin(count)?;
        self.plan_rows_to(self.layout.rows_after(at), first, count);
        self.stretches.push((first, count));
        (self.slots, self.base) = (slots, base);
        if at + count >= self.layout.room() || self.stretches.len() == STRETCHES {
            self.post()?;
        }
        Ok(())
    }

    fn plan_rows_to(&mut self, in_buffer: usize, first: BlockIndex, count: u32) {
        let (in_slot, bytes) = (self.source.geometry.entry_in_slot(first), count as usize * ROW);
        self.planned.push(Read { in_slot, in_buffer, bytes });
    }

    /// Where the next stretch stands in its piece: in the one that is being planned, if there is room for so many blocks.
    fn begin(&mut self, count: u32) -> Result<u32, ReplicaError> {
        if blocks_of(&self.stretches) + count > self.layout.room() {
            self.post()?;
        }
        Ok(blocks_of(&self.stretches))
    }

    /// Reads what was planned.
    fn post(&mut self) -> Result<(), ReplicaError> {
        if !self.stretches.is_empty() {
            let buffer = self.buffer()?;
            self.send(&buffer)?;
            let (stretches, slots) = (std::mem::take(&mut self.stretches), self.slots);
            self.in_flight.push_back(Piece { stretches, slots, base: self.base, buffer });
        }
        Ok(())
    }

    /// Waits until everything is stored.
    pub(super) fn finish(&mut self) -> Result<(), ReplicaError> {
        self.post()?;
        while !self.in_flight.is_empty() {
            self.complete()?;
        }
        while self.free.len() < PIECES {
            self.free.push(self.writers.wait()?);
        }
        Ok(())
    }

    /// One that nobody uses. What has arrived goes on meanwhile.
    fn buffer(&mut self) -> Result<Region, ReplicaError> {
        loop {
            while let Some(stored) = self.writers.poll() {
                self.free.push(stored?);
            }
            match self.free.pop() {
                Some(buffer) => return Ok(buffer),
                None if self.in_flight.is_empty() => return self.writers.wait(),
                None => self.complete()?,
            }
        }
    }

    /// Waits for the oldest piece, and has it stored.
    fn complete(&mut self) -> Result<(), ReplicaError> {
        wait(&mut self.endpoint)?;
        if let Some(piece) = self.in_flight.pop_front() {
            self.writers.give(piece);
        }
        Ok(())
    }

    /// Posts the planned reads: they take effect in this order.
    fn send(&mut self, buffer: &Region) -> Result<(), ReplicaError> {
        let read =
            |read: Read| Ok(Operation::read(buffer.slice(read.in_buffer, read.bytes)?, 0, self.slot + read.in_slot));
        let batch = self.planned.drain(..).map(read).collect::<Result<Vec<_>, _>>().map_err(lost())?;
        while let Err(refused) = self.endpoint.post(&batch, 0) {
            match refused {
                Post::Failed(error) => return Err(lost()(error)),
                Post::WouldBlock => match self.in_flight.is_empty() {
                    true => return Err(lost()(full())),
                    false => self.complete()?,
                },
            }
        }
        Ok(())
    }
}

/// The head of the source's slot, read with nothing in flight.
pub(super) fn head(endpoint: &mut Endpoint, buffer: &Region, source: &Source) -> Result<SlotView, ReplicaError> {
    let mut head = [0; SLOT_HEAD];
    read_now(endpoint, buffer, slot(source), &mut head)?;
    Ok(SlotView::parse(source.segment, &source.geometry, &head))
}

/// Reads what stands at `from` in what is granted, over an endpoint on which nothing is in flight.
fn read_now(endpoint: &mut Endpoint, buffer: &Region, from: u64, bytes: &mut [u8]) -> Result<(), ReplicaError> {
    let read = Operation::read(buffer.slice(0, bytes.len()).map_err(lost())?, 0, from);
    endpoint.post(&[read], 0).map_err(|refused| match refused {
        Post::Failed(error) => lost()(error),
        Post::WouldBlock => lost()(full()),
    })?;
    wait(endpoint)?;
    buffer.memory().read_at(0, bytes).map_err(lost())
}

/// Where its slot starts in what is granted.
fn slot(source: &Source) -> u64 {
    source.geometry.slot(source.slot) - source.geometry.slot(0)
}

/// Memory to read into.
pub(super) fn register(domain: &Domain, bytes: usize) -> Result<Region, ReplicaError> {
    let memory = Memory::anonymous(bytes).map_err(ReplicaError::transport("mapping a buffer"))?;
    domain.register(&memory, Rights::LOCAL).map_err(ReplicaError::transport("registering a buffer"))
}

fn wait(endpoint: &mut Endpoint) -> Result<(), ReplicaError> {
    let Some(completion) = endpoint.wait(Wait::default(), Some(Instant::now() + PATIENCE)) else {
        endpoint.abort();
        let text = format!("nothing has come for {} s", PATIENCE.as_secs());
        return Err(lost()(TransportError::endpoint(ErrorKind::TimedOut, text)));
    };
    completion.result.map_err(lost())
}

fn lost() -> impl Fn(TransportError) -> ReplicaError {
    ReplicaError::transport("reading the source of a repair")
}

fn full() -> TransportError {
    TransportError::operation(ErrorKind::Exhausted, "the endpoint takes no read, although none is in flight")
}
