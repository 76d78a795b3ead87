//! What a segment takes, at its owner and at each replica.

use std::time::Duration;

use nix::unistd::getpid;
use segstore::{CreateOptions, OpenOptions, Session};
use serde::Serialize;

use crate::Result;

/// Memory as multiples of the segment's length.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// Bytes of the segment, all of them in use.
    pub segment: u64,
    /// At the owner: what its process has of its own. To reach: 1.02.
    pub owner: f64,
    /// At a replica: what its node counts against its budget. To reach: 2.02.
    pub replica: f64,
}

/// Measures a full segment of `length` bytes, whose changes are told, with one replica. It is made for it and removed again.
///
/// # Errors
/// What the cluster says: no room, too few nodes.
pub fn measure(session: &Session, length: u64) -> Result<Memory> {
    let name = format!("perf/memory-{}", std::process::id());
    let (own, kept) = (own(getpid().as_raw())?, kept(session)?);
    let how = OpenOptions::new().timeout(Duration::from_secs(120));
    let mut segment = session.open_or_create(&name, &CreateOptions::new(length), &how)?;
    segment.set_len(segment.capacity())?;
    for _ in 0..3 {
        segment.bytes_mut(..)?.fill(1);
        segment.checkpoint()?;
    }
    let memory = own_and_kept(session, length, own, kept);
    drop(segment);
    let removed = session.remove(&name, true);
    let memory = memory?;
    removed?;
    Ok(memory)
}

fn own_and_kept(session: &Session, length: u64, own_before: u64, kept_before: u64) -> Result<Memory> {
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let of_segment = |bytes: u64| bytes as f64 / length as f64;
    let owner = of_segment(own(getpid().as_raw())?.saturating_sub(own_before));
    // What a node tells of itself arrives a moment later.
    let until = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let replica = of_segment(kept(session)?.saturating_sub(kept_before));
        if replica > 0.0 {
            return Ok(Memory { segment: length, owner, replica });
        }
        if std::time::Instant::now() > until {
            return Err("no node tells of the replica's memory".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Bytes in memory that a process shares with nobody.
///
/// # Errors
/// There is no such process.
pub fn own(pid: i32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(kib.ok_or_else(|| format!("/proc/{pid}/status says nothing of RssAnon"))? << 10)
}

/// Bytes that all nodes keep for replicas.
fn kept(session: &Session) -> Result<u64> {
    Ok(session.nodes()?.iter().map(|node| node.used).sum())
}
