//! `segctl drain`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use segstore::{Error, Left, OpenOptions, Segment, Session};

use super::Context;
use crate::exit::Failure;
use crate::output::{json, line, progress, units};

/// How often to look what is left.
const PAUSE: Duration = Duration::from_millis(300);
/// Segments that nobody owns, and that are moved at a time: each is loaded.
const AT_A_TIME: usize = 4;

pub(crate) fn run(context: &Context, node: &str, undo: bool, wait: Duration) -> Result<(), Failure> {
    let session = context.session()?;
    session.drain(node, !undo)?;
    if !undo {
        let left = move_off(&session, node, Instant::now() + wait)?;
        if !left.is_empty() {
            return Err(unfinished(&session, node, &left));
        }
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

/// Until nothing is left, or the time is over: what is left then.
fn move_off(session: &Session, node: &str, until: Instant) -> Result<Vec<Left>, Failure> {
    // What this command owns meanwhile.
    let mut moving: HashMap<String, Segment> = HashMap::new();
    let (mut bar, mut is_told) = (None, false);
    loop {
        let mut left = session.left(node)?;
        moving.retain(|name, _| left.iter().any(|left| left.segment == *name && is_kept(left)));
        left.retain(|left| is_kept(left) || !is_own(left));
        let kept = left.iter().filter(|left| is_kept(left)).count() as u64;
        let bar = bar.get_or_insert_with(|| progress::steps(kept));
        bar.set_message(format!("moving replicas off {node}"));
        bar.set_position(bar.length().unwrap_or(0).saturating_sub(kept));
        if kept == 0 && !left.is_empty() && !is_told {
            is_told = true;
            bar.suspend(|| eprintln!("segctl: waiting for {}", applications(node, &left)));
        }
        if left.is_empty() || Instant::now() >= until {
            bar.finish_and_clear();
            return Ok(left);
        }
        for left in left.iter().filter(|left| left.holder.is_none()) {
            if moving.len() < AT_A_TIME && !moving.contains_key(&left.segment) {
                // Somebody may have come meanwhile, who does it then.
                if let Ok(segment) = session.open(&left.segment, &OpenOptions::new()) {
                    moving.insert(left.segment.clone(), segment);
                }
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether a replica is there that is needed, or may be.
fn is_kept(left: &Left) -> bool {
    left.has_replica || left.is_written
}

/// Whether it is this process that owns it.
fn is_own(left: &Left) -> bool {
    left.holder.as_ref().is_some_and(|holder| u32::try_from(holder.pid) == Ok(std::process::id()))
}

fn unfinished(session: &Session, node: &str, left: &[Left]) -> Failure {
    let kept: Vec<_> = left.iter().filter(|left| is_kept(left)).map(|left| why(session, left)).collect();
    if kept.is_empty() {
        let text = format!("{node} keeps no replica any more; still to wait for: {}", applications(node, left));
        return Failure::Refused(text);
    }
    let count = units::count(kept.len() as u64, "segment");
    let text = format!("{node} still keeps a replica of {count}, and goes on being drained: {}", kept.join("; "));
    Error::NoRoom(text).into()
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

/// What the owner says of a replica that is still there.
fn why(session: &Session, left: &Left) -> String {
    let owner = session.status(&left.segment).ok().and_then(|status| status.owner);
    let said = owner.map(|owner| owner.warnings.join(", ")).filter(|said| !said.is_empty());
    let nobody = if left.holder.is_none() { "nobody owns it" } else { "another is not in sync so far" };
    format!("{}: {}", left.segment, said.as_deref().unwrap_or(nobody))
}
