//! Writes and reads over RDMA beside the raw verbs, in turn, to a target that sleeps. `SEGSTORE_PEER` (rxb) is the device they
//! come from, `SEGSTORE_DEVICE` (rxa) the one they go to.
//!
//! The other benches have a second core for the other side; here the device is the other side, so one core will do.

use std::time::Instant;

use segstore_bench::moves::Movement;
use segstore_bench::raw::verbs;
use segstore_bench::stream::{OneSided, Pipe, Stream};
use segstore_bench::{Percentiles, Result, Way};
use segstore_transport::verbs::Verbs;
use segstore_transport::{Endpoint, Grant, Memory, Peer, Provider, Region, Rights};

/// How many times each way has its turn, and how long a turn is.
const ROUNDS: usize = 31;
const WRITES: usize = 1000;
/// Reads of 1 MiB: in flight, as a load has them, and in a turn.
const IN_FLIGHT: usize = 4;
const READS: usize = 64;
/// How many peers are revoked.
const REVOKES: usize = 200;

fn main() -> Result<()> {
    let device = |variable, default: &str| std::env::var(variable).unwrap_or_else(|_| default.into());
    let (to, from) = (device("SEGSTORE_DEVICE", "rxa"), device("SEGSTORE_PEER", "rxb"));
    for (len, size) in [(64, "64 B"), (4 << 10, "4 KiB"), (64 << 10, "64 KiB")] {
        let raw = verbs::write(&from, &to, len, 1)?;
        measure(&from, &to, len, raw, size)?;
    }
    stream_reads(&from, &to)?;
    for (len, size) in [(4 << 10, "4 KiB"), (256 << 20, "256 MiB")] {
        revoke(&from, &to, len, size)?;
    }
    Ok(())
}

/// A peer that is connected, and one that is not, are revoked: it has to cost the same at any length.
fn revoke(from: &str, to: &str, len: usize, size: &str) -> Result<()> {
    let (target, initiator) = (Verbs::new().device(to).open()?, Verbs::new().device(from).open()?);
    let region = target.register(&Memory::anonymous(len)?, Rights::WRITE)?;
    for connects in [true, false] {
        let mut taken = Vec::with_capacity(REVOKES);
        for _ in 0..REVOKES {
            let dialing = initiator.dial()?;
            let (peer, reply) = target.admit(dialing.hello(), &[Grant { region: &region, rights: Rights::WRITE }])?;
            let _endpoint = connects.then(|| dialing.complete(&reply)).transpose()?;
            let began = Instant::now();
            peer.revoke()?;
            taken.push(u64::try_from(began.elapsed().as_nanos())?);
        }
        let Percentiles { p50, p99, .. } = Percentiles::of(&mut taken);
        let whom = if connects { "a peer" } else { "who never came" };
        println!("revoke {whom} of {size} over verbs: p50 {p50:.2} p99 {p99:.2} us");
    }
    Ok(())
}

/// An endpoint to memory of another device, memory for it on this side, and whom the other side admitted.
fn connect(from: &str, to: &str, len: usize, rights: Rights) -> Result<(Endpoint, Region, Peer)> {
    let (target, initiator) = (Verbs::new().device(to).open()?, Verbs::new().device(from).open()?);
    let filled = || -> Result<Memory> {
        let memory = Memory::anonymous(len)?;
        memory.write_at(0, &vec![1; len])?;
        Ok(memory)
    };
    let region = target.register(&filled()?, rights)?;
    let local = initiator.register(&filled()?, Rights::LOCAL)?;
    let dialing = initiator.dial()?;
    let (peer, reply) = target.admit(dialing.hello(), &[Grant { region: &region, rights }])?;
    Ok((dialing.complete(&reply)?, local, peer))
}

/// What they bring in a second.
fn stream_reads(from: &str, to: &str) -> Result<()> {
    const MIB: usize = 1 << 20;
    let (mut endpoint, local, _peer) = connect(from, to, IN_FLIGHT * MIB, Rights::READ)?;
    let mut ours = OneSided::new(&mut endpoint, &local, Movement::Read, MIB);
    let mut raw = verbs::reads(from, to, MIB, IN_FLIGHT)?;
    let (mut all, mut plain, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let one = Stream::measure(&mut ours, READS, IN_FLIGHT)?.rate();
        let other = Stream::measure(&mut raw, READS, IN_FLIGHT)?.rate();
        ratios.push(one / other);
        all.push(one);
        plain.push(other);
    }
    let [ours, plain, ratio] = [all, plain, ratios].map(|mut values| {
        values.sort_by(f64::total_cmp);
        values[ROUNDS / 2]
    });
    print!("read 1 MiB over verbs, {IN_FLIGHT} in flight: {ours:.1} MiB/s; raw verbs: {plain:.1} MiB/s; ");
    println!("of raw {ratio:.2}");
    Ok(())
}

fn measure(from: &str, to: &str, len: usize, mut raw: Way<'_>, size: &str) -> Result<()> {
    let (mut endpoint, local, _peer) = connect(from, to, len, Rights::WRITE)?;
    let mut pipe = OneSided::new(&mut endpoint, &local, Movement::Write, len);
    let act = move || pipe.post().and_then(|()| pipe.complete());
    let mut ours = Way { what: "segstore", other: None, act: Box::new(act) };
    let (mut all, mut plain, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (mut one, mut other) = (turn(&mut ours)?, turn(&mut raw)?);
        ratios.push(Percentiles::of(&mut one).p50 / Percentiles::of(&mut other).p50);
        all.append(&mut one);
        plain.append(&mut other);
    }
    ratios.sort_by(f64::total_cmp);
    let (ours, plain) = (Percentiles::of(&mut all), Percentiles::of(&mut plain));
    let Percentiles { p50, p99, .. } = ours;
    let way = raw.what;
    print!("write {size} over verbs: p50 {p50:.2} p99 {p99:.2} us; {way}: ");
    println!("p50 {:.2} p99 {:.2} us; ratio {:.2}", plain.p50, plain.p99, ratios[ROUNDS / 2]);
    Ok(())
}

/// Nanoseconds of each write.
fn turn(way: &mut Way<'_>) -> Result<Vec<u64>> {
    let mut taken = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let began = Instant::now();
        (way.act)()?;
        taken.push(u64::try_from(began.elapsed().as_nanos())?);
    }
    Ok(taken)
}
