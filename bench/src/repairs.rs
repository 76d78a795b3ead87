//! What a replica that is being filled costs its owner, and how fast it is filled.

use std::time::{Duration, Instant};

use segstore::{CreateOptions, OpenOptions, Segment, Session};
use serde::Serialize;

use crate::{Percentiles, Result, fabric};

const PATIENCE: Duration = Duration::from_secs(120);
/// How often is looked whether it is filled: each look wakes some threads of two nodes, and the owner is being measured.
const LOOK: Duration = Duration::from_millis(50);
/// How long the owner is measured without a repair.
const BEFORE: Duration = Duration::from_secs(5);

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Repair {
    /// The transport's provider that the library chose.
    pub over: &'static str,
    /// Bytes of the segment.
    pub bytes: usize,
    /// From the wish until the replica is in sync.
    pub filled_sec: f64,
    /// The same of a replica that was let go after that, and is wished for again after some more checkpoints.
    pub caught_up_sec: f64,
    /// As many bytes of a replica read by the owner's node, with nothing verified or written.
    pub bare_read_sec: f64,
    /// The owner's checkpoints of one block, in microseconds.
    pub checkpoint_before: Percentiles,
    /// The same while it is filled.
    pub checkpoint_meanwhile: Percentiles,
    /// The longest of these, in microseconds: one carries what the replica lacks when it has been filled.
    pub longest_meanwhile: f64,
}

/// A full segment of so many bytes gets a second replica while it is changed. It is made for it, and removed again.
///
/// # Errors
/// What the cluster says: no room, too few nodes; a replica that is not in sync within two minutes.
pub fn measure(session: &Session, bytes: usize) -> Result<Repair> {
    let name = format!("perf/repair-{}", std::process::id());
    let repaired = owned(session, &name, bytes).and_then(|owner| repair(session, &name, owner));
    let removed = session.remove(&name, true);
    let repaired = repaired?;
    removed?;
    Ok(repaired)
}

/// A full segment, whose replicas are on other nodes, of which there are enough for another one.
fn owned(session: &Session, name: &str, bytes: usize) -> Result<Segment> {
    let others = session.nodes()?.iter().filter(|node| node.up && node.name != session.node_name()).count();
    if others < 2 {
        let text = format!("another replica takes two nodes beside this one that are up: there are {others}");
        return Err(segstore::Error::NoRoom(text).into());
    }
    let elsewhere = format!("node!={}", session.node_name()).parse()?;
    let make = CreateOptions::new(bytes as u64).replicas(1).require(elsewhere);
    let mut owner = session.open_or_create(name, &make, &OpenOptions::new().timeout(PATIENCE))?;
    owner.set_len(bytes)?;
    owner.bytes_mut(..)?.fill(1);
    owner.checkpoint()?;
    owner.checkpoint()?;
    Ok(owner)
}

fn repair(session: &Session, name: &str, mut owner: Segment) -> Result<Repair> {
    let (before, _) = checkpoints(&mut owner, |began| began.elapsed() < BEFORE)?;
    let (filled, (meanwhile, longest)) = wish(session, name, &mut owner, 2)?;
    wish(session, name, &mut owner, 1)?;
    let (caught_up, _) = wish(session, name, &mut owner, 2)?;
    let bytes = owner.len();
    owner.release()?;
    let mut way = session.fabric(name)?;
    let bare = fabric::read_all(&mut way, bytes)?;
    Ok(Repair {
        over: way.provider,
        bytes,
        filled_sec: filled.as_secs_f64(),
        caught_up_sec: caught_up.as_secs_f64(),
        bare_read_sec: bare.as_secs_f64(),
        checkpoint_before: before,
        checkpoint_meanwhile: meanwhile,
        longest_meanwhile: longest,
    })
}

/// Percentiles, and the longest, in microseconds.
type Times = (Percentiles, f64);

/// Wishes for so many replicas: how long it takes until they are in sync, and how long the owner's checkpoints take meanwhile.
fn wish(session: &Session, name: &str, owner: &mut Segment, replicas: usize) -> Result<(Duration, Times)> {
    let asked = Instant::now();
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| until_in_sync(session, name, replicas));
        let meanwhile = checkpoints(owner, |_| !watching.is_finished());
        watching.join().map_err(|_| "whoever watched the repair panicked")??;
        Ok((asked.elapsed(), meanwhile?))
    })
}

fn until_in_sync(session: &Session, name: &str, replicas: usize) -> segstore::Result<()> {
    let asked = Instant::now();
    session.set_replicas(name, u32::try_from(replicas).unwrap_or(u32::MAX))?;
    while session.lookup(name)?.record.record.in_sync.len() != replicas {
        if asked.elapsed() > PATIENCE {
            let text = format!("there are not {replicas} replicas in sync after {} s", PATIENCE.as_secs());
            return Err(segstore::Error::Unreachable(text));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// One block after the other is changed, as long as it goes on.
fn checkpoints(owner: &mut Segment, goes_on: impl Fn(Instant) -> bool) -> Result<Times> {
    let (began, mut times, mut random) = (Instant::now(), Vec::new(), 1_u64);
    let blocks = (owner.len() / owner.block_size()).max(1) as u64;
    while goes_on(began) {
        // Of no order, as Knuth's generator has it: what is filled is behind it or before.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let block = usize::try_from((random >> 33) % blocks).unwrap_or(0);
        let at = block * owner.block_size();
        let started = Instant::now();
        owner.write(at, &times.len().to_le_bytes())?;
        owner.checkpoint()?;
        times.push(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
        std::thread::sleep(Duration::from_micros(200));
    }
    let percentiles = Percentiles::of(&mut times);
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of minutes fit into 53 bits")]
    let longest = times.last().map_or(0.0, |longest| *longest as f64 / 1000.0);
    Ok((percentiles, longest))
}
