//! Checkpoints of one changed block, by an application's own calls, to real replicas.

use std::time::Duration;

use segstore::{CreateOptions, Error, OpenOptions, Segment, Session};

use crate::Over;
#[cfg(feature = "verbs")]
use crate::raw::verbs;
use crate::raw::{copy, socket};
use crate::{Bench, Result, Row, Way};

/// Bytes of a block.
const BLOCK: usize = 4096;
/// So much of a segment has contents, and changes.
const FILLED: usize = 64 << 20;
/// How long a checkpoint may take: the first of a large segment waits for every page of its replicas, on the slowest of disks.
const LONGEST: Duration = Duration::from_secs(600);

/// Which block changes from one checkpoint to the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// The same.
    Same,
    /// Any.
    Random,
}

/// A row's segment.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Bytes of the segment.
    pub capacity: u64,
    /// Nodes that hold a replica.
    pub replicas: u32,
    /// Which block changes.
    pub which: Which,
    /// What the replicas on this machine are reached over; of others there is no plain form here.
    pub over: Option<Over>,
}

/// One row, beside a plain movement of 4 KiB to as many places. The segment is made for it and removed again.
///
/// # Errors
/// What the cluster says: no room, too few nodes.
pub fn row(bench: &Bench, session: &Session, name: impl Into<String>, case: &Case) -> Result<Row> {
    let segment_name = format!("perf/checkpoint-{}", std::process::id());
    let make = CreateOptions::new(case.capacity).replicas(case.replicas);
    let segment = session.open_or_create(&segment_name, &make, &OpenOptions::new().timeout(LONGEST))?;
    let row = measure(bench, segment, name.into(), case);
    let removed = session.remove(&segment_name, true);
    let row = row?;
    removed?;
    Ok(row)
}

fn measure(bench: &Bench, mut segment: Segment, name: String, case: &Case) -> Result<Row> {
    let capacity = segment.capacity();
    segment.set_len(capacity)?;
    let copies = case.replicas as usize;
    let plain_memory;
    let plain = match case.over {
        Some(Over::Shm) => {
            let span = capacity.min(FILLED);
            plain_memory = copy::Plain::new(span)?;
            vec![plain_memory.scattered(BLOCK, copies, places(case.which, span))]
        }
        Some(Over::Tcp) => vec![socket::acknowledged(BLOCK, copies)?],
        #[cfg(feature = "verbs")]
        Some(Over::Verbs) => {
            let device = verbs::first_device()?;
            vec![verbs::write(&device, &device, BLOCK, copies)?]
        }
        None => Vec::new(),
    };
    // Every slot of every replica is written once, so that no page is touched for the first time later.
    for _ in 0..2 {
        segment.bytes_mut(..capacity.min(FILLED))?.fill(1);
        let elsewhere = segment.checkpoint()?.elsewhere;
        if elsewhere < copies {
            let text = format!("{copies} replicas need as many other nodes with room: there are {elsewhere}");
            return Err(Error::NoRoom(text).into());
        }
    }
    let mut next = places(case.which, capacity.min(FILLED));
    let mut count = 0_u64;
    let act = move || {
        let at = next();
        count += 1;
        segment.write(at, &count.to_le_bytes())?;
        let done = segment.checkpoint()?;
        if done.elsewhere != copies {
            return Err(format!("{} of {copies} replicas are in sync", done.elsewhere).into());
        }
        Ok(())
    };
    bench.row(name, Way { what: "segstore", other: None, act: Box::new(act) }, plain)
}

/// Where the changed blocks begin.
fn places(which: Which, capacity: usize) -> Box<dyn FnMut() -> usize> {
    let blocks = capacity / BLOCK;
    let mut state = 1_u64;
    Box::new(move || match which {
        Which::Same => blocks / 2 * BLOCK,
        Which::Random => {
            // Marsaglia's xorshift of 64 bits.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 11).unwrap_or_default() % blocks * BLOCK
        }
    })
}
