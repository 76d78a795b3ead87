//! Shared memory against plain copies.

use std::sync::atomic::Ordering;
use std::time::Instant;

use segstore_transport::memory::copy_non_temporal;
use segstore_transport::shm::Shm;
use segstore_transport::{Endpoint, Grant, Memory, Operation, Peer, Provider, Region, Rights, Wait};

use crate::{Failure, Second, TURNS, answer, hex, median, time, unhex};

const BULK: usize = 64 << 20;
/// Where the target answers the cache-line probe.
const PROBE: usize = BULK;
pub(crate) const LEN: usize = BULK + 4096;

/// The target's side: admits the initiator whose hello is the next line.
pub(crate) fn admit() -> Result<(Region, Peer), Failure> {
    let domain = Shm::new().open()?;
    let region = domain.register(&Memory::anonymous(LEN)?, Rights::ALL)?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let (peer, reply) = domain.admit(&unhex(&line)?, &[Grant { region: &region, rights: Rights::ALL }])?;
    answer(&hex(&reply))?;
    Ok((region, peer))
}

/// Answers probes until there are no more.
pub(crate) fn answer_probes(region: &Region, peer: &Peer) -> Result<(), Failure> {
    let mut answered = 0;
    while peer.is_alive() {
        let asked = region.memory().load_u64(PROBE, Ordering::Acquire)?;
        if asked == u64::MAX {
            break;
        }
        if asked != answered {
            answered = asked;
            region.memory().store_u64(PROBE + 64, answered, Ordering::Release)?;
        }
        std::hint::spin_loop();
    }
    region.memory().store_u64(PROBE, 0, Ordering::SeqCst)?;
    Ok(())
}

/// The initiator's side.
pub(crate) fn connect(second: &mut Second) -> Result<(Endpoint, Region), Failure> {
    let domain = Shm::new().open()?;
    let dialing = domain.dial()?;
    let reply = second.ask(&hex(dialing.hello()))?;
    let endpoint = dialing.complete(&unhex(&reply)?)?;
    Ok((endpoint, domain.register(&Memory::anonymous(LEN)?, Rights::LOCAL)?))
}

pub(crate) fn measure() -> Result<(), Failure> {
    let mut second = Second::start("shm-target")?;
    let (mut endpoint, local) = connect(&mut second)?;
    // Every page is there before anything is measured.
    local.memory().write_at(0, &vec![1; LEN])?;
    write(&mut endpoint, &local, 0, LEN, 1)?;
    let plain = Memory::anonymous(LEN)?;
    plain.write_at(0, &vec![1; LEN])?;

    println!("cache line between the two processes: {:.2} us a round trip", probe(&mut endpoint, &local)?);
    println!();
    println!("{:<28}{:>12}{:>12}{:>14}{:>10}", "target memory", "shm us", "memcpy us", "non-temp. us", "of best");
    for (name, len, span) in [
        ("64 B hot", 64, 64),
        ("4 KiB hot", 4 << 10, 4 << 10),
        ("64 KiB hot", 64 << 10, 64 << 10),
        ("64 KiB cold (64 MiB walk)", 64 << 10, BULK),
        ("256 KiB hot", 256 << 10, 256 << 10),
        ("256 KiB cold (64 MiB walk)", 256 << 10, BULK),
        ("1 MiB hot", 1 << 20, 1 << 20),
        ("1 MiB cold (64 MiB walk)", 1 << 20, BULK),
        ("16 MiB cold (64 MiB walk)", 16 << 20, BULK),
    ] {
        row(name, len, span, &mut endpoint, &local, &plain)?;
    }
    let batch = time(1000, || write(&mut endpoint, &local, 0, 1024, 4))?;
    println!("\nbatch of 4 writes of 1 KiB, posted and completed: {batch:.3} us");
    let probe = probe(&mut endpoint, &local)?;
    println!("cache line at the end: {probe:.2} us");
    end_probes(&mut endpoint, &local)
}

/// No more probes for now.
pub(crate) fn end_probes(endpoint: &mut Endpoint, local: &Region) -> Result<(), Failure> {
    local.memory().store_u64(PROBE, u64::MAX, Ordering::Relaxed)?;
    endpoint.post(&[Operation::write(local.slice(PROBE, 8)?, 0, PROBE as u64)], 0)?;
    endpoint.poll().ok_or("not completed")?.result?;
    Ok(())
}

/// Writes `parts` of `len` bytes in one batch and takes the completion.
fn write(endpoint: &mut Endpoint, local: &Region, at: usize, len: usize, parts: usize) -> Result<(), Failure> {
    let part = |index: usize| -> Result<_, Failure> {
        let at = at + index * len;
        Ok(Operation::write(local.slice(at, len)?, 0, at as u64))
    };
    match parts {
        1 => endpoint.post(&[part(0)?], 0)?,
        _ => endpoint.post(&[part(0)?, part(1)?, part(2)?, part(3)?], 0)?,
    }
    endpoint.poll().ok_or("not completed")?.result?;
    Ok(())
}

/// The three ways in turn, so that a change of the machine meets all.
fn row(
    name: &str,
    len: usize,
    span: usize,
    endpoint: &mut Endpoint,
    local: &Region,
    plain: &Memory,
) -> Result<(), Failure> {
    let times = (BULK / len).min(2000);
    let (mut shm, mut memcpy, mut streamed) = (Vec::new(), Vec::new(), Vec::new());
    let source = local.memory().as_ptr();
    let places: Vec<usize> = (0..times).map(|number| number * len % span).collect();
    for _ in 0..TURNS {
        let mut next = places.iter().cycle();
        let mut place = || *next.next().unwrap_or(&0);
        shm.push(time(times, || write(endpoint, local, place(), len, 1))?);
        memcpy.push(time(times, || {
            let at = place();
            // SAFETY: places end inside both mappings, which are separate.
            unsafe { std::ptr::copy_nonoverlapping(source.wrapping_add(at), plain.as_ptr().wrapping_add(at), len) };
            Ok(())
        })?);
        streamed.push(time(times, || {
            let at = place();
            // SAFETY: as above.
            unsafe { copy_non_temporal(source.wrapping_add(at), plain.as_ptr().wrapping_add(at), len) };
            Ok(())
        })?);
    }
    let (shm, memcpy, streamed) = (median(shm), median(memcpy), median(streamed));
    println!("{name:<28}{shm:>12.3}{memcpy:>12.3}{streamed:>14.3}{:>10.2}", shm / memcpy.min(streamed));
    Ok(())
}

/// A word there and back: median microseconds.
pub(crate) fn probe(endpoint: &mut Endpoint, local: &Region) -> Result<f64, Failure> {
    let mut rounds = Vec::new();
    let before = local.memory().load_u64(PROBE + 128, Ordering::Relaxed)?;
    for number in before..before + 2000 {
        let start = Instant::now();
        local.memory().store_u64(PROBE, number + 2, Ordering::Relaxed)?;
        endpoint.post(&[Operation::write(local.slice(PROBE, 8)?, 0, PROBE as u64)], 0)?;
        endpoint.wait(Wait::Busy, None).ok_or("not completed")?.result?;
        while local.memory().load_u64(PROBE + 64, Ordering::Acquire)? != number + 2 {
            endpoint.post(&[Operation::read(local.slice(PROBE + 64, 8)?, 0, PROBE as u64 + 64)], 0)?;
            endpoint.poll().ok_or("not completed")?.result?;
        }
        rounds.push(start.elapsed().as_secs_f64() * 1e6);
    }
    local.memory().store_u64(PROBE + 128, before + 2000, Ordering::Relaxed)?;
    Ok(median(rounds))
}
