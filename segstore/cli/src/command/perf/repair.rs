//! `segctl perf --dev repair`: what a replica that is being filled costs its owner, and how fast it is filled.

use std::time::{Duration, Instant};

use segstore::{CreateOptions, OpenOptions, Segment, Session};
use segstore_bench::{Over, Percentiles, fabric};
use serde::Serialize;

use super::cluster::Cluster;
use super::{MIB, Report, failure};
use crate::exit::Failure;
use crate::output::{line, progress, table, units};

const NAME: &str = "perf/repair";
const BYTES: u64 = 1024 * MIB;
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the owner is measured without a repair.
const BEFORE: Duration = Duration::from_secs(5);
/// Where the further replica is made: its node reads from the other one, as the bare read does.
const NEW: &str = "n3";

/// What was measured.
#[derive(Serialize)]
pub(super) struct Repair {
    over: &'static str,
    bytes: u64,
    /// From the wish until the replica is in sync.
    filled_sec: f64,
    /// The same of a replica that was let go after that, and is wished for again after some more checkpoints.
    caught_up_sec: f64,
    /// As many bytes read over the same way, with nothing verified or written.
    bare_read_sec: f64,
    /// The owner's checkpoints of one block, in microseconds.
    checkpoint_before: Percentiles,
    /// The same while it is filled.
    checkpoint_meanwhile: Percentiles,
}

pub(super) fn measure(report: &mut Report) -> Result<(), Failure> {
    for over in [Over::Shm, Over::Tcp] {
        let spinner = progress::spinner(&format!("filling a replica of {} over {}", units::size(BYTES), over.name()));
        let cluster = Cluster::start(over, "3GiB")?;
        let repair = fill(&cluster, over)?;
        spinner.finish_and_clear();
        report.repairs.push(repair);
    }
    if !report.as_json {
        print(&report.repairs);
    }
    Ok(())
}

fn fill(cluster: &Cluster, over: Over) -> Result<Repair, Failure> {
    let session = cluster.session()?;
    let mut owner = owned(&session)?;
    let before = checkpoints(&mut owner, |began| began.elapsed() < BEFORE)?;
    let (filled, meanwhile) = wish(cluster, &mut owner, 2)?;
    wish(cluster, &mut owner, 1)?;
    let (caught_up, _) = wish(cluster, &mut owner, 2)?;
    owner.release()?;
    let reader = Session::connect_to(cluster.socket(NEW))?;
    let bytes = usize::try_from(BYTES).unwrap_or(usize::MAX);
    let mut way = reader.fabric(NAME)?;
    let bare = fabric::read_all(&mut way, bytes).map_err(|error| failure("reads from the replica", error))?;
    Ok(Repair {
        over: over.name(),
        bytes: BYTES,
        filled_sec: filled.as_secs_f64(),
        caught_up_sec: caught_up.as_secs_f64(),
        bare_read_sec: bare.as_secs_f64(),
        checkpoint_before: before,
        checkpoint_meanwhile: meanwhile,
    })
}

/// Wishes for so many replicas: how long it takes until they are in sync, and how long the owner's checkpoints take meanwhile.
fn wish(cluster: &Cluster, owner: &mut Segment, replicas: u32) -> Result<(Duration, Percentiles), Failure> {
    let asked = Instant::now();
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let watcher = cluster.session()?;
            watcher.set_replicas(NAME, replicas)?;
            while watcher.lookup(NAME)?.record.record.in_sync.len() != replicas as usize {
                if asked.elapsed() > PATIENCE {
                    return Err(Failure::Unwell(format!("there are not {replicas} replicas in sync in time")));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok::<_, Failure>(asked.elapsed())
        });
        let meanwhile = checkpoints(owner, |_| !watching.is_finished())?;
        let took = watching.join().map_err(|_| Failure::Unwell("whoever watched the repair panicked".into()))??;
        Ok((took, meanwhile))
    })
}

/// A full segment with a replica on another node than the one that gets the next.
fn owned(session: &Session) -> Result<Segment, Failure> {
    let elsewhere = format!("node!={NEW}").parse().map_err(Failure::Unwell)?;
    let make = CreateOptions::new(BYTES).replicas(1).prefer(elsewhere);
    let mut owner = session.open_or_create(NAME, &make, &OpenOptions::new().timeout(PATIENCE))?;
    owner.set_len(owner.capacity())?;
    owner.bytes_mut(..)?.fill(1);
    owner.checkpoint()?;
    owner.checkpoint()?;
    Ok(owner)
}

/// One block after the other is changed, as long as it goes on.
fn checkpoints(owner: &mut Segment, goes_on: impl Fn(Instant) -> bool) -> Result<Percentiles, Failure> {
    let (began, mut times, mut at) = (Instant::now(), Vec::new(), 0);
    while goes_on(began) {
        // Of no order: what is filled is behind it or before.
        at = (at + 7919 * owner.block_size()) % owner.len();
        let started = Instant::now();
        owner.write(at, &times.len().to_le_bytes())?;
        owner.checkpoint()?;
        times.push(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(Percentiles::of(&mut times))
}

fn print(repairs: &[Repair]) {
    let row = |repair: &Repair| {
        let Repair { over, bytes, filled_sec, caught_up_sec, bare_read_sec, checkpoint_before, checkpoint_meanwhile } =
            repair;
        let time = |micros: f64| format!("{micros:.1}");
        vec![
            format!("{} over {over}", units::size(*bytes)),
            format!("{filled_sec:.2} s"),
            format!("{caught_up_sec:.2} s"),
            format!("{bare_read_sec:.2} s"),
            time(checkpoint_before.p50),
            time(checkpoint_before.p99),
            time(checkpoint_meanwhile.p50),
            time(checkpoint_meanwhile.p99),
        ]
    };
    let heading = ["", "filled in", "caught up in", "bare read", "p50 before", "p99", "p50 meanwhile", "p99"];
    table::print(&heading, repairs.iter().map(row).collect(), "");
    line(
        "The owner's checkpoints of one block in microseconds, before the repair and while it goes on. A replica catches up that was let go, and\n\
          whose memory is there.\n",
    );
}
