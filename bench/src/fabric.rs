//! The fabric beneath checkpoints and loads, between this node and another, in the figures of perftest (`ib_write_lat` and its kin).

use std::time::{Duration, Instant};

use segstore::{CreateOptions, Fabric, Session};
use serde::Serialize;

use crate::moves::{Movement, SIZES};
use crate::stream::{OneSided, Pipe, Stream, count};
use crate::{Failure, Percentiles, Result};

/// The sizes that are streamed.
const STREAMED: [usize; 2] = [64 << 10, 1 << 20];
/// Operations in flight then.
const IN_FLIGHT: usize = 8;
/// Bytes of memory at either side: as many as the longest operations in flight need.
const CAPACITY: usize = IN_FLIGHT << 20;
const ITERATIONS: usize = 1000;
/// So many are done before they are timed: each place is touched once, and a core that rested runs fast.
const WARM_UP: usize = 100;
/// A stream goes on for so long at most.
const LONGEST: Duration = Duration::from_secs(2);

/// One operation at a time, from posting it until it has completed: a whole round trip, where `ib_write_lat` gives half of one.
/// Times in microseconds.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "perftest's columns")]
pub struct Latency {
    pub operation: &'static str,
    pub bytes: usize,
    pub iterations: usize,
    pub t_min_usec: f64,
    pub t_max_usec: f64,
    pub t_typical_usec: f64,
    pub t_avg_usec: f64,
    pub t_stdev_usec: f64,
    pub percentile_99_usec: f64,
    pub percentile_99_9_usec: f64,
}

/// Several operations at a time. MiB are 2^20 bytes, which perftest calls MB.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "perftest's columns")]
pub struct Bandwidth {
    pub operation: &'static str,
    pub bytes: usize,
    pub iterations: usize,
    pub in_flight: usize,
    pub peak_mib_per_sec: f64,
    pub average_mib_per_sec: f64,
    pub message_rate_mpps: f64,
}

/// What there is between two nodes.
#[derive(Clone, Debug, Serialize)]
pub struct Between {
    /// The node whose session measures.
    pub from: String,
    /// The other one.
    pub to: String,
    /// The transport's provider that the library chose.
    pub provider: &'static str,
    /// The RDMA device at this side, if it goes over one.
    pub device: Option<String>,
    /// One operation at a time.
    pub latency: Vec<Latency>,
    /// Several.
    pub bandwidth: Vec<Bandwidth>,
}

/// How many steps [`measure`] takes.
pub const STEPS: usize = OPERATIONS.len() * (SIZES.len() + STREAMED.len());
const OPERATIONS: [Movement; 2] = [Movement::Write, Movement::Read];

/// Writes to and reads from the memory of a replica on another node, as checkpoints and loads would. The segment is made for it and
/// removed again. `done` is called after each step.
///
/// # Errors
/// What the cluster says: no room, no other node; what the provider fails with.
pub fn measure(session: &Session, done: impl FnMut()) -> Result<Between> {
    let name = format!("perf/fabric-{}", std::process::id());
    session.create(&name, &CreateOptions::new(CAPACITY as u64))?;
    let measured = session.fabric(&name).map_err(Failure::from).and_then(|fabric| between(session, fabric, done));
    let removed = session.remove(&name, true);
    let measured = measured?;
    removed?;
    Ok(measured)
}

/// How long it takes to read so many bytes through the bare way, several reads of 1 MiB in flight, with nothing verified: what a load cannot
/// be faster than.
///
/// # Errors
/// What the provider fails with.
pub fn read_all(fabric: &mut Fabric, bytes: usize) -> Result<Duration> {
    let Fabric { endpoint, local, .. } = fabric;
    let began = Instant::now();
    Stream::measure(&mut OneSided::new(endpoint, local, Movement::Read, 1 << 20), bytes >> 20, IN_FLIGHT)?;
    Ok(began.elapsed())
}

fn between(session: &Session, fabric: Fabric, mut done: impl FnMut()) -> Result<Between> {
    let Fabric { mut endpoint, local, node_name: to, provider, device, .. } = fabric;
    let (mut latency, mut bandwidth) = (Vec::new(), Vec::new());
    for movement in OPERATIONS {
        for (bytes, _) in SIZES {
            latency.push(one_by_one(&mut OneSided::new(&mut endpoint, &local, movement, bytes), movement, bytes)?);
            done();
        }
    }
    for movement in OPERATIONS {
        for bytes in STREAMED {
            bandwidth.push(in_flight(&mut OneSided::new(&mut endpoint, &local, movement, bytes), movement, bytes)?);
            done();
        }
    }
    Ok(Between { from: session.node_name(), to, provider, device, latency, bandwidth })
}

fn one_by_one(pipe: &mut impl Pipe, movement: Movement, bytes: usize) -> Result<Latency> {
    Stream::measure(pipe, WARM_UP, 1)?;
    let stream = Stream::measure_for(pipe, ITERATIONS, 1, LONGEST)?;
    let mut times: Vec<_> = stream.latencies().map(|took| u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)).collect();
    // As `Percentiles` divides: by another way the longest time can come out a rounding below a percentile of it.
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of minutes fit into 53 bits")]
    let usec: Vec<f64> = times.iter().map(|&nanoseconds| nanoseconds as f64 / 1000.0).collect();
    let Percentiles { p50, p99, p999, count: iterations } = Percentiles::of(&mut times);
    let average = usec.iter().sum::<f64>() / count(iterations);
    let variance = usec.iter().map(|took| (took - average).powi(2)).sum::<f64>() / count(iterations);
    Ok(Latency {
        operation: movement.name(),
        bytes,
        iterations,
        t_min_usec: usec.iter().copied().fold(f64::INFINITY, f64::min),
        t_max_usec: usec.iter().copied().fold(0.0, f64::max),
        t_typical_usec: p50,
        t_avg_usec: average,
        t_stdev_usec: variance.sqrt(),
        percentile_99_usec: p99,
        percentile_99_9_usec: p999,
    })
}

fn in_flight(pipe: &mut impl Pipe, movement: Movement, bytes: usize) -> Result<Bandwidth> {
    Stream::measure(pipe, WARM_UP, IN_FLIGHT)?;
    let stream = Stream::measure_for(pipe, ITERATIONS, IN_FLIGHT, LONGEST)?;
    let mib_per_sec = |rate: f64| rate * count(bytes) / count(1 << 20);
    Ok(Bandwidth {
        operation: movement.name(),
        bytes,
        iterations: stream.done(),
        in_flight: IN_FLIGHT,
        peak_mib_per_sec: mib_per_sec(stream.best_rate()),
        average_mib_per_sec: mib_per_sec(stream.rate()),
        message_rate_mpps: stream.rate() / 1e6,
    })
}
