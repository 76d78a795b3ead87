//! `segctl perf --dev many`: a thousand segments on ten nodes, of which one dies with an application that owns them all.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use segstore::{CreateOptions, OpenOptions, Session};
use segstore_bench::{Over, memory};
use serde::Serialize;

use super::cluster::{Cluster, Shape};
use super::owner::{self, Owner};
use super::{Report, failure};
use crate::exit::Failure;
use crate::output::{line, progress, table};

pub(super) const OWN: &str = "__own-many";
const NODES: usize = 10;
const SEGMENTS: usize = 1000;
const CAPACITY: u64 = 64 << 10;
/// Where the owner is, and who comes after it.
const OWNER: &str = "n2";
const NEXT: &str = "n3";
const LEASE: &str = "3s";
const PATIENCE: Duration = Duration::from_secs(120);
/// How long nobody does anything.
const IDLE: Duration = Duration::from_secs(10);
/// Requests at a time.
const AT_A_TIME: usize = 8;

/// What was measured.
#[derive(Serialize)]
pub(super) struct Many {
    nodes: usize,
    segments: usize,
    /// From the node's death until somebody else has the first name.
    detected_sec: f64,
    /// From there until it has all names.
    held_sec: f64,
    /// From the detection until all are open.
    taken_over_sec: f64,
    /// The same of one, of so many side by side.
    taken_over_each_ms: f64,
    /// What a replica takes of its daemon's own memory, beside what replicas are for.
    daemon_kib_per_replica: f64,
    /// What an owned segment takes of its owner's memory, beside the state: as much as is touched of it.
    owner_kib_per_segment: f64,
    /// How often the threads of a process wake in a second when nobody does anything.
    wakes_per_sec: Wakes,
}

#[derive(Serialize)]
struct Wakes {
    /// The directory's node, with ten nodes' leases.
    directory: f64,
    /// Of the other nodes, the one that wakes most, with nothing.
    empty_node: f64,
    /// The same, with replicas.
    node_with_replicas: f64,
    /// The owner's node.
    owners_node: f64,
    /// The owner's process.
    owner: f64,
}

pub(super) fn measure(report: &mut Report) -> Result<(), Failure> {
    let spinner = progress::spinner("starting ten nodes");
    let shape = Shape { nodes: NODES, lease: Some(LEASE), ..Shape::new(Over::Shm, "256MiB") };
    let cluster = Cluster::of(&shape)?;
    let daemons = |cluster: &Cluster| (1..=NODES).filter_map(|n| cluster.process(&format!("n{n}"))).collect::<Vec<_>>();
    let all = daemons(&cluster);
    spinner.set_message("nobody does anything");
    let empty = processes::wakes(&all, IDLE);
    let before = own_kib(&all)?;
    spinner.set_message("making a thousand segments");
    let names: Vec<_> = (0..SEGMENTS).map(name).collect();
    make(&cluster.session()?, &names)?;
    let after = own_kib(&all)?;
    spinner.set_message("an application opens them all");
    let owner = Owner::start(OWN, &cluster.socket(OWNER), &[SEGMENTS.to_string()])?;
    spinner.set_message("nobody does anything");
    let watched: Vec<_> = all.iter().copied().chain([owner.pid()]).collect();
    let with_replicas = processes::wakes(&watched, IDLE);
    let owner_kib = own_kib(&[owner.pid()])?;
    spinner.set_message("the owner's node dies");
    let next = Session::connect_to(cluster.socket(NEXT))?;
    let watcher = cluster.session()?;
    let dead = cluster.process(OWNER);
    let (detected, held, all_open) = std::thread::scope(|scope| {
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let how = OpenOptions::new().stand_by(Some(PATIENCE));
        let ([first, last], next) = ([names[0], names[SEGMENTS - 1]], &next);
        let taking = scope.spawn(move || next.open_all(&names, &how).map(|segments| (Instant::now(), segments)));
        std::thread::sleep(Duration::from_secs(1));
        let died = owner.kill(dead);
        let until = died + PATIENCE;
        let when_held = |name: &str| {
            let is_held = || watcher.lookup(name).ok()?.holder.filter(|holder| holder.node_name == NEXT);
            while is_held().is_none() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(2));
            }
            Instant::now()
        };
        let (detected, held) = (when_held(first), when_held(last));
        let taken = taking.join().map_err(|_| Failure::Unwell("the next owner panicked".into()))?;
        let (opened, _segments) = taken?;
        Ok::<_, Failure>((detected - died, held - detected, opened - detected))
    })?;
    spinner.finish_and_clear();
    let index = |pid: Option<i32>| all.iter().position(|known| Some(*known) == pid);
    let owners = index(dead).map_or(f64::NAN, |at| with_replicas[at]);
    // The first keeps the directory.
    let most = |wakes: &[f64]| {
        let others = wakes.iter().enumerate().skip(1).filter(|(at, _)| Some(*at) != index(dead));
        others.map(|(_, wakes)| *wakes).fold(0.0, f64::max)
    };
    let many = Many {
        nodes: NODES,
        segments: SEGMENTS,
        detected_sec: detected.as_secs_f64(),
        held_sec: held.as_secs_f64(),
        taken_over_sec: all_open.as_secs_f64(),
        taken_over_each_ms: all_open.as_secs_f64() * 1e3 / count(SEGMENTS),
        daemon_kib_per_replica: (after - before) / count(2 * SEGMENTS),
        owner_kib_per_segment: owner_kib / count(SEGMENTS),
        wakes_per_sec: Wakes {
            directory: with_replicas[0],
            empty_node: most(&empty),
            node_with_replicas: most(&with_replicas[..NODES]),
            owners_node: owners,
            owner: with_replicas[NODES],
        },
    };
    if !report.as_json {
        print(&many);
    }
    report.many = Some(many);
    Ok(())
}

/// Memory that is these processes' alone, in KiB.
#[expect(clippy::cast_precision_loss, reason = "megabytes")]
fn own_kib(pids: &[i32]) -> Result<f64, Failure> {
    let own = pids.iter().map(|pid| memory::own(*pid)).sum::<segstore_bench::Result<u64>>();
    own.map(|bytes| bytes as f64 / 1024.0).map_err(|error| failure("memory", error))
}

#[expect(clippy::cast_precision_loss, reason = "thousands")]
fn count(number: usize) -> f64 {
    number as f64
}

fn name(number: usize) -> String {
    format!("perf/many/{number:04}")
}

fn make(session: &Session, names: &[String]) -> Result<(), Failure> {
    let make = CreateOptions::new(CAPACITY).replicas(2);
    std::thread::scope(|scope| {
        let made: Vec<_> = names
            .chunks(names.len().div_ceil(AT_A_TIME))
            .map(|some| scope.spawn(|| some.iter().try_for_each(|name| session.create(name, &make).map(drop))))
            .collect();
        made.into_iter().try_for_each(|made| made.join().unwrap_or(Ok(())))
    })?;
    Ok(())
}

/// The owner's process: it opens them all, makes a checkpoint of each, and rests.
pub(super) fn own(socket: &std::path::Path, arguments: &[String]) -> Result<ExitCode, Failure> {
    let segments = arguments.first().and_then(|text| text.parse().ok()).unwrap_or(SEGMENTS);
    let session = Session::connect_to(socket)?;
    let names: Vec<_> = (0..segments).map(name).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut owned = session.open_all(&names, &OpenOptions::new().stand_by(Some(PATIENCE)))?;
    for segment in &mut owned {
        segment.set_len(4096)?;
        segment.bytes_mut(..)?.fill(1);
        segment.checkpoint()?;
    }
    owner::ready();
    loop {
        std::thread::sleep(PATIENCE);
    }
}

fn print(many: &Many) {
    let Many { detected_sec, held_sec, taken_over_sec, taken_over_each_ms, .. } = many;
    let Many { daemon_kib_per_replica, owner_kib_per_segment, .. } = many;
    let Wakes { directory, empty_node, node_with_replicas, owners_node, owner } = many.wakes_per_sec;
    let row = |what: &str, is: String| vec![what.to_owned(), is];
    let rows = vec![
        row("the death of a node is detected after (its lease of 3s)", format!("{detected_sec:.2} s")),
        row("its 1000 names are another's after that", format!("{held_sec:.2} s")),
        row("its 1000 segments are open there, also after that", format!("{taken_over_sec:.2} s")),
        row("the same, for each", format!("{taken_over_each_ms:.2} ms")),
        row("a daemon's own memory, for each replica", format!("{daemon_kib_per_replica:.1} KiB")),
        row("an owner's memory, for each segment", format!("{owner_kib_per_segment:.1} KiB")),
        row("wakes in a second, when nothing happens: a node with nothing", format!("{empty_node:.1}")),
        row("the directory's node", format!("{directory:.1}")),
        row("a node with 200 replicas", format!("{node_with_replicas:.1}")),
        row("the owner's node", format!("{owners_node:.1}")),
        row("the owner of 1000 segments", format!("{owner:.1}")),
    ];
    table::print(&["1000 segments on 10 nodes", ""], rows, "");
    line("");
}

/// What the kernel says of processes.
mod processes {
    use std::collections::HashMap;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    /// How often the threads of each that live all the time have slept and woken in a second, in this time.
    pub(super) fn wakes(pids: &[i32], time: Duration) -> Vec<f64> {
        let count = || pids.iter().map(|pid| switches(*pid)).collect::<Vec<_>>();
        let before = count();
        std::thread::sleep(time);
        let of_one = |(before, after): (HashMap<PathBuf, f64>, HashMap<PathBuf, f64>)| {
            let more = after.iter().filter_map(|(thread, after)| Some(after - before.get(thread)?));
            more.sum::<f64>() / time.as_secs_f64()
        };
        before.into_iter().zip(count()).map(of_one).collect()
    }

    fn switches(pid: i32) -> HashMap<PathBuf, f64> {
        let tasks =
            std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().map(|task| task.path());
        tasks.filter_map(|task| Some((task.clone(), switched(&task)?))).collect()
    }

    fn switched(task: &Path) -> Option<f64> {
        let text = std::fs::read_to_string(task.join("status")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
    }
}
