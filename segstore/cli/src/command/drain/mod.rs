//! `segctl drain`.

mod owned;

use std::time::{Duration, Instant};

use segstore::{Error, Left, Session};

use super::{Context, warnings};
use crate::exit::Failure;
use crate::output::{json, line, progress, units};
use owned::Owned;

/// How often to look what is left.
const PAUSE: Duration = Duration::from_millis(300);
/// How many segments are named where more are left.
const NAMED: usize = 8;

pub(crate) fn run(context: &Context, node: &str, undo: bool, wait: Duration) -> Result<(), Failure> {
    let session = context.session()?;
    session.drain(node, !undo)?;
    if !undo {
        move_off(&session, node, Instant::now() + wait)?;
        if session.nodes()?.iter().any(|found| found.name == node && found.directory) {
            let text = format!(
                "{node} keeps no replica any more, but the cluster's directory: while it is away nothing can be taken over. Move that first: \
                 segctl directory export, and import (segctl directory --help)"
            );
            return Err(Failure::Refused(text));
        }
    }
    if context.json {
        json(&serde_json::json!({ "node": node, "draining": !undo }));
    } else if undo {
        line(format_args!("{node} may get replicas again"));
    } else {
        line(format_args!("Nothing is left on {node}: its machine may be switched off."));
    }
    Ok(())
}

/// Until nothing is left, or the time is over.
fn move_off(session: &Session, node: &str, until: Instant) -> Result<(), Failure> {
    let (mut applications, mut bar, mut is_told) = (Owned::new(), None, false);
    loop {
        let is_over = Instant::now() >= until;
        let left = match session.left(node) {
            Ok(left) => left,
            // A node that is busy for a moment.
            Err(Error::Unreachable(_)) if !is_over => {
                std::thread::sleep(PAUSE);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let is_owned = |left: &&Left| left.holder.as_ref().is_some_and(|holder| holder.node_name == node);
        let owned: Vec<_> = left.iter().filter(is_owned).cloned().collect();
        let kept: Vec<_> = left.into_iter().filter(is_kept).collect();
        if !is_over {
            applications.ask(session, &owned, until);
        }
        let count = kept.len() as u64;
        let bar = bar.get_or_insert_with(|| progress::steps(count));
        bar.set_message(format!("moving replicas off {node}"));
        bar.set_position(bar.length().unwrap_or(0).saturating_sub(count));
        if kept.is_empty() && !owned.is_empty() && !is_told {
            is_told = true;
            bar.suspend(|| eprintln!("segctl: waiting for {}", applications.told(node, &owned)));
        }
        if kept.is_empty() && owned.is_empty() || is_over {
            bar.finish_and_clear();
            let owned = (!owned.is_empty()).then(|| applications.told(node, &owned));
            return unfinished(session, node, &kept, owned);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether a replica is there that is needed, or may be.
fn is_kept(left: &Left) -> bool {
    left.has_replica || left.is_written
}

/// What is left, if anything.
fn unfinished(session: &Session, node: &str, kept: &[Left], owned: Option<String>) -> Result<(), Failure> {
    if kept.is_empty() {
        return owned.map_or(Ok(()), |owned| {
            Err(Failure::Refused(format!("{node} keeps no replica any more; still to wait for: {owned}")))
        });
    }
    let why = |left: &Left| format!("{}: {}", left.segment, why(session, &left.segment));
    let named: Vec<_> = kept.iter().take(NAMED).map(why).collect();
    let count = units::count(kept.len() as u64, "segment");
    let more = if kept.len() > NAMED { format!("; and {} more", kept.len() - NAMED) } else { String::new() };
    let text =
        format!("{node} still keeps a replica of {count}, and goes on being drained: {}{more}", named.join("; "));
    Err(Error::NoRoom(text).into())
}

/// What is said of a segment of which a replica is still there.
fn why(session: &Session, name: &str) -> String {
    match warnings(session, name) {
        none if none.is_empty() => "another is not in sync so far".to_owned(),
        said => said.join(", "),
    }
}
