//! Handing a name over to another node: its holder is asked to let it go, and its daemon gives it to who stands by there.

use std::sync::Arc;
use std::time::Duration;

use segstore::control::message::{Answer, Fault, FaultKind, Holder, Standby};
use segstore_core::id::NodeId;

use super::{Client, names};
use crate::cluster::{check_name, holder_key};
use crate::directory::DirectoryError;
use crate::node::{Node, SHORT, directory_fault, unexpected};
use crate::peers::message::{Call, Reply};
use crate::sessions::credentials::Want;

/// The longest that is waited for.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// Between two looks whether somebody has a name that is free.
const PAUSE: Duration = Duration::from_millis(50);

/// Has a name handed over to whoever stands by for it on that node, or on any: answers when that one holds it.
pub(super) async fn hand_over(client: &Client, name: &str, to: Option<&str>, wait: u64) -> Result<Answer, Fault> {
    check_name(name)?;
    let (node, wait) = (&client.node, Duration::from_millis(wait).min(LONGEST));
    match client.segment(name, Want::Write).await {
        // Whose name it is without a segment nobody knows.
        Err(fault) if fault.kind == FaultKind::NotFound => client.check_operator("move a name of no segment")?,
        found => drop(found?),
    }
    let to = to.map(|to| node.named(to)).transpose()?;
    let Some((holder, _)) = node.holder(name).await? else {
        let text = format!("nobody holds {name}: there is nothing to hand over, whoever opens it has it");
        return Err(Fault::new(FaultKind::NotFound, text));
    };
    if to == Some(holder.node) {
        return Ok(Answer::Moved { holder });
    }
    let to = choose(node, name, to, &holder).await?;
    let to_name = node.view.name(to);
    let time = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let call = Call::Move { name: name.to_owned(), session: holder.session, to, to_name: to_name.clone(), time };
    let whom = names::named(&holder);
    let asked = node.call(holder.node, call, 3 * SHORT).await.map_err(|fault| match fault.kind {
        FaultKind::NotHeld | FaultKind::Unsupported => {
            let text = format!(
                "{whom} cannot be asked to let go of {name}: it does not hear of moves (`Segment::moves`). End it there, and whoever \
                 stands by has it"
            );
            Fault::new(FaultKind::Denied, text)
        }
        _ => fault,
    })?;
    tracing::info!(segment = name, "{whom} was asked to let it go, for node {to_name}");
    match tokio::time::timeout(wait, until_held_by_another(node, name, &holder)).await {
        Ok(Ok(Some(now))) => Ok(Answer::Moved { holder: now }),
        Ok(Ok(None)) => {
            let text = format!("{whom} has let go of {name}, and node {to_name} did not take it: nobody has it now");
            Err(Fault::new(FaultKind::Unreachable, text))
        }
        Ok(Err(fault)) => Err(fault),
        Err(_) => {
            let wait = humantime::format_duration(wait);
            let silent = if asked == (Reply::Asked { is_heard: true }) { "" } else { ", has not answered" };
            let text = format!(
                "{whom} was asked to let go of {name}{silent}, and has not done it within {wait}. What it lets go later is for whoever \
                 stands by then"
            );
            Err(Fault::new(FaultKind::Unreachable, text))
        }
    }
}

/// A node where somebody stands by: this one, if one is named.
async fn choose(node: &Arc<Node>, name: &str, to: Option<NodeId>, holder: &Holder) -> Result<NodeId, Fault> {
    let nobody = |place: &str| {
        let (here, open) = (names::named(holder), format!("segctl run {name} -- ..."));
        let text = format!(
            "nobody stands by for {name} on {place}: start the application there first (`{open}`, or `OpenOptions::stand_by` in it). \
             {here} goes on"
        );
        Fault::new(FaultKind::Denied, text)
    };
    let Some(to) = to else {
        let unwanted = node.view.unwanted();
        let found = standbys(node, name).await.into_iter().map(|(at, _)| at);
        let found = found.into_iter().find(|at| *at != holder.node && !unwanted.contains(at));
        return found.ok_or_else(|| nobody("another node"));
    };
    if node.view.get(to)?.storage {
        return Err(names::only_keeps_replicas(&node.view.name(to)));
    }
    match node.call(to, Call::Standby { name: name.to_owned() }, SHORT).await? {
        Reply::Standby(found) if found.is_empty() => Err(nobody(&format!("node {}", node.view.name(to)))),
        Reply::Standby(_) => Ok(to),
        other => Err(unexpected(&other)),
    }
}

/// Who stands by for a name, on every node that answers.
pub(super) async fn standbys(node: &Arc<Node>, name: &str) -> Vec<(NodeId, Standby)> {
    let answers = node.call_all(&Call::Standby { name: name.to_owned() }, SHORT).await;
    let mut all: Vec<_> = answers
        .into_iter()
        .flat_map(|(entry, reply)| match reply {
            Reply::Standby(found) => found.into_iter().map(|standby| (entry.node, standby)).collect(),
            _ => Vec::new(),
        })
        .collect();
    all.sort_by(|(_, a), (_, b)| a.node_name.cmp(&b.node_name));
    all
}

/// Waits until another session holds the name than this one did, or nobody does for a while.
async fn until_held_by_another(node: &Arc<Node>, name: &str, former: &Holder) -> Result<Option<Holder>, Fault> {
    let key = holder_key(name);
    let mut looks = 0;
    loop {
        let listing = match node.directory.list(&key).await {
            Ok(listing) => listing,
            Err(DirectoryError::OutOfReach(_) | DirectoryError::NoAnswer(_)) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(directory_fault(&error)),
        };
        let Some(entry) = listing.entries.iter().find(|entry| entry.key == key) else {
            // Whoever else stands by has it in a moment.
            looks += 1;
            if PAUSE * looks > SHORT {
                return Ok(None);
            }
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let holder: Holder = crate::node::parse(entry)?;
        if (holder.node, holder.session) != (former.node, former.session) {
            return Ok(Some(holder));
        }
        // Whatever it is, it is looked at anew.
        let seen = match node.directory.watch(&key, listing.revision).await {
            Ok(mut watch) => watch.recv().await,
            Err(_) => None,
        };
        if seen.is_none() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
