//! Replicas: requests are passed on to the nodes that keep them.

use std::sync::Arc;
use std::time::Duration;

use segstore::control::message::{Answer, Bytes, Fault, FaultKind, ReplicaInfo};
use segstore_core::id::{Member, NodeId, SegmentId};
use segstore_core::layout::Ownership;
use segstore_core::replica::Request as ReplicaRequest;

use super::Client;
use crate::cluster::SegmentEntry;
use crate::node::{Added, Further, LONG, Node, Origin, REPAIR, SHORT, has_new_memory, unexpected};
use crate::peers::message::{Call, Reply};
use crate::sessions::credentials::Want;

pub(super) async fn fence(
    client: &Client,
    name: &str,
    member: Member,
    request: ReplicaRequest,
) -> Result<Answer, Fault> {
    let (entry, _) = client.segment(name, Want::Write).await?;
    check(name, &entry, member, &request)?;
    heads_of(client, member, Call::Fence { request }, LONG).await.map(Answer::Heads)
}

async fn heads_of(client: &Client, member: Member, call: Call, limit: Duration) -> Result<Vec<Bytes>, Fault> {
    match client.node.call(member.node, call, limit).await? {
        Reply::Heads(heads) => Ok(heads),
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn level(
    client: &Client,
    name: &str,
    member: Member,
    request: ReplicaRequest,
) -> Result<Answer, Fault> {
    let (entry, _) = client.segment(name, Want::Write).await?;
    check(name, &entry, member, &request)?;
    client.node.call(member.node, Call::Level { request }, REPAIR).await.map(|_| Answer::Done)
}

/// Whether the request is about this segment's replica, in the name of whom the record names: a claim is in the record before anybody
/// is fenced for it. A replica believes what it is told of terms, and remembers it for good.
fn check(name: &str, entry: &SegmentEntry, member: Member, request: &ReplicaRequest) -> Result<(), Fault> {
    if request.segment != entry.segment {
        let text = format!("segment {name} is {}, the request is about {}", entry.segment, request.segment);
        return Err(Fault::new(FaultKind::Invalid, text));
    }
    if request.incarnation != member.incarnation {
        let asked = request.incarnation;
        let text = format!("the request is for replica {asked}, but was sent to {}", member.incarnation);
        return Err(Fault::new(FaultKind::Invalid, text));
    }
    check_owner(name, entry, request.asker)
}

/// Whether the record names this owner, in this term.
fn check_owner(name: &str, entry: &SegmentEntry, asked: Ownership) -> Result<(), Fault> {
    entry.record().check_owner(asked).map_err(|why| {
        let text = format!(
            "segment {name} belongs to owner {} in term {}, not to owner {} in term {}: open it again",
            entry.owner, entry.term, asked.owner, asked.term
        );
        Fault::new(FaultKind::Refused(why), text)
    })
}

pub(super) async fn heads(client: &Client, name: &str, member: Member) -> Result<Answer, Fault> {
    let (entry, _) = client.segment(name, Want::Read).await?;
    heads_of(client, member, Call::Heads { segment: entry.segment, member }, SHORT).await.map(Answer::Heads)
}

pub(super) async fn connect(
    client: &Client,
    name: &str,
    member: Member,
    writer: Option<ReplicaRequest>,
    provider: String,
    hello: Bytes,
) -> Result<Answer, Fault> {
    let want = if writer.is_some() { Want::Write } else { Want::Read };
    let (entry, _) = client.segment(name, want).await?;
    if let Some(request) = &writer {
        check(name, &entry, member, request)?;
    }
    let call = Call::Connect { segment: entry.segment, member, writer, provider, hello };
    match client.node.call(member.node, call, LONG).await? {
        Reply::Connected { reply } => Ok(Answer::Connected { reply }),
        other => Err(unexpected(&other)),
    }
}

/// The copy on this node that is not in the in-sync set; if there is none, it is made for an owner.
pub(super) async fn local(client: &Client, name: &str, make_for: Option<Ownership>) -> Result<Answer, Fault> {
    let node = &client.node;
    let (entry, _) = client.segment(name, Want::Write).await?;
    let segment = entry.segment;
    let kept = kept(node, node.id, segment).await?;
    let usable = kept.iter().find(|replica| !entry.in_sync.contains(&replica.member) && replica.problem.is_none());
    let member = match (usable, make_for) {
        (Some(replica), _) => replica.member,
        (None, None) => return Err(Fault::new(FaultKind::NotFound, format!("no copy of segment {name} on this node"))),
        (None, Some(remembered)) => {
            check_owner(name, &entry, remembered)?;
            let (name, shape, replaced) = (name.to_owned(), entry.shape, Vec::new());
            let call = Call::Create { segment, name, shape, remembered, replaced };
            match node.call(node.id, call, LONG).await? {
                Reply::Created { member } => member,
                other => return Err(unexpected(&other)),
            }
        }
    };
    let heads = heads_of(client, member, Call::Heads { segment, member }, SHORT).await?;
    Ok(Answer::Local { member, heads })
}

/// Places one more replica for an owner on this node, and has it filled.
pub(super) async fn repair(client: &Client, name: &str, further: Further, from: Origin) -> Result<Answer, Fault> {
    let node = &client.node;
    let (entry, _) = client.segment(name, Want::Write).await?;
    check_owner(name, &entry, further.ownership)?;
    let Added { member, base, closed } = node.add_replica(name, entry.segment, &further, &from).await?;
    Ok(Answer::Repaired { place: node.view.place(member), base, closed })
}

/// Places one more replica for an owner on this node, in which nothing stands. Not while one in sync may be there: to have that back costs less
/// than to push everything.
pub(super) async fn make(client: &Client, name: &str, further: Further) -> Result<Answer, Fault> {
    let node = &client.node;
    let (entry, revision) = client.segment(name, Want::Write).await?;
    check_owner(name, &entry, further.ownership)?;
    let info = node.describe_as_it_is(name, (&entry, revision), None).await;
    if let Some(place) = info.places.iter().find(|place| place.up && !has_new_memory(place)) {
        let why = place.problem.as_deref().unwrap_or("it is up, and keeps one");
        let text = format!("the replica on node {} is waited for: {why}", place.node_name);
        return Err(Fault::new(FaultKind::Unreachable, text));
    }
    let member = node.make_replica(name, entry.segment, &further).await?;
    Ok(Answer::Made { place: node.view.place(member) })
}

/// What a node keeps of a segment.
async fn kept(node: &Arc<Node>, of: NodeId, segment: SegmentId) -> Result<Vec<ReplicaInfo>, Fault> {
    match node.call(of, Call::Replicas { segment }, SHORT).await? {
        Reply::Replicas(kept) => Ok(kept),
        other => Err(unexpected(&other)),
    }
}
