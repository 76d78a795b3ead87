//! Replicas: requests are passed on to the nodes that keep them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use segstore::control::message::{Answer, Bytes, Fault, FaultKind, ReplicaInfo};
use segstore_core::forget::Forgettable;
use segstore_core::id::{Member, NodeId, SegmentId, Stamp};
use segstore_core::layout::Ownership;
use segstore_core::replica::Request as ReplicaRequest;

use super::Client;
use crate::cluster::{NodeEntry, SegmentEntry};
use crate::config::shown;
use crate::node::placement::Asked;
use crate::node::{LONG, Node, REPAIR, SHORT, geometry, placement, unexpected};
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
            let call = Call::Create { segment, name: name.to_owned(), shape: entry.shape, remembered };
            match node.call(node.id, call, LONG).await? {
                Reply::Created { member } => member,
                other => return Err(unexpected(&other)),
            }
        }
    };
    let heads = heads_of(client, member, Call::Heads { segment, member }, SHORT).await?;
    Ok(Answer::Local { member, heads })
}

/// How many nodes are asked for a further replica before its owner is told that there is none: where the best of them cannot make it, it is
/// the best the next time as well.
const TARGETS: usize = 2;

/// Places one more replica, and has it filled, in place of what its node keeps of the segment for nothing.
pub(super) async fn repair(
    client: &Client,
    name: &str,
    ownership: Ownership,
    members: &[Member],
    source: Member,
    (slot, base): (u32, Stamp),
) -> Result<Answer, Fault> {
    let node = &client.node;
    let (entry, _) = client.segment(name, Want::Write).await?;
    check_owner(name, &entry, ownership)?;
    let segment = entry.segment;
    let (mut nodes, mut kept) = (node.rooms().await, kept_everywhere(node, segment).await);
    // Read after that: nothing that the record comes to list is among what is kept for nothing.
    let (entry, _) = client.segment(name, Want::Write).await?;
    let taking_part = members.iter().chain(&entry.in_sync);
    let taken: Vec<_> = taking_part.map(|member| member.node).chain([node.id]).collect();
    let near = near(node, &taken);
    let bytes = geometry(entry.shape)?.replica_bytes();
    nodes.retain(|place| kept.contains_key(&place.node) && !taken.contains(&place.node));
    for place in &nodes {
        let kept = kept.entry(place.node).or_default();
        let replaced = Forgettable::of_owner(ownership, members, kept, &entry.record())
            .map_err(|why| Fault::new(FaultKind::Refused(why), why.to_string()))?;
        *kept = replaced.members;
    }
    let former = make_way(&mut nodes, &kept, bytes);
    let asked = Asked { bytes, owner: node.id, placing: &entry.placing, near: &near, former: &former };
    let mut why = None;
    for target in placement::choose(&nodes, &asked, TARGETS) {
        let call = Call::Repair {
            segment,
            name: name.to_owned(),
            shape: entry.shape,
            ownership,
            replaced: kept.remove(&target.node).unwrap_or_default(),
            source: node.view.place(source),
            slot,
            base,
        };
        match node.call(target.node, call, REPAIR).await {
            Ok(Reply::Repaired { member, base, closed }) => {
                return Ok(Answer::Repaired { place: node.view.place(member), base, closed });
            }
            Ok(other) => return Err(unexpected(&other)),
            // It goes on there, perhaps; or it is for nobody.
            Err(fault) if matches!(fault.kind, FaultKind::NoAnswer | FaultKind::Refused(_)) => return Err(fault),
            Err(fault) => {
                tracing::warn!(segment = name, "node {} was to keep a further replica: {fault}", target.name);
                why = Some(fault);
            }
        }
    }
    Err(why.unwrap_or_else(|| no_further_room(name, &nodes, &asked)))
}

/// What a new replica is to replace is not in its way. Gives the nodes that keep something of the segment for nothing.
pub(super) fn make_way(nodes: &mut [NodeEntry], kept: &HashMap<NodeId, Vec<Member>>, bytes: u64) -> Vec<NodeId> {
    let mut former = Vec::new();
    for place in nodes {
        let kept = kept.get(&place.node).map_or(0, Vec::len);
        place.used = place.used.saturating_sub(bytes * kept as u64);
        former.extend((kept > 0).then_some(place.node));
    }
    former
}

/// The nodes that have a copy, the owner's among them, each once. (One that is being drained is to have none.)
pub(super) fn near(node: &Node, taken: &[NodeId]) -> Vec<NodeEntry> {
    let mut near = node.view.entries(taken.iter().copied());
    near.retain(|entry| !entry.draining || entry.node == node.id);
    near.sort_by_key(|entry| entry.node);
    near.dedup_by_key(|entry| entry.node);
    near
}

fn no_further_room(name: &str, nodes: &[NodeEntry], asked: &Asked<'_>) -> Fault {
    let why = match placement::told(nodes, asked) {
        none if none.is_empty() => "every node that answers has one already, or owns it".to_owned(),
        why => format!("{why}; give one more (`memory`, and the tmpfs of `memory_dir`), or add a node"),
    };
    let bytes = shown(asked.bytes);
    let text = format!("no further node takes a replica of segment {name}, of {bytes}: {why}");
    Fault::new(FaultKind::NoRoom, text)
}

/// What every node that answers keeps of a segment.
pub(super) async fn kept_everywhere(node: &Arc<Node>, segment: SegmentId) -> HashMap<NodeId, Vec<Member>> {
    let kept = |(place, reply): (NodeEntry, Reply)| match reply {
        Reply::Replicas(kept) => Some((place.node, kept.iter().map(|replica| replica.member).collect())),
        _ => None,
    };
    node.call_all(&Call::Replicas { segment }, SHORT).await.into_iter().filter_map(kept).collect()
}

/// What a node keeps of a segment.
async fn kept(node: &Arc<Node>, of: NodeId, segment: SegmentId) -> Result<Vec<ReplicaInfo>, Fault> {
    match node.call(of, Call::Replicas { segment }, SHORT).await? {
        Reply::Replicas(kept) => Ok(kept),
        other => Err(unexpected(&other)),
    }
}
