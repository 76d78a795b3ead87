//! `segctl perf`: how fast it is here, each row beside the plainest form of the same movement.

mod cluster;
mod fabric;
mod failover;
mod many;
mod owner;
mod processor;
mod repair;

use std::sync::Mutex;

use segstore::Session;
use segstore_bench::checkpoints::{self, Case, Which};
use segstore_bench::fabric::Between;
use segstore_bench::memory::{self, Memory};
use segstore_bench::moves::{self, Movement, SIZES};
use segstore_bench::repairs::Repair;
use segstore_bench::{Bench, Over, Row, loads};
use serde::Serialize;

use super::Context;
use crate::arguments::{Measure, Perf};
use crate::exit::Failure;
use crate::output::{json, line, progress, table};
use cluster::{Cluster, Shape};
use failover::Failover;
use many::Many;
pub(crate) use owner::stage;
use processor::Daemon;

const MIB: u64 = 1 << 20;
/// Bytes that are loaded.
const LOADED: usize = 1 << 30;
/// Bytes of the segment whose memory is looked at.
const MEASURED: u64 = 256 * MIB;
/// How often: a load takes a second.
const LOADS: usize = 7;

const EXPLANATION: &str = "
Times in microseconds. PLAIN is the better plain form of the same movement, taken in turn with the row in the same run; RATIO is the
median of the pairs. LINE is a cache line between the two cores and back: compare only what was taken at the same distance.";

pub(crate) fn run(context: &Context, perf: &Perf) -> Result<(), Failure> {
    let default: &[Measure] = match perf.dev {
        true => &[Measure::Move, Measure::Checkpoint, Measure::Size, Measure::Load, Measure::Memory, Measure::Cpu],
        false => &[Measure::Move, Measure::Checkpoint, Measure::Load, Measure::Memory],
    };
    let wanted = if perf.what.is_empty() { default } else { &perf.what };
    let mut report = Report { as_json: context.json, ..Report::default() };
    for (what, name) in
        [(Measure::Size, "size"), (Measure::Cpu, "cpu"), (Measure::Failover, "failover"), (Measure::Many, "many")]
    {
        if wanted.contains(&what) && !perf.dev {
            return Err(Failure::Usage(format!("{name} is measured with daemons of its own only: add --dev")));
        }
    }
    if perf.dev {
        when_asked_to_end(cluster::clear_all)?;
    } else {
        let session = context.session()?;
        when_asked_to_end(move || remove_all(&session))?;
    }
    let measured = wanted.iter().try_for_each(|what| measure(context, &mut report, *what, perf.dev));
    let _ending = ENDING.lock();
    // What was measured before a failure is said all the same.
    report.end(measured)
}

fn measure(context: &Context, report: &mut Report, what: Measure, on_own: bool) -> Result<(), Failure> {
    match (what, on_own) {
        (Measure::Move, true) => move_bytes(report),
        (Measure::Move, false) => fabric::measure(report, &context.session()?),
        (Measure::Size, _) => sizes(report),
        (Measure::Cpu, _) => Over::here().into_iter().try_for_each(|over| processor::measure(report, over)),
        (Measure::Failover, _) => failover::measure(report),
        (Measure::Many, _) => many::measure(report),
        (Measure::Checkpoint, false) => checkpoint(report, &context.session()?, None),
        (Measure::Load, false) => load(report, &context.session()?, None),
        (Measure::Memory, false) => memory(report, &context.session()?),
        (Measure::Memory, true) => memory(report, &Cluster::start(Over::Shm, "1GiB")?.session()?),
        (Measure::Repair, false) => repair::measure(report, &context.session()?, None),
        (Measure::Repair, true) => on_each(report, repair::measure),
        (Measure::Checkpoint, true) => on_each(report, checkpoint),
        (Measure::Load, true) => on_each(report, load),
    }
}

/// What was measured, said as it comes.
#[derive(Default, Serialize)]
struct Report {
    #[serde(skip)]
    as_json: bool,
    rows: Vec<Row>,
    fabric: Option<Between>,
    daemons: Vec<Daemon>,
    failovers: Vec<Failover>,
    many: Option<Many>,
    repairs: Vec<Repair>,
    /// Multiples of the segment.
    memory: Option<Memory>,
    /// What does not fit here.
    skipped: Vec<Skipped>,
}

#[derive(Serialize)]
struct Skipped {
    name: String,
    why: String,
}

impl Report {
    /// Measures rows and prints them together.
    fn table(&mut self, rows: Vec<(String, Measured<'_>)>) -> Result<(), Failure> {
        let bar = progress::steps(rows.len() as u64);
        let (first, first_skipped) = (self.rows.len(), self.skipped.len());
        let measured = rows.into_iter().try_for_each(|(name, measure)| {
            bar.set_message(name.clone());
            let measured = measure(&name);
            bar.inc(1);
            if let Some(row) = self.or_skip(name, measured)? {
                self.rows.push(row);
            }
            Ok(())
        });
        bar.finish_and_clear();
        if !self.as_json {
            let heading = ["", "p50", "p99", "p99.9", "plain", "p50", "p99", "p99.9", "ratio", "line"];
            if self.rows.len() > first {
                table::print(&heading, self.rows[first..].iter().map(cells).collect(), "");
            }
            for Skipped { name, why } in &self.skipped[first_skipped..] {
                line(format_args!("skipped: {name}: {why}"));
            }
            line("");
        }
        measured
    }

    /// What was measured; nothing where the cluster has no room for it.
    fn or_skip<T>(&mut self, name: String, measured: segstore_bench::Result<T>) -> Result<Option<T>, Failure> {
        match measured.map_err(|error| failure(&name, error)) {
            Ok(measured) => Ok(Some(measured)),
            Err(Failure::Segstore(segstore::Error::NoRoom(why))) => {
                self.skipped.push(Skipped { name, why });
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// One thing, said as soon as it is measured, or why it is not.
    fn one<T>(
        &mut self,
        name: &str,
        measured: segstore_bench::Result<T>,
        print: impl FnOnce(&T),
    ) -> Result<Option<T>, Failure> {
        let measured = self.or_skip(name.to_owned(), measured)?;
        match (&measured, self.skipped.last()) {
            _ if self.as_json => {}
            (Some(measured), _) => print(measured),
            (None, Some(Skipped { name, why })) => line(format_args!("skipped: {name}: {why}\n")),
            (None, None) => {}
        }
        Ok(measured)
    }

    fn end(self, measured: Result<(), Failure>) -> Result<(), Failure> {
        let is_empty = self.rows.is_empty()
            && self.memory.is_none()
            && self.fabric.is_none()
            && self.daemons.is_empty()
            && self.failovers.is_empty()
            && self.many.is_none()
            && self.repairs.is_empty();
        let skipped = self.skipped.first().map(|skipped| format!("{}: {}", skipped.name, skipped.why));
        if self.as_json {
            json(&self);
        } else if !self.rows.is_empty() {
            line(EXPLANATION.trim_start());
        }
        measured?;
        match skipped {
            Some(first) if is_empty => Err(segstore::Error::NoRoom(format!("nothing was measured; {first}")).into()),
            _ => Ok(()),
        }
    }
}

type Measured<'a> = Box<dyn FnOnce(&str) -> segstore_bench::Result<Row> + 'a>;

/// What the cluster said keeps its exit code.
fn failure(name: &str, error: segstore_bench::Failure) -> Failure {
    match error.downcast::<segstore::Error>() {
        Ok(error) => Failure::Segstore(*error),
        Err(error) => Failure::Unwell(format!("measuring {name}: {error}")),
    }
}

fn cells(row: &Row) -> Vec<String> {
    let time = |micros: f64| match micros {
        0.0..1.0 => format!("{micros:.3}"),
        1.0..1000.0 => format!("{micros:.2}"),
        _ => format!("{micros:.0}"),
    };
    let absent = || "-".to_owned();
    let mut cells = vec![row.name.clone(), time(row.ours.p50), time(row.ours.p99), time(row.ours.p999)];
    cells.push(row.plain_way.map_or_else(absent, str::to_owned));
    match row.plain {
        Some(plain) => cells.extend([plain.p50, plain.p99, plain.p999].map(time)),
        None => cells.extend(std::array::from_fn::<_, 3, _>(|_| absent())),
    }
    cells.push(row.ratio.map_or_else(absent, |ratio| format!("{ratio:.2}")));
    cells.push(format!("{:.2}", row.cache_line));
    cells
}

fn move_bytes(report: &mut Report) -> Result<(), Failure> {
    let bench = bench(Bench::new())?;
    for over in Over::here() {
        let mut rows: Vec<(String, Measured<'_>)> = Vec::new();
        for (movement, (len, size)) in Movement::ALL.into_iter().flat_map(|movement| SIZES.map(|size| (movement, size)))
        {
            let bench = &bench;
            let row: Measured<'_> = Box::new(move |name| moves::row(bench, over, movement, len, name));
            rows.push((moves::name(over, movement, size), row));
        }
        report.table(rows)?;
    }
    Ok(())
}

fn checkpoint(report: &mut Report, session: &Session, over: Option<Over>) -> Result<(), Failure> {
    let bench = bench(Bench::new())?;
    let mut rows: Vec<(String, Measured<'_>)> = Vec::new();
    for (replicas, which) in [(1, Which::Same), (1, Which::Random), (2, Which::Same), (2, Which::Random)] {
        let block = if which == Which::Same { "the same block" } else { "a random block" };
        let nodes = if replicas == 1 { "1 replica" } else { "2 replicas" };
        let name = format!("checkpoint, {block}, {nodes}{}", over_what(over));
        let case = Case { capacity: 64 * MIB, replicas, which, over };
        let bench = &bench;
        rows.push((name, Box::new(move |name| checkpoints::row(bench, session, name, &case))));
    }
    report.table(rows)
}

fn load(report: &mut Report, session: &Session, over: Option<Over>) -> Result<(), Failure> {
    let bench = bench(Bench::of_long(LOADS))?;
    let row: Measured<'_> = Box::new(|name| loads::row(&bench, session, name, LOADED, over));
    report.table(vec![(format!("load 1 GiB{}", over_what(over)), row)])
}

fn memory(report: &mut Report, session: &Session) -> Result<(), Failure> {
    let measured = memory::measure(session, MEASURED);
    let name = "memory of a segment of 256 MiB";
    report.memory = report.one(name, measured, |Memory { owner, replica, .. }| {
        line(format_args!("{name}: {owner:.3} of it at the owner, {replica:.3} at each replica"));
    })?;
    Ok(())
}

/// One told block in a small and in a large segment, which is too large for most machines' tmpfs.
fn sizes(report: &mut Report) -> Result<(), Failure> {
    let cluster = Cluster::of(&Shape { on_disk: true, ..Shape::new(Over::Shm, "17GiB") })?;
    let session = cluster.session()?;
    let (bench, session) = (&bench(Bench::new())?, &session);
    let row = |size: &str, capacity| -> (String, Measured<'_>) {
        let case = Case { capacity, replicas: 1, which: Which::Same, over: Some(Over::Shm) };
        let name = format!("checkpoint of a block in {size} over shm");
        (name, Box::new(move |name| checkpoints::row(bench, session, name, &case)))
    };
    report.table(vec![row("64 KiB", MIB / 16), row("8 GiB", 8 << 30)])
}

fn on_each(
    report: &mut Report,
    measure: fn(&mut Report, &Session, Option<Over>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for over in Over::here() {
        let cluster = Cluster::start(over, "3GiB")?;
        measure(report, &cluster.session()?, Some(over))?;
    }
    Ok(())
}

/// Held by whoever ends the process: what is cleared away makes the measuring fail, and that must not come first.
static ENDING: Mutex<()> = Mutex::new(());

/// Signals would leave what was made for measuring.
fn when_asked_to_end(clear: impl Fn() + Send + 'static) -> Result<(), Failure> {
    let asked = ctrlc::set_handler(move || {
        let _ending = ENDING.lock();
        clear();
        std::process::exit(130);
    });
    asked.map_err(|error| Failure::Unwell(format!("watching for signals: {error}")))
}

/// Removes every segment of this process.
fn remove_all(session: &Session) {
    let ours = format!("-{}", std::process::id());
    let segments = session.segments().unwrap_or_default();
    for segment in segments.iter().filter(|made| made.name.starts_with("perf/") && made.name.ends_with(&ours)) {
        if let Err(error) = session.remove(&segment.name, true) {
            eprintln!("segctl: {} stays: {error}", segment.name);
        }
    }
}

fn over_what(over: Option<Over>) -> String {
    over.map_or_else(String::new, |over| format!(", {}", over.name()))
}

fn bench(made: segstore_bench::Result<Bench>) -> Result<Bench, Failure> {
    made.map_err(|error| Failure::Unwell(error.to_string()))
}
