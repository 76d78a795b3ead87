//! One copy of an image that can be read: its head, its block table, its blocks.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use segstore_core::id::{NodeId, SegmentId};
use segstore_core::layout::geometry::SLOT_HEAD;
use segstore_core::layout::{BlockIndex, Entry, Geometry, SlotHeader};
use segstore_core::slot::SlotView;
use segstore_transport::{Endpoint, Error as TransportError, ErrorKind, Memory, Operation, Post, Region, Wait};

use crate::control::message::Place;
use crate::domains::{Destination, Dialled, PATIENCE};
use crate::error::{Error, Result};
use crate::session::Inner as Session;
use crate::way::{Distrusted, Way};
use crate::working::{Working, in_memory};

/// Bytes of one read, at least a block.
const PIECE: u64 = 1 << 20;
/// Reads in flight.
const WINDOW: usize = 4;
/// Bytes of a replica that is large.
const LARGE: usize = 16 << 20;
/// Bytes of a row of the block table.
const ROW: usize = size_of::<Entry>();
/// Rows that are looked at together.
const ROWS: usize = 256;

/// A slot of a replica, over an endpoint that reads.
pub(crate) struct Source {
    endpoint: Endpoint,
    way: Way,
    node: NodeId,
    distrusted: Arc<Distrusted>,
    working: Region,
    /// For the table, and for a head: at least [`SLOT_HEAD`] bytes.
    scratch: Region,
    /// Where the slot starts in what is granted.
    slot: u64,
    pulled: Arc<AtomicU64>,
}

/// Memory for the largest table of this shape, and for a head.
pub(crate) fn scratch(geometry: &Geometry) -> Result<Memory> {
    let memory = Memory::local((geometry.blocks() as usize * ROW).max(SLOT_HEAD));
    memory.map_err(|error| Error::of_transport("mapping memory for a block table", &error))
}

impl Source {
    /// Connects to the replica; blocks will go to `working`.
    pub(crate) fn open(
        session: &Session,
        name: &str,
        geometry: &Geometry,
        place: &Place,
        slot: u32,
        working: &Working,
        scratch: &Memory,
    ) -> Result<Self> {
        let to = Destination { channel: &session.channel, name, place, writer: None, limit: PATIENCE };
        let dialled = session.domains.dial(&to, [working.memory(), scratch]);
        let Dialled { way, endpoint, regions: [working, scratch], .. } =
            dialled.map_err(|error| Error::Unreachable(error.to_string()))?;
        let (node, distrusted) = (place.member.node, session.domains.distrusted.clone());
        let pulled = session.pulled.clone();
        let mut source = Self { endpoint, way, node, distrusted, working, scratch, slot: 0, pulled };
        source.choose(geometry, slot);
        Ok(source)
    }

    /// Reads another slot of the replica from here on.
    pub(crate) fn choose(&mut self, geometry: &Geometry, slot: u32) {
        self.slot = geometry.slot(slot) - geometry.slot(0);
    }

    pub(crate) fn pull_head(
        &mut self,
        geometry: &Geometry,
        segment: SegmentId,
    ) -> std::result::Result<SlotView, TransportError> {
        let mut head = [0; SLOT_HEAD];
        self.pull_scratch(0, SLOT_HEAD)?;
        self.scratch.memory().read_at(0, &mut head)?;
        Ok(SlotView::parse(segment, geometry, &head))
    }

    pub(crate) fn pull_table(
        &mut self,
        geometry: &Geometry,
        header: &SlotHeader,
    ) -> std::result::Result<Vec<Entry>, TransportError> {
        let mut table = Vec::with_capacity(geometry.blocks_of(header.length) as usize);
        self.pull_rows(geometry, header, |rows| table.extend_from_slice(rows))?;
        Ok(table)
    }

    /// Pulls the image's block table, and has its rows looked at, some at a time. Fresh memory would cost more than all the rest, so none
    /// is taken for it.
    pub(crate) fn pull_rows(
        &mut self,
        geometry: &Geometry,
        header: &SlotHeader,
        mut look: impl FnMut(&[Entry]),
    ) -> std::result::Result<(), TransportError> {
        let bytes = geometry.blocks_of(header.length) as usize * ROW;
        self.pull_scratch(geometry.entry_in_slot(0), bytes)?;
        let mut piece = [0; ROWS * ROW];
        for at in (0..bytes).step_by(piece.len()) {
            let piece = &mut piece[..(bytes - at).min(ROWS * ROW)];
            self.scratch.memory().read_at(at, piece)?;
            look(Entry::rows(piece));
        }
        Ok(())
    }

    /// Pulls so many bytes of the slot into the scratch memory.
    fn pull_scratch(&mut self, from: u64, bytes: usize) -> std::result::Result<(), TransportError> {
        if bytes == 0 {
            return Ok(());
        }
        let read = Operation::read(self.scratch.slice(0, bytes)?, 0, self.slot + from);
        post(&mut self.endpoint, &read)?;
        self.complete()
    }

    /// Pulls these blocks, several reads in flight; `check` is called for blocks that have arrived.
    pub(crate) fn pull_blocks(
        &mut self,
        geometry: &Geometry,
        missing: &[Range<BlockIndex>],
        check: &mut impl FnMut(Range<BlockIndex>),
    ) -> std::result::Result<(), TransportError> {
        let (pulled, block) = (self.pulled.clone(), u64::from(geometry.block_size()));
        let mut check = |blocks: Range<BlockIndex>| {
            pulled.fetch_add(u64::from(blocks.end - blocks.start) * block, Ordering::Relaxed);
            check(blocks);
        };
        let mut in_flight = VecDeque::with_capacity(WINDOW);
        for piece in pieces(geometry, missing) {
            if in_flight.len() == WINDOW {
                self.complete()?;
                in_flight.pop_front().into_iter().for_each(&mut check);
            }
            let (first, count) = (piece.start, piece.end - piece.start);
            let length = count as usize * geometry.block_size() as usize;
            let to = self.working.slice(in_memory(geometry.block_in_segment(first)), length)?;
            post(&mut self.endpoint, &Operation::read(to, 0, self.slot + geometry.block_in_slot(first)))?;
            in_flight.push_back(piece);
        }
        for piece in in_flight {
            self.complete()?;
            check(piece);
        }
        Ok(())
    }

    /// Where the replica is.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Ends it. To unmap what was read of a large replica takes as long as reading a part of it: nobody waits for that.
    pub(crate) fn let_go(self, bytes: usize) {
        if bytes >= LARGE {
            // Where no thread can be started it is dropped here.
            let _ = std::thread::Builder::new().name("segstore-unmap".into()).spawn(move || drop(self));
        }
    }

    /// Waits for the oldest read in flight. Where it does not come, the next attempt takes another way.
    fn complete(&mut self) -> std::result::Result<(), TransportError> {
        let done = complete(&mut self.endpoint);
        let is_lost = |error: &TransportError| matches!(error.kind(), ErrorKind::PeerGone | ErrorKind::TimedOut);
        if done.as_ref().is_err_and(is_lost) {
            self.distrusted.add(self.node, self.way);
        }
        done
    }
}

/// The blocks in pieces, as they are read.
pub(crate) fn pieces<'m>(
    geometry: &Geometry,
    missing: &'m [Range<BlockIndex>],
) -> impl Iterator<Item = Range<BlockIndex>> + 'm {
    let step = u32::try_from((PIECE / u64::from(geometry.block_size())).max(1)).unwrap_or(u32::MAX);
    missing.iter().flat_map(move |range| {
        let end = range.end;
        range.clone().step_by(step as usize).map(move |first| first..end.min(first.saturating_add(step)))
    })
}

fn post(endpoint: &mut Endpoint, operation: &Operation<'_>) -> std::result::Result<(), TransportError> {
    match endpoint.post(std::slice::from_ref(operation), 0) {
        Ok(()) => Ok(()),
        Err(Post::Failed(error)) => Err(error),
        Err(Post::WouldBlock) => {
            let text = format!("the endpoint takes fewer than {WINDOW} reads at once");
            Err(TransportError::operation(ErrorKind::Exhausted, text))
        }
    }
}

/// A node that hangs breaks no connection: it counts as lost when nothing has come for so long.
fn complete(endpoint: &mut Endpoint) -> std::result::Result<(), TransportError> {
    match endpoint.wait(Wait::default(), Some(Instant::now() + PATIENCE)) {
        Some(completion) => completion.result,
        None => {
            endpoint.abort();
            let text = format!("nothing of the copy has come for {} s", PATIENCE.as_secs());
            Err(TransportError::endpoint(ErrorKind::TimedOut, text))
        }
    }
}
