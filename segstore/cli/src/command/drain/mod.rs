//! `segctl drain`.

mod orphaned;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use segstore::{Error, Left, Session};

use super::{Context, owner_warnings};
use crate::exit::Failure;
use crate::output::{json, line, progress, units};
use orphaned::Orphaned;

/// How often to look what is left.
const PAUSE: Duration = Duration::from_millis(300);
/// How many segments are named where more are left.
const NAMED: usize = 8;

pub(crate) fn run(context: &Context, node: &str, undo: bool, wait: Duration) -> Result<(), Failure> {
    // What it owns is nobody's when it ends, whoever has started it.
    let session = context.own_session()?;
    session.drain(node, !undo)?;
    if !undo {
        move_off(&session, node, Instant::now() + wait)?;
        if session.nodes()?.iter().any(|found| found.name == node && found.directory) {
            let text = format!(
                "{node} keeps no replica any more, but the cluster's directory: while it is away nothing can be taken over. Move that first: \
                 segctl directory export"
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
    let (mut orphaned, mut bar, mut is_told) = (Orphaned::default(), None, false);
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
        let (kept, owned): (Vec<_>, Vec<_>) = left.into_iter().partition(is_kept);
        let owned: Vec<_> = owned.into_iter().filter(|left| !is_own(session, left)).collect();
        let count = kept.len() as u64;
        let bar = bar.get_or_insert_with(|| progress::steps(count));
        bar.set_message(format!("moving replicas off {node}"));
        bar.set_position(bar.length().unwrap_or(0).saturating_sub(count));
        if kept.is_empty() && !owned.is_empty() && !is_told {
            is_told = true;
            bar.suspend(|| eprintln!("segctl: waiting for {}", applications(node, &owned)));
        }
        if kept.is_empty() && owned.is_empty() || is_over {
            bar.finish_and_clear();
            return unfinished(session, node, &kept, &owned, &orphaned.reasons(session));
        }
        orphaned.move_some(session, &kept);
        std::thread::sleep(PAUSE);
    }
}

/// Whether a replica is there that is needed, or may be.
fn is_kept(left: &Left) -> bool {
    left.has_replica || left.is_written
}

/// Whether it is this process that owns it.
fn is_own(session: &Session, left: &Left) -> bool {
    left.holder.as_ref().is_some_and(|holder| {
        u32::try_from(holder.pid) == Ok(std::process::id()) && holder.node_name == session.node_name()
    })
}

/// What is left, if anything.
fn unfinished(
    session: &Session,
    node: &str,
    kept: &[Left],
    owned: &[Left],
    reasons: &HashMap<String, String>,
) -> Result<(), Failure> {
    if kept.is_empty() && owned.is_empty() {
        return Ok(());
    }
    if kept.is_empty() {
        let text = format!("{node} keeps no replica any more; still to wait for: {}", applications(node, owned));
        return Err(Failure::Refused(text));
    }
    let why = |left: &Left| {
        let why = reasons.get(&left.segment).cloned().unwrap_or_else(|| why(session, &left.segment));
        format!("{}: {why}", left.segment)
    };
    let named: Vec<_> = kept.iter().take(NAMED).map(why).collect();
    let count = units::count(kept.len() as u64, "segment");
    let more = if kept.len() > NAMED { format!("; and {} more", kept.len() - NAMED) } else { String::new() };
    let text =
        format!("{node} still keeps a replica of {count}, and goes on being drained: {}{more}", named.join("; "));
    Err(Error::NoRoom(text).into())
}

/// Who is to be ended there.
fn applications(node: &str, left: &[Left]) -> String {
    let owned = left.iter().filter_map(|left| {
        let holder = left.holder.as_ref().filter(|holder| holder.node_name == node)?;
        Some(format!("{} (process {}), which owns {}", holder.program, holder.pid, left.segment))
    });
    let owned = owned.collect::<Vec<_>>().join(", ");
    format!("applications on {node}: {owned}. End them there, or let others take over")
}

/// What a segment's owner says of a replica that is still there.
fn why(session: &Session, name: &str) -> String {
    match owner_warnings(session, name) {
        none if none.is_empty() => "another is not in sync so far".to_owned(),
        said => said.join(", "),
    }
}
