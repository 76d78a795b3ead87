//! What a replica's daemon takes of the processor while checkpoints come in, beside what it takes when none do.

use std::time::Instant;

use nix::unistd::{SysconfVar, sysconf};
use segstore::{CreateOptions, Error, OpenOptions, Segment, Session};
use serde::Serialize;

use crate::{Failure, Result};

/// Bytes of the segment, in blocks of 4 KiB.
const CAPACITY: u64 = 1 << 20;

/// Seconds of the processor's time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Used {
    /// In user space.
    pub user_sec: f64,
    /// In the kernel, by this process.
    pub system_sec: f64,
}

/// A replica's daemon, busy and idle for as long. The kernel counts in steps of 10 ms.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Processor {
    /// Checkpoints of one changed block of 4 KiB.
    pub checkpoints: u32,
    /// How long they took, and how long nothing was done.
    pub span_sec: f64,
    /// What the daemon used while they came.
    pub busy: Used,
    /// What it used of as long a time without any.
    pub idle: Used,
}

/// Makes so many checkpoints of one changed block, with one replica. The segment is made for it and removed again. `process` knows
/// the number of a node's daemon.
///
/// # Errors
/// What the cluster says: no room, no other node; the daemon is not known.
pub fn measure(session: &Session, checkpoints: u32, process: impl Fn(&str) -> Option<i32>) -> Result<Processor> {
    let name = format!("perf/processor-{}", std::process::id());
    let opened = session.open_or_create(&name, &CreateOptions::new(CAPACITY), &OpenOptions::new());
    let measured =
        opened.map_err(Failure::from).and_then(|segment| busy_and_idle(session, segment, checkpoints, process));
    let removed = session.remove(&name, true);
    let measured = measured?;
    removed?;
    Ok(measured)
}

fn busy_and_idle(
    session: &Session,
    mut segment: Segment,
    checkpoints: u32,
    process: impl Fn(&str) -> Option<i32>,
) -> Result<Processor> {
    segment.set_len(segment.capacity())?;
    let info = session.lookup(segment.name())?;
    let here = session.node_name();
    let place = info.places.iter().find(|place| place.node_name != here);
    let place = place.ok_or_else(|| Error::NoRoom("no other node has room for a replica".into()))?;
    let pid = process(&place.node_name).ok_or_else(|| format!("no process of node {} is known", place.node_name))?;
    // Every page of both slots is there.
    for _ in 0..3 {
        segment.bytes_mut(..)?.fill(1);
        segment.checkpoint()?;
    }
    let before = used(pid)?;
    let began = Instant::now();
    for number in 0..checkpoints {
        segment.write(0, &number.to_le_bytes())?;
        segment.checkpoint()?;
    }
    let span = began.elapsed();
    let between = used(pid)?;
    std::thread::sleep(span);
    let after = used(pid)?;
    Ok(Processor { checkpoints, span_sec: span.as_secs_f64(), busy: between - before, idle: after - between })
}

impl std::ops::Sub for Used {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { user_sec: self.user_sec - before.user_sec, system_sec: self.system_sec - before.system_sec }
    }
}

/// Of a process since it started, from its line in `/proc`.
fn used(pid: i32) -> Result<Used> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name ends with the last parenthesis; the times are fields 14 and 15, and the name is the second.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).into_iter().flatten();
    let ticks: Vec<f64> = fields.skip(11).take(2).map(str::parse).collect::<std::result::Result<_, _>>()?;
    let each = sysconf(SysconfVar::CLK_TCK)?.ok_or("the system does not say how long its ticks are")?;
    let each = f64::from(i32::try_from(each)?).recip();
    match ticks[..] {
        [user, system] => Ok(Used { user_sec: user * each, system_sec: system * each }),
        _ => Err(format!("/proc/{pid}/stat has no times").into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_process_that_computes_uses_user_time() {
        let own = i32::try_from(std::process::id()).expect("it is one");
        let before = used(own).expect("it runs");
        let until = Instant::now() + Duration::from_secs(20);
        while (used(own).expect("it runs") - before).user_sec < 0.05 {
            assert!(Instant::now() < until, "computing is not counted");
            (0..100_000).for_each(|number: u32| _ = std::hint::black_box(number));
        }
    }
}
