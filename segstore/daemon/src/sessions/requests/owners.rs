//! What only a segment's owner knows: its daemon asks it.

use std::sync::Arc;

use segstore::control::message::{Answer, Fault, FaultKind, Holder, OwnerState, ReplicaInfo, Status};
use segstore_core::id::{Member, SegmentId};

use super::{Client, moves};
use crate::node::{Node, SHORT, unexpected};
use crate::peers::message::{Call, Reply};
use crate::sessions::credentials::Want;
use crate::sessions::session::Pinned;

async fn holder(client: &Client, name: &str) -> Result<Holder, Fault> {
    client.segment(name, Want::Read).await?;
    let holder = client.node.holder(name).await?;
    let nobody = || Fault::new(FaultKind::NotFound, format!("nobody owns segment {name} now"));
    holder.map(|(holder, _)| holder).ok_or_else(nobody)
}

pub(super) async fn hold(client: &Client, name: &str, time: u64, without: Vec<Member>) -> Result<Answer, Fault> {
    let holder = holder(client, name).await?;
    let call = Call::Hold { name: name.to_owned(), session: holder.session, time, without };
    match client.node.call(holder.node, call, 2 * SHORT).await? {
        Reply::Held(held) => {
            client.session.pin(Pinned { name: name.to_owned(), number: held.number });
            Ok(Answer::Held(held))
        }
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn end_hold(client: &Client, name: &str, number: u64) -> Result<Answer, Fault> {
    client.segment(name, Want::Read).await?;
    let slot = Pinned { name: name.to_owned(), number };
    client.session.unpin(&slot);
    unpin(client.node.clone(), slot).await.map(|()| Answer::Done)
}

/// Tells the owner that a slot is not read any more.
pub(in crate::sessions) async fn unpin(node: Arc<Node>, slot: Pinned) -> Result<(), Fault> {
    let Pinned { name, number } = slot;
    let Some((holder, _)) = node.holder(&name).await? else { return Ok(()) };
    let call = Call::EndHold { name, session: holder.session, number };
    node.call(holder.node, call, 2 * SHORT).await.map(drop)
}

pub(super) async fn status(client: &Client, name: &str) -> Result<Answer, Fault> {
    let mut info = client.info(name).await?;
    client.node.look_at(std::slice::from_mut(&mut info)).await;
    let (owner, silence) = match &info.holder {
        Some(holder) => match state(client, name, holder).await {
            Ok(state) => (Some(*state), None),
            Err(fault) => (None, Some(fault)),
        },
        None => (None, None),
    };
    let segment = info.record.record.segment;
    let is_at_rest = owner.is_none();
    let care = async { if is_at_rest { care(client, name).await } else { None } };
    let (mut replicas, standbys, care) =
        tokio::join!(replicas(client, segment), moves::standbys(&client.node, name), care);
    // One whose daemon does not answer may still be written.
    for place in &info.places {
        if !replicas.iter().any(|replica| replica.member == place.member) {
            replicas.push(ReplicaInfo {
                member: place.member,
                node_name: place.node_name.clone(),
                in_sync: true,
                over: None,
                image: None,
                repair: None,
                problem: Some(place.problem.clone().unwrap_or_else(|| "its node does not answer".to_owned())),
            });
        }
    }
    for replica in &mut replicas {
        let place = info.places.iter().find(|place| place.member == replica.member);
        replica.problem = replica.problem.take().or_else(|| place?.problem.clone());
        replica.in_sync = info.record.record.in_sync.contains(&replica.member);
        let mut links = owner.iter().flat_map(|owner| &owner.links);
        replica.over = links.find(|link| link.member == replica.member).map(|link| link.provider.clone());
    }
    replicas.sort_by(|a, b| a.node_name.cmp(&b.node_name));
    let standby = standbys.into_iter().map(|(_, standby)| standby).collect();
    Ok(Answer::Status(Box::new(Status { info, owner, silence, standby, care, replicas })))
}

/// What a node does for a segment that nobody has open.
async fn care(client: &Client, name: &str) -> Option<String> {
    let answers = client.node.call_all(&Call::Care { name: name.to_owned() }, SHORT).await;
    answers.into_iter().find_map(|(entry, reply)| match reply {
        Reply::Care(Some(what)) => {
            Some(format!("nobody has it open; node {}, which looks after it: {what}", entry.name))
        }
        _ => None,
    })
}

async fn state(client: &Client, name: &str, holder: &Holder) -> Result<Box<OwnerState>, Fault> {
    let call = Call::State { name: name.to_owned(), session: holder.session };
    match client.node.call(holder.node, call, 2 * SHORT).await? {
        Reply::State(state) => Ok(state),
        other => Err(unexpected(&other)),
    }
}

/// What every node that is up has of a segment.
async fn replicas(client: &Client, segment: SegmentId) -> Vec<ReplicaInfo> {
    let answers = client.node.call_all(&Call::Replicas { segment }, SHORT).await;
    let replicas = |(_, reply)| match reply {
        Reply::Replicas(replicas) => replicas,
        _ => Vec::new(),
    };
    answers.into_iter().flat_map(replicas).collect()
}
