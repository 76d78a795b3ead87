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
    if undo {
        say(context, node, false, &[]);
        return Ok(());
    }
    let left = move_off(&session, node, Instant::now() + wait)?;
    let kept: Vec<_> = left.iter().filter(|left| left.has_replica).collect();
    if !kept.is_empty() {
        let reasons: Vec<_> = kept.iter().map(|left| why(&session, left)).collect();
        let text = format!("node {node} keeps a replica still of {}; it goes on being drained", reasons.join("; "));
        return Err(Error::NoRoom(text).into());
    }
    say(context, node, true, &left);
    Ok(())
}

/// Until nothing is left, or the time is over: what is left then.
fn move_off(session: &Session, node: &str, until: Instant) -> Result<Vec<Left>, Failure> {
    let mut moving: HashMap<String, Segment> = HashMap::new();
    let mut bar = None;
    loop {
        let left = session.vacate(node)?;
        let kept: Vec<_> = left.iter().filter(|left| left.has_replica).collect();
        let bar = bar.get_or_insert_with(|| progress::steps(kept.len() as u64));
        bar.set_message(format!("moving replicas off {node}"));
        bar.set_position(bar.length().unwrap_or(0).saturating_sub(kept.len() as u64));
        moving.retain(|name, _| kept.iter().any(|left| left.segment == *name));
        for left in kept.iter().filter(|left| left.holder.is_none()) {
            if moving.len() < AT_A_TIME && !moving.contains_key(&left.segment) {
                // Somebody may have come meanwhile, who does it then.
                if let Ok(segment) = session.open(&left.segment, &OpenOptions::new()) {
                    moving.insert(left.segment.clone(), segment);
                }
            }
        }
        if kept.is_empty() || Instant::now() >= until {
            bar.finish_and_clear();
            let names: Vec<_> = moving.into_keys().collect();
            // What this command owned until now is nobody's.
            return Ok(left.into_iter().filter(|left| left.has_replica || !names.contains(&left.segment)).collect());
        }
        std::thread::sleep(PAUSE);
    }
}

/// What the owner says of a replica that is still there.
fn why(session: &Session, left: &Left) -> String {
    let owner = session.status(&left.segment).ok().and_then(|status| status.owner);
    let said = owner.map(|owner| owner.warnings.join(", ")).filter(|said| !said.is_empty());
    format!("{}: {}", left.segment, said.as_deref().unwrap_or("another is not in sync so far"))
}

fn say(context: &Context, node: &str, is_drained: bool, left: &[Left]) {
    let owned: Vec<_> = left
        .iter()
        .filter_map(|left| {
            let holder = left.holder.as_ref().filter(|holder| holder.node_name == node)?;
            Some((left.segment.clone(), format!("{} (process {})", holder.program, holder.pid)))
        })
        .collect();
    if context.json {
        let owned: Vec<_> =
            owned.iter().map(|(name, who)| serde_json::json!({ "segment": name, "owner": who })).collect();
        json(&serde_json::json!({ "node": node, "draining": is_drained, "owned_there": owned }));
        return;
    }
    if !is_drained {
        return line(format_args!("{node} may get replicas again"));
    }
    if owned.is_empty() {
        return line(format_args!("{node} keeps nothing that is needed: its machine may be switched off"));
    }
    let owned: Vec<_> = owned.iter().map(|(name, who)| format!("{name} by {who}")).collect();
    let count = units::count(owned.len() as u64, "segment");
    line(format_args!("{node} keeps no replica, but applications there own {count}: {}", owned.join(", ")));
    line(format_args!("End them, or let others take over, before its machine is switched off."));
}
