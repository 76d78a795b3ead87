//! Several segments that one application owns together.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::error::{Error, Result};
use crate::lock::lock;
use crate::options::OpenOptions;
use crate::segment::Segment;
use crate::session::Session;
use crate::turn::{self, Turn};

/// Takeovers at a time: most of each is waiting for the directory, and for replicas.
const AT_A_TIME: usize = 16;

/// Opens all of them or none, in the order in which they are named.
pub(crate) fn open_all(session: &Session, names: &[&str], options: &OpenOptions) -> Result<Vec<Segment>> {
    // In one order, whatever the order of the names: of two who want some of the same, one waits for the other, and never both.
    let mut ordered = names.to_vec();
    ordered.sort_unstable();
    if let Some([name, _]) = ordered.array_windows().find(|[one, other]| one == other) {
        return Err(Error::Invalid(format!("segment {name} is named twice: each can be opened once")));
    }
    if options.force {
        // Before any owner is disturbed.
        names.iter().try_for_each(|name| session.inner.lookup(name).map(drop))?;
    }
    let turns = turn::wait_for(&session.inner, &ordered, options)?;
    let turns = Mutex::new(ordered.into_iter().zip(turns));
    let opened = Mutex::new(Ok(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 1..AT_A_TIME.min(names.len()) {
            let thread = std::thread::Builder::new().name("segstore-open".into());
            // Where none can be started, those that there are do it.
            let _ = thread.spawn_scoped(scope, || take_turns(session, &turns, options, &opened));
        }
        take_turns(session, &turns, options, &opened);
    });
    let mut opened = opened.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)?;
    Ok(names.iter().filter_map(|name| opened.remove(name)).collect())
}

/// Takes over one after the other, until none is left or one of them could not be.
fn take_turns<'n>(
    session: &Session,
    turns: &Mutex<impl Iterator<Item = (&'n str, Turn)>>,
    options: &OpenOptions,
    opened: &Mutex<Result<BTreeMap<&'n str, Segment>>>,
) {
    while lock(opened).is_ok()
        && let Some((name, turn)) = { lock(turns).next() }
    {
        let segment = session.inner.lookup(name).and_then(|info| Segment::take_over(turn, info, options));
        let mut opened = lock(opened);
        match (segment, &mut *opened) {
            (Ok(segment), Ok(all)) => drop(all.insert(name, segment)),
            (Err(error), Ok(_)) => *opened = Err(error),
            // Another was the first that could not be.
            (_, Err(_)) => {}
        }
    }
}
