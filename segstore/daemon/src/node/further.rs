//! A further replica of a segment: where it goes, and that it is filled there.

use std::collections::HashMap;
use std::sync::Arc;

use segstore::control::message::{Fault, FaultKind};
use segstore_core::forget::Forgettable;
use segstore_core::id::{Member, NodeId, SegmentId, Stamp};
use segstore_core::layout::Ownership;

use super::placement::{self, Asked};
use super::{Node, REPAIR, SHORT, geometry, unexpected};
use crate::cluster::{NodeEntry, SegmentEntry};
use crate::config::shown;
use crate::peers::message::{Call, Reply};

/// How many nodes are asked for a further replica before its owner is told that there is none: where the best of them cannot make it, it is
/// the best the next time as well.
const TARGETS: usize = 2;

/// What a further replica is for, and is filled from.
pub(crate) struct Further {
    /// For whom.
    pub(crate) ownership: Ownership,
    /// The owner's node, where none is placed; a caretaker is on none.
    pub(crate) beside: Option<NodeId>,
    /// Replicas that take part already: none is placed on their nodes.
    pub(crate) members: Vec<Member>,
    /// The replica to copy from.
    pub(crate) source: Member,
    /// Its slot.
    pub(crate) slot: u32,
    /// The image that it holds.
    pub(crate) base: Stamp,
}

/// A further replica that was filled.
pub(crate) struct Added {
    pub(crate) member: Member,
    /// Every slot holds this image or what follows it.
    pub(crate) base: Stamp,
    /// The slot that is exactly that image, closed.
    pub(crate) closed: Option<u32>,
}

impl Node {
    /// Places one more replica, and has it filled, in place of what its node keeps of the segment for nothing.
    pub(crate) async fn add_replica(
        self: &Arc<Self>,
        name: &str,
        segment: SegmentId,
        further: &Further,
    ) -> Result<Added, Fault> {
        let Further { ownership, beside, members, source, slot, base } = further;
        let (mut nodes, mut kept) = (self.rooms().await, self.kept_everywhere(segment).await);
        // Read after that: nothing that the record comes to list is among what is kept for nothing.
        let (entry, _) = self.segment(name).await?;
        let taking_part = members.iter().chain(&entry.in_sync);
        let taken: Vec<_> = taking_part.map(|member| member.node).chain(*beside).collect();
        let near = self.near(&taken, *beside);
        let bytes = geometry(entry.shape)?.replica_bytes();
        nodes.retain(|place| kept.contains_key(&place.node) && !taken.contains(&place.node));
        for place in &nodes {
            let kept = kept.entry(place.node).or_default();
            let replaced = Forgettable::of_owner(*ownership, members, kept, &entry.record())
                .map_err(|why| Fault::new(FaultKind::Refused(why), why.to_string()))?;
            *kept = replaced.members;
        }
        let former = make_way(&mut nodes, &kept, bytes);
        let owner = beside.or(entry.home());
        let asked = Asked { bytes, owner, placing: &entry.placing, near: &near, former: &former };
        let mut why = None;
        for target in placement::choose(&nodes, &asked, TARGETS) {
            let call = Call::Repair {
                segment,
                name: name.to_owned(),
                shape: entry.shape,
                ownership: *ownership,
                replaced: kept.remove(&target.node).unwrap_or_default(),
                source: self.view.place(*source),
                slot: *slot,
                base: *base,
            };
            match self.call(target.node, call, REPAIR).await {
                Ok(Reply::Repaired { member, base, closed }) => return Ok(Added { member, base, closed }),
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

    /// Whether a node would take a further replica of a segment whose replicas on these nodes stay, and which is owned on none.
    pub(crate) async fn has_room_for(
        self: &Arc<Self>,
        name: &str,
        entry: &SegmentEntry,
        rooms: &[NodeEntry],
        stay: &[NodeId],
    ) -> Result<(), Fault> {
        let mut nodes: Vec<_> = rooms.iter().filter(|place| !stay.contains(&place.node)).cloned().collect();
        let (bytes, near) = (geometry(entry.shape)?.replica_bytes(), self.near(stay, None));
        let former = make_way(&mut nodes, &self.kept_everywhere(entry.segment).await, bytes);
        let asked = Asked { bytes, owner: entry.home(), placing: &entry.placing, near: &near, former: &former };
        let has_room = !placement::choose(&nodes, &asked, 1).is_empty();
        has_room.then_some(()).ok_or_else(|| no_further_room(name, &nodes, &asked))
    }

    /// The nodes that have a copy, the owner's among them, each once. (One that is being drained is to have none.)
    pub(crate) fn near(&self, taken: &[NodeId], owner: Option<NodeId>) -> Vec<NodeEntry> {
        let mut near = self.view.entries(taken.iter().copied());
        near.retain(|entry| !entry.draining || Some(entry.node) == owner);
        near.sort_by_key(|entry| entry.node);
        near.dedup_by_key(|entry| entry.node);
        near
    }

    /// What every node that answers keeps of a segment.
    pub(crate) async fn kept_everywhere(self: &Arc<Self>, segment: SegmentId) -> HashMap<NodeId, Vec<Member>> {
        let kept = |(place, reply): (NodeEntry, Reply)| match reply {
            Reply::Replicas(kept) => Some((place.node, kept.iter().map(|replica| replica.member).collect())),
            _ => None,
        };
        self.call_all(&Call::Replicas { segment }, SHORT).await.into_iter().filter_map(kept).collect()
    }
}

/// What a new replica is to replace is not in its way. Gives the nodes that keep something of the segment for nothing.
pub(crate) fn make_way(nodes: &mut [NodeEntry], kept: &HashMap<NodeId, Vec<Member>>, bytes: u64) -> Vec<NodeId> {
    let mut former = Vec::new();
    for place in nodes {
        let kept = kept.get(&place.node).map_or(0, Vec::len);
        place.used = place.used.saturating_sub(bytes * kept as u64);
        former.extend((kept > 0).then_some(place.node));
    }
    former
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
