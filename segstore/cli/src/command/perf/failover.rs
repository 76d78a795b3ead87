//! `segctl perf --dev failover`: from the death of an owner to the first checkpoint of the next one, in parts.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use segstore::{CreateOptions, OpenOptions, Segment, Session, Times};
use segstore_bench::{Over, fabric};
use serde::Serialize;

use super::cluster::{Cluster, Shape};
use super::owner::{self, Owner};
use super::{MIB, Report, failure};
use crate::exit::Failure;
use crate::output::{line, progress, table, units};

/// The owner's process is started as this: no command that anybody types.
pub(super) const OWN: &str = "__own";
const NAME: &str = "perf/failover";
/// Where the owner is, and where the one replica.
const OWNER: &str = "n2";
const REPLICA: &str = "n3";
/// Neither of the two.
const OTHER: &str = "n1";
const SIZES: [u64; 3] = [MIB, 64 * MIB, 1024 * MIB];
const ROUNDS: usize = 5;
/// After how long a silent node counts as dead.
const LEASE: &str = "1s";
/// How long the owner goes on before it dies.
const GOES_ON: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(120);

/// What dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Dies {
    /// The owner's process alone.
    Process,
    /// It, and the daemon of its node.
    Node,
}

/// Who takes over.
#[derive(Clone, Copy, Debug)]
struct Case {
    over: Over,
    dies: Dies,
    /// On the replica's node.
    is_warm: bool,
    /// It has followed the segment.
    follows: bool,
}

/// One case with one size: medians, in milliseconds.
#[derive(Serialize)]
pub(super) struct Failover {
    over: &'static str,
    bytes: u64,
    dies: Dies,
    is_warm: bool,
    follows: bool,
    rounds: usize,
    #[serde(flatten)]
    parts: Parts,
}

/// The parts, in milliseconds.
#[derive(Clone, Copy, Default, Serialize)]
struct Parts {
    /// From the death until the next owner has the name.
    detected_ms: f64,
    /// From there until the claim stood in the directory.
    claimed_ms: f64,
    /// Until the replica was fenced.
    fenced_ms: f64,
    /// Until the image was in working memory, verified.
    loaded_ms: f64,
    /// Until the in-sync set was sealed and the segment open.
    opened_ms: f64,
    /// Until a first checkpoint was acknowledged.
    answered_ms: f64,
    /// All but the first.
    after_detection_ms: f64,
    /// Reading as many bytes over the same way, with nothing verified, right after that; zero where the replica is beside.
    bare_read_ms: f64,
}

pub(super) fn measure(report: &mut Report) -> Result<(), Failure> {
    for over in [Over::Shm, Over::Tcp] {
        let mut cluster = Cluster::of(&Shape { lease: Some(LEASE), ..Shape::new(over, "3GiB") })?;
        for case in cases(over) {
            let sizes = if case.dies == Dies::Process { &SIZES[..1] } else { &SIZES[..] };
            for &bytes in sizes {
                let parts = rounds(&mut cluster, case, bytes)?;
                let Case { over, dies, is_warm, follows } = case;
                let over = over.name();
                report.failovers.push(Failover { over, bytes, dies, is_warm, follows, rounds: ROUNDS, parts });
            }
        }
    }
    if !report.as_json {
        print(&report.failovers);
    }
    Ok(())
}

/// A replica beside the next owner is reached over shared memory, whatever else there is.
fn cases(over: Over) -> Vec<Case> {
    let is_warm = over == Over::Shm;
    let case = |dies, follows| Case { over, dies, is_warm, follows };
    vec![case(Dies::Process, false), case(Dies::Node, false), case(Dies::Node, true)]
}

fn rounds(cluster: &mut Cluster, case: Case, bytes: u64) -> Result<Parts, Failure> {
    let bar = progress::steps(ROUNDS as u64);
    bar.set_message(format!("{}, {}", units::size(bytes), case.what()));
    let mut all = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        all.push(round(cluster, case, bytes)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    cluster.session()?.remove(NAME, true)?;
    Ok(Parts::median(&all))
}

impl Case {
    fn what(self) -> String {
        let dies = if self.dies == Dies::Process { "the process dies" } else { "the node dies" };
        let place = if self.is_warm { "a replica beside" } else { "no replica beside" };
        let follows = if self.follows { ", followed" } else { "" };
        format!("{dies}, {place}, over {}{follows}", self.over.name())
    }
}

/// One owner dies, another takes over.
fn round(cluster: &mut Cluster, case: Case, bytes: u64) -> Result<Parts, Failure> {
    let owner = Owner::start(OWN, &cluster.socket(OWNER), &[bytes.to_string()])?;
    let next = Session::connect_to(cluster.socket(if case.is_warm { REPLICA } else { OTHER }))?;
    let how = OpenOptions::new().stand_by(Some(PATIENCE)).follow(case.follows).timeout(PATIENCE);
    let parts = std::thread::scope(|scope| {
        let taking = scope.spawn(|| answer(&next, &how));
        let is_ready = until_following(&next, case, bytes);
        let daemon = cluster.process(OWNER).filter(|_| case.dies == Dies::Node);
        let died = owner.kill(daemon);
        let answered = taking.join().unwrap_or_else(|_| Err(Failure::Unwell("the next owner panicked".into())))?;
        if !is_ready {
            return Err(Failure::Unwell("the next owner has not followed the segment in time".into()));
        }
        Ok((died, answered))
    });
    let (died, Answered { times, opened, answered, segment }) = parts?;
    segment.release()?;
    let bare_read = if case.is_warm { Duration::ZERO } else { bare_read(&next, bytes)? };
    cluster.start_stopped()?;
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let start = answered.saturating_duration_since(opened);
    Ok(Parts {
        detected_ms: millis(opened.saturating_duration_since(died).saturating_sub(times.sum())),
        claimed_ms: millis(times.prepared + times.claimed),
        fenced_ms: millis(times.fenced),
        loaded_ms: millis(times.loaded),
        opened_ms: millis(times.sealed + times.opened),
        answered_ms: millis(start),
        after_detection_ms: millis(times.sum() + start),
        bare_read_ms: millis(bare_read),
    })
}

fn bare_read(session: &Session, bytes: u64) -> Result<Duration, Failure> {
    let mut fabric = session.fabric(NAME)?;
    let read = fabric::read_all(&mut fabric, usize::try_from(bytes).unwrap_or(usize::MAX));
    read.map_err(|error| failure("reads from the replica", error))
}

/// Waits until the next owner stands by, and has the state if it is to.
fn until_following(next: &Session, case: Case, bytes: u64) -> bool {
    let until = Instant::now() + PATIENCE;
    while case.follows && next.pulled_bytes() < bytes && Instant::now() < until {
        std::thread::sleep(GOES_ON / 10);
    }
    std::thread::sleep(GOES_ON);
    !case.follows || next.pulled_bytes() >= bytes
}

struct Answered {
    times: Times,
    opened: Instant,
    answered: Instant,
    segment: Segment,
}

/// Stands by, takes over, and makes a first checkpoint.
fn answer(next: &Session, how: &OpenOptions) -> Result<Answered, Failure> {
    let mut segment = next.open(NAME, how)?;
    let opened = Instant::now();
    segment.write(0, &[7])?;
    segment.checkpoint()?;
    Ok(Answered { times: segment.takeover_times(), opened, answered: Instant::now(), segment })
}

/// Makes a checkpoint of one block after the other, for as long as it lives.
pub(super) fn own(socket: &Path, arguments: &[String]) -> Result<ExitCode, Failure> {
    let wrong = || Failure::Usage("how many bytes?".into());
    let bytes: usize = arguments.first().and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
    let session = Session::connect_to(socket)?;
    let on_replica = format!("node={REPLICA}").parse().map_err(Failure::Unwell)?;
    let make = CreateOptions::new(bytes as u64).replicas(1).require(on_replica);
    let how = OpenOptions::new().stand_by(Some(PATIENCE)).timeout(PATIENCE);
    let mut segment = session.open_or_create(NAME, &make, &how)?;
    if segment.is_empty() {
        segment.set_len(bytes)?;
        segment.bytes_mut(..)?.fill(1);
    }
    segment.checkpoint()?;
    owner::ready();
    for at in (0..bytes).step_by(segment.block_size()).cycle() {
        segment.write(at, &[at.to_le_bytes()[0] | 1])?;
        segment.checkpoint()?;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(ExitCode::SUCCESS)
}

impl Parts {
    fn median(all: &[Self]) -> Self {
        let median = |part: fn(&Self) -> f64| segstore_bench::median(all.iter().map(part).collect());
        Self {
            detected_ms: median(|parts| parts.detected_ms),
            claimed_ms: median(|parts| parts.claimed_ms),
            fenced_ms: median(|parts| parts.fenced_ms),
            loaded_ms: median(|parts| parts.loaded_ms),
            opened_ms: median(|parts| parts.opened_ms),
            answered_ms: median(|parts| parts.answered_ms),
            after_detection_ms: median(|parts| parts.after_detection_ms),
            bare_read_ms: median(|parts| parts.bare_read_ms),
        }
    }
}

fn print(failovers: &[Failover]) {
    let row = |failover: &Failover| {
        let Failover { bytes, over, dies, is_warm, follows, parts, .. } = failover;
        let what = if *dies == Dies::Process { "process" } else { "node" };
        let place = if *is_warm { "beside it" } else { "elsewhere" };
        let follows = if *follows { "yes" } else { "no" };
        let mut cells = vec![units::size(*bytes), what.into(), place.into(), (*over).into(), follows.into()];
        let Parts { detected_ms, claimed_ms, fenced_ms, loaded_ms, opened_ms, answered_ms, .. } = *parts;
        let all = [detected_ms, claimed_ms, fenced_ms, loaded_ms, opened_ms, answered_ms, parts.after_detection_ms];
        cells.extend(all.map(|millis| format!("{millis:.1}")));
        cells.push(if *is_warm { "-".into() } else { format!("{:.1}", parts.bare_read_ms) });
        cells
    };
    let heading = [
        "",
        "dies",
        "replica",
        "over",
        "followed",
        "detected",
        "claim",
        "fence",
        "load",
        "open",
        "answer",
        "after detection",
        "bare read",
    ];
    table::print(&heading, failovers.iter().map(row).collect(), "");
    line(format_args!(
        "Milliseconds, medians of {ROUNDS}. A node's death is detected when its lease of {LEASE} is over. ANSWER is a first checkpoint; \
         AFTER DETECTION is everything but the detection; BARE READ is as many bytes over the same way, unverified, into memory that was \
         touched before.\n"
    ));
}
