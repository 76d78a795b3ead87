//! Filling a replica from another: core's [`Repair`] over an endpoint that reads the source.
//!
//! Pieces of the slot are read, several in flight, by whoever calls [`fill`]; threads of their own verify and store what has arrived.

mod further;
mod reader;
mod store;

use std::time::{Duration, Instant};

use segstore_core::id::{Member, SegmentId, Stamp, Term};
use segstore_core::layout::geometry::SLOT_HEAD;
use segstore_core::layout::{Geometry, SlotHeader};
use segstore_core::repair::{Repair, Step};
use segstore_core::replica::Turn;
use segstore_core::slot::verify_table;
use segstore_transport::{Domain, Endpoint};

use super::error::ReplicaError;
use super::hosted::Hosted;
use super::pace::Pace;
use further::Further;
use reader::Reader;
use store::{Store, with_writers};

/// Bytes of one piece, at least a block: so few that what was read is still cached when it is verified and stored, and that an owner's push
/// does not wait for long behind it. (With a quarter of it an owner waits half as long at worst, and the repair takes half as long again.)
const PIECE: u64 = 256 << 10;

/// A slot of a busy segment is open about half of the time, for as long as a push takes: so often, and with such pauses, it is looked at.
const LOOKS: u32 = 100;
const LOOK_PAUSE: Duration = Duration::from_millis(1);

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
    /// In whose name it is copied.
    pub term: Term,
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
    /// Bytes of blocks that came from the source: the others stood in a former replica.
    pub copied: u64,
}

/// Looks at the source, before there is a target.
pub(super) fn begin(domain: &Domain, endpoint: &mut Endpoint, source: &Source) -> Result<Repair, ReplicaError> {
    let buffer = reader::register(domain, SLOT_HEAD)?;
    for _ in 0..LOOKS {
        let mut repair = Repair::new(source.geometry, source.base, chunk(&source.geometry));
        repair.source_head(reader::head(endpoint, &buffer, source)?);
        if repair.step() != Step::SourceChanged {
            return Ok(repair);
        }
        std::thread::sleep(LOOK_PAUSE);
    }
    Err(ReplicaError::SourceChanged(source.base))
}

/// Blocks of one piece.
fn chunk(geometry: &Geometry) -> u32 {
    u32::try_from((PIECE / u64::from(geometry.block_size())).max(1)).unwrap_or(u32::MAX)
}

pub(super) fn fill(
    mut repair: Repair,
    target: &Hosted,
    domain: &Domain,
    endpoint: Endpoint,
    source: &Source,
    turn: Turn,
    pace: &Pace,
) -> Result<Filled, ReplicaError> {
    let store = Store::new(target, turn, source, chunk(&source.geometry));
    let mut finished = None;
    let filled = with_writers(&store, |writers| {
        let mut reader = Reader::new(domain, endpoint, source, store.layout(), writers)?;
        let (mut closed, mut copied, mut further) = (None, 0, Further::default());
        loop {
            // It may be over before anything is written.
            target.change(turn, |_| Ok(()))?;
            match repair.step() {
                Step::ReadHead => {
                    repair.source_head(reader.head()?);
                    continue;
                }
                Step::Compare { first, count } => {
                    let rows = reader.rows(first, count)?;
                    repair.compared(&store.lacking(&repair, first, &rows)?);
                    target.report_progress(Some(repair.progress()));
                    continue;
                }
                Step::Survey { first, count } => {
                    let rows = reader.rows(first, count)?;
                    repair.compared(&rows.iter().map(|row| repair.is_newer(row)).collect::<Vec<_>>());
                    continue;
                }
                Step::ReadEntries { first, count } => reader.plan_rows(first, count)?,
                Step::ReadBlocks { first, count } => {
                    let bytes = u64::from(count) * u64::from(source.geometry.block_size());
                    copied += bytes;
                    std::thread::sleep(pace.take(bytes, Instant::now()));
                    reader.plan_blocks(first, count)?;
                }
                // Stored when it has arrived: until the end, pieces are in flight.
                Step::Store { first, count, slots } => {
                    reader.plan_store(first, count, slots, repair.base())?;
                    target.report_progress(Some(repair.progress()));
                }
                Step::Close(header) => {
                    reader.finish()?;
                    closed = (store.is_exact() && close(target, turn, &header)?).then_some(0);
                }
                Step::Finished => {
                    reader.finish()?;
                    let filled = Filled { member: target.member, base: repair.base(), closed, copied };
                    if closed.is_none() && further.is_worthwhile(filled.base, copied) {
                        finished = Some(filled);
                        store.begin_again();
                        repair.again(source.term);
                        continue;
                    }
                    return Ok(filled);
                }
                Step::SourceChanged => return Err(ReplicaError::SourceChanged(source.base)),
            }
            repair.advance();
        }
    });
    match (filled, finished) {
        // What a further copy has put there is pushed again, or was copied whole: the copy before it stands.
        (Err(error @ (ReplicaError::Transport { .. } | ReplicaError::SourceDamaged { .. })), Some(finished)) => {
            tracing::warn!(segment = %source.segment, "what was changed while a replica was filled is left to its owner: {error}");
            Ok(finished)
        }
        (filled, _) => filled,
    }
}

/// Closes slot 0 with `header`, if that is what its table says; its blocks were verified against the table before they were stored.
fn close(target: &Hosted, turn: Turn, header: &SlotHeader) -> Result<bool, ReplicaError> {
    let entries = target.with_files(|files| files.table(0, header))?;
    if verify_table(header, &entries).is_err() {
        return Ok(false);
    }
    target.change(turn, |files| files.close_slot(0, header))?;
    Ok(true)
}
