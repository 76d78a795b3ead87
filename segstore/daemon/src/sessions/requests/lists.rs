//! Everything there is.

use std::sync::Arc;

use segstore::control::message::{Answer, Fault, FaultKind, HeldName, SegmentInfo};

use super::Client;
use crate::cluster::{SegmentEntry, member_key, node_key};
use crate::directory::Revision;
use crate::node::{Node, SHORT, directory_fault};
use crate::peers::message::Call;
use crate::sessions::credentials::Want;

/// How many segments are named where there are more.
const NAMED: usize = 8;

/// The segments that the client may load.
pub(super) async fn segments(client: &Client) -> Result<Answer, Fault> {
    let may = |segment: &SegmentInfo| client.credentials.check(&segment.name, segment.access, Want::Read).is_ok();
    Ok(Answer::Segments(all(&client.node).await?.into_iter().filter(may).collect()))
}

/// Every segment, with what its replicas' nodes say.
pub(crate) async fn all(node: &Arc<Node>) -> Result<Vec<SegmentInfo>, Fault> {
    let mut holders = node.holders().await?;
    let describe = |(name, entry, revision): (String, SegmentEntry, Revision)| {
        let holder = holders.remove(&name);
        node.describe(&name, &entry, revision, holder)
    };
    let mut segments: Vec<_> = node.segments().await?.into_iter().map(describe).collect();
    node.look_at(&mut segments).await;
    Ok(segments)
}

/// Names that are held.
pub(super) async fn holds(client: &Client) -> Result<Answer, Fault> {
    let held = client.node.holders().await?.into_iter().map(|(name, holder)| HeldName { name, holder });
    let mut held: Vec<_> = held.collect();
    held.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Answer::Holds(held))
}

/// Names a node no longer that is down, and keeps no replica in sync.
pub(super) async fn forget_node(client: &Client, name: &str) -> Result<Answer, Fault> {
    client.check_operator("forget a node")?;
    let node = &client.node;
    let known: Vec<_> = node.view.all().into_iter().filter(|(entry, _)| entry.name == name).collect();
    if known.is_empty() {
        return Err(Fault::new(FaultKind::NotFound, format!("no node {name} was seen")));
    }
    let down: Vec<_> = known.iter().filter(|(_, up)| !up).map(|(entry, _)| entry.node).collect();
    if down.is_empty() {
        return Err(Fault::new(FaultKind::Denied, format!("node {name} is up: stop its daemon first")));
    }
    let segments = node.segments().await?;
    let keeps = |entry: &SegmentEntry| entry.in_sync.iter().any(|member| down.contains(&member.node));
    let kept: Vec<_> = segments.iter().filter(|(_, entry, _)| keeps(entry)).map(|(name, ..)| name.as_str()).collect();
    if !kept.is_empty() {
        let more = if kept.len() > NAMED { ", ..." } else { "" };
        let text = format!(
            "node {name} keeps replicas in sync of {}{more}. It can be forgotten when others have taken their place, which begins when it \
             is gone for good (`node_gone_after`): see segctl status",
            kept[..kept.len().min(NAMED)].join(", ")
        );
        return Err(Fault::new(FaultKind::Denied, text));
    }
    for gone in down {
        let found = node.directory.read(&member_key(gone)).await.map_err(|error| directory_fault(&error))?;
        if let Some(found) = found {
            let swapped = node.directory.compare_swap(&found.key, Some(found.revision), None).await;
            swapped.map_err(|error| directory_fault(&error))?;
        }
        node.call_all(&Call::ForgetNode { node: gone }, SHORT).await;
    }
    Ok(Answer::Done)
}

/// Begins to drain a node, or ends that.
pub(super) async fn drain(client: &Client, name: &str, on: bool) -> Result<Answer, Fault> {
    client.check_operator("drain a node")?;
    client.node.drain(name, on).await.map(|()| Answer::Done)
}

/// What keeps a node from being switched off.
pub(super) async fn left(client: &Client, name: &str) -> Result<Answer, Fault> {
    client.check_operator("see whose segments a node has")?;
    client.node.left(name).await.map(Answer::Left)
}

pub(super) async fn nodes(client: &Client) -> Result<Answer, Fault> {
    let mut nodes: Vec<_> = client.node.view.all().into_iter().map(|(entry, up)| entry.info(up)).collect();
    let answers = tokio::time::timeout(SHORT, client.node.directory.read(&node_key(client.node.id))).await;
    let stale = match answers {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("the directory does not answer".to_owned()),
    };
    nodes.iter_mut().for_each(|node| node.stale.clone_from(&stale));
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Answer::Nodes(nodes))
}

pub(super) async fn events(client: &Client, name: Option<&str>) -> Result<Answer, Fault> {
    if let Some(name) = name {
        // In the order in which they happened, whatever the nodes' clocks said.
        return Ok(Answer::Events(client.segment(name, Want::Read).await?.0.events));
    }
    let may = |name: &str, access| client.credentials.check(name, access, Want::Read).is_ok();
    let segments = client.node.segments().await?.into_iter().filter(|(name, entry, _)| may(name, entry.access));
    let mut events: Vec<_> = segments.flat_map(|(_, entry, _)| entry.events).collect();
    events.sort_by_key(|event| event.at);
    Ok(Answer::Events(events))
}
