//! Loads an image: its block table, then its blocks, straight into working memory, verified.
//!
//! Pieces of the image are pulled with several reads in flight; while one arrives, the one before is verified. A block that does not
//! match is asked of the next copy.

use std::collections::VecDeque;
use std::ops::Range;

use segstore_core::changes::Changes;
use segstore_core::id::{Epoch, Member, SegmentId};
use segstore_core::layout::{BlockIndex, Entry, Geometry, Key, SlotHeader};
use segstore_core::slot::{Damage, verify_table};
use segstore_core::takeover::Unusable;
use segstore_transport::{Endpoint, Error as TransportError, Memory, Operation, Post, Region, Wait};
use zerocopy::FromBytes;

use crate::control::message::Place;
use crate::error::{Error, Result};
use crate::session::Inner as Session;
use crate::working::{Working, in_memory};

/// Bytes of one read, at least a block.
const PIECE: u64 = 1 << 20;
/// Bytes of a row of the block table.
const ROW: usize = size_of::<Entry>();
/// Reads in flight.
const WINDOW: usize = 4;

/// One copy of the image.
pub(crate) struct Origin {
    pub(crate) place: Place,
    pub(crate) slot: u32,
}

/// What was loaded.
pub(crate) struct Loaded {
    length: u64,
    epoch: Epoch,
    entries: Vec<Entry>,
}

impl Loaded {
    /// The owner's table after this load.
    pub(crate) fn changes(self, geometry: Geometry, segment: SegmentId) -> Changes {
        Changes::of_image(Key::of(segment), geometry, self.length, self.entries, self.epoch)
    }
}

/// Loads from the first copy that is good, block by block.
pub(crate) struct Loader<'s> {
    session: &'s Session,
    name: &'s str,
    geometry: Geometry,
    origins: VecDeque<Origin>,
    problems: Vec<(Member, Unusable)>,
}

/// A copy that can be read.
struct Source {
    member: Member,
    endpoint: Endpoint,
    working: Region,
    table: Region,
    /// Where the slot starts in what is granted.
    slot: u64,
}

impl<'s> Loader<'s> {
    pub(crate) fn new(session: &'s Session, name: &'s str, geometry: Geometry, origins: Vec<Origin>) -> Self {
        Self { session, name, geometry, origins: origins.into(), problems: Vec::new() }
    }

    /// What was wrong with copies so far.
    pub(crate) fn problems(&self) -> &[(Member, Unusable)] {
        &self.problems
    }

    pub(crate) fn into_problems(self) -> Vec<(Member, Unusable)> {
        self.problems
    }

    /// Brings the image into `working`, which holds zeros or what an earlier attempt left; `None`: no copy is good, see the problems.
    pub(crate) fn load(&mut self, header: &SlotHeader, working: &mut Working) -> Result<Option<Loaded>> {
        let table = Memory::anonymous(self.table_bytes(header).max(1));
        let table = table.map_err(|error| Error::of_transport("mapping a block table", &error))?;
        let mut entries: Option<Vec<Entry>> = None;
        let mut missing: Vec<_> = std::iter::once(0..self.geometry.blocks_of(header.length)).collect();
        while let Some(origin) = self.origins.pop_front() {
            let member = origin.place.member;
            let mut source = match self.open(&origin, working, &table) {
                Ok(source) => source,
                Err(why) => {
                    tracing::warn!(segment = self.name, "a copy cannot be read: {why}");
                    self.problems.push((member, Unusable::OutOfReach));
                    continue;
                }
            };
            match self.pull(header, &mut source, working, &mut entries, &missing) {
                Ok(bad) if bad.is_empty() => {
                    let entries = entries.unwrap_or_default();
                    clear_beyond(working, header.length);
                    return Ok(Some(Loaded { length: header.length, epoch: header.image.epoch, entries }));
                }
                Ok(bad) => {
                    self.problems.push((member, Unusable::Damaged(header.image, Damage::Blocks(bad.clone()))));
                    missing = bad.into_iter().map(|block| block..block + 1).collect();
                }
                Err(why) => self.problems.push((member, why)),
            }
        }
        Ok(None)
    }

    fn table_bytes(&self, header: &SlotHeader) -> usize {
        self.geometry.blocks_of(header.length) as usize * ROW
    }

    fn open(&self, origin: &Origin, working: &Working, table: &Memory) -> Result<Source> {
        let session = self.session;
        let dialled = session.domains.dial(&session.channel, self.name, &origin.place, None);
        let (provider, endpoint) = dialled.map_err(|error| Error::Unreachable(error.to_string()))?;
        Ok(Source {
            member: origin.place.member,
            endpoint,
            working: session.domains.register(provider, working.memory())?,
            table: session.domains.register(provider, table)?,
            slot: self.geometry.slot(origin.slot) - self.geometry.slot(0),
        })
    }

    /// Pulls the `missing` blocks; gives those that do not match.
    fn pull(
        &self,
        header: &SlotHeader,
        source: &mut Source,
        working: &Working,
        entries: &mut Option<Vec<Entry>>,
        missing: &[Range<BlockIndex>],
    ) -> std::result::Result<Vec<BlockIndex>, Unusable> {
        if entries.is_none() {
            let table =
                source.pull_table(self.table_bytes(header), &self.geometry).map_err(|error| self.lost(&error))?;
            verify_table(header, &table).map_err(|damage| Unusable::Damaged(header.image, damage))?;
            *entries = Some(table);
        }
        let table = entries.as_deref().unwrap_or_default();
        let key = Key::of(header.segment);
        let mut bad = Vec::new();
        let mut check = |blocks: Range<BlockIndex>| {
            bad.extend(blocks.filter(|&i| !table[i as usize].describes(key, i, working.block(i))));
        };
        source.pull_blocks(&self.geometry, missing, &mut check).map_err(|error| self.lost(&error))?;
        Ok(bad)
    }

    fn lost(&self, error: &TransportError) -> Unusable {
        tracing::warn!(segment = self.name, "the copy that was being read is out of reach: {error}");
        Unusable::OutOfReach
    }
}

impl Source {
    fn pull_table(&mut self, bytes: usize, geometry: &Geometry) -> std::result::Result<Vec<Entry>, TransportError> {
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let from = self.slot + geometry.entry_in_slot(0);
        let read = Operation::read(self.table.slice(0, bytes)?, 0, from);
        post(&mut self.endpoint, &read, 0)?;
        complete(&mut self.endpoint)?;
        let mut raw = vec![0; bytes];
        self.table.memory().read_at(0, &mut raw)?;
        let entries = raw.chunks_exact(ROW).filter_map(|row| Entry::read_from_bytes(row).ok());
        Ok(entries.collect())
    }

    fn pull_blocks(
        &mut self,
        geometry: &Geometry,
        missing: &[Range<BlockIndex>],
        check: &mut impl FnMut(Range<BlockIndex>),
    ) -> std::result::Result<(), TransportError> {
        let step = u32::try_from((PIECE / u64::from(geometry.block_size())).max(1)).unwrap_or(u32::MAX);
        let pieces = missing.iter().flat_map(|range| {
            let end = range.end;
            range.clone().step_by(step as usize).map(move |first| first..end.min(first.saturating_add(step)))
        });
        let mut in_flight = VecDeque::with_capacity(WINDOW);
        for piece in pieces {
            if in_flight.len() == WINDOW {
                complete(&mut self.endpoint)?;
                in_flight.pop_front().into_iter().for_each(&mut *check);
            }
            let (first, count) = (piece.start, piece.end - piece.start);
            let length = count as usize * geometry.block_size() as usize;
            let offset = in_memory(geometry.block_in_segment(first));
            let from = self.slot + geometry.block_in_slot(first);
            let read = Operation::read(self.working.slice(offset, length)?, 0, from);
            post(&mut self.endpoint, &read, u64::from(first))?;
            in_flight.push_back(piece);
        }
        for piece in in_flight {
            complete(&mut self.endpoint)?;
            check(piece);
        }
        tracing::trace!(member = %self.member, "blocks pulled");
        Ok(())
    }
}

/// Posts one operation, making room first if there is none.
fn post(endpoint: &mut Endpoint, operation: &Operation<'_>, id: u64) -> std::result::Result<(), TransportError> {
    match endpoint.post(std::slice::from_ref(operation), id) {
        Ok(()) => Ok(()),
        Err(Post::Failed(error)) => Err(error),
        Err(Post::WouldBlock) => Err(TransportError::operation(
            segstore_transport::ErrorKind::Exhausted,
            format!("the endpoint takes fewer than {WINDOW} reads at once"),
        )),
    }
}

fn complete(endpoint: &mut Endpoint) -> std::result::Result<(), TransportError> {
    endpoint.wait(Wait::default(), None).map_or(Ok(()), |completion| completion.result)
}

/// The rest of the last block is the application's to grow into: zeros.
fn clear_beyond(working: &mut Working, length: u64) {
    let length = in_memory(length);
    let block = working.block(0).len();
    let bytes = working.bytes_mut();
    let end = length.next_multiple_of(block).min(bytes.len());
    bytes[length..end].fill(0);
}
