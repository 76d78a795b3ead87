//! Loads of a whole segment, by an application's own call, into fresh memory.

use segstore::{CreateOptions, Error, LoadOptions, OpenOptions, Session};

use crate::fabric;
use crate::raw::{copy, socket};
use crate::{Bench, Over, Result, Row, Way};

/// Bytes of the segment whose replica is read barely, again and again: too many to stay in caches.
const BARE: u64 = 64 << 20;

/// One row, beside a plain movement of as many bytes; where it is not said what it goes `over`, beside bare reads from the replica's
/// node. The segment is made for it, with one replica, and removed again.
///
/// Nobody owns the segment: each load takes it over for a moment, with everything that belongs to it.
///
/// # Errors
/// What the cluster says: no room, too few nodes.
pub fn row(bench: &Bench, session: &Session, name: &str, length: usize, over: Option<Over>) -> Result<Row> {
    let segment = format!("perf/load-{}", std::process::id());
    let row = fill(session, &segment, length).and_then(|()| measure(bench, session, &segment, name, length, over));
    // Only where nothing is said of the way.
    let _ = session.remove(&bare(), true);
    let removed = session.remove(&segment, true);
    let row = row?;
    removed?;
    Ok(row)
}

fn fill(session: &Session, name: &str, length: usize) -> Result<()> {
    let make = CreateOptions::new(length as u64);
    let mut segment =
        session.open_or_create(name, &make, &OpenOptions::new().timeout(std::time::Duration::from_secs(120)))?;
    segment.set_len(length)?;
    for (number, page) in segment.bytes_mut(..)?.chunks_mut(4096).enumerate() {
        page.fill(number.to_le_bytes()[0] | 1);
    }
    segment.checkpoint()?;
    Ok(segment.release()?)
}

fn measure(
    bench: &Bench,
    session: &Session,
    segment: &str,
    name: &str,
    length: usize,
    over: Option<Over>,
) -> Result<Row> {
    let act = move || {
        let image = session.load(segment, &LoadOptions::new())?;
        if image.bytes().len() != length {
            return Err(format!("{} bytes were loaded of {length}", image.bytes().len()).into());
        }
        Ok(())
    };
    let ours = Way { what: "segstore", other: None, act: Box::new(act) };
    let plain_memory;
    let plain = match over {
        Some(Over::Shm) => {
            plain_memory = copy::Plain::new(length)?;
            plain_memory.into_fresh_memory(length)
        }
        Some(Over::Tcp) => vec![socket::into_fresh_memory(length)?],
        // Over RDMA fresh memory is registered first, which no plain form does as a matter of course.
        #[cfg(feature = "verbs")]
        Some(Over::Verbs) => Vec::new(),
        None => bare_reads(session, segment, length)?.into_iter().collect(),
    };
    bench.row(name, ours, plain)
}

fn bare() -> String {
    format!("perf/bare-{}", std::process::id())
}

/// As many bytes of another replica on the same node, with nothing of the protocol, into memory that was touched before. None where the
/// replica is on this node, or its node has no room for another one.
fn bare_reads(session: &Session, segment: &str, length: usize) -> Result<Option<Way<'static>>> {
    let here = session.node_name();
    let places = session.lookup(segment)?.places;
    let Some(place) = places.iter().find(|place| place.node_name != here) else { return Ok(None) };
    let beside = format!("node={}", place.node_name).parse()?;
    match session.create(&bare(), &CreateOptions::new(BARE).replicas(1).require(beside)) {
        Ok(_) => {}
        Err(Error::NoRoom(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let mut way = session.fabric(&bare())?;
    let act = move || fabric::read_all(&mut way, length).map(drop);
    Ok(Some(Way { what: "bare reads", other: None, act: Box::new(act) }))
}
