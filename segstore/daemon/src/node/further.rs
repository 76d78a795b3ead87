//! A further replica of a segment: where it goes, and that it is filled there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use segstore::control::message::{Fault, FaultKind, Shape};
use segstore_core::forget::Forgettable;
use segstore_core::id::{Member, NodeId, SegmentId, Stamp};
use segstore_core::layout::Ownership;

use super::placement::Search;
use super::{Node, REPAIR, SHORT, geometry, unexpected};
use crate::cluster::{NodeEntry, SegmentEntry};
use crate::config::shown;
use crate::peers::message::{Call, Reply};

/// How many nodes are asked for a further replica before its owner is told that there is none: where the best of them cannot make it, it is
/// the best the next time as well.
const TARGETS: usize = 2;

/// Whom a further replica is for.
pub(crate) struct Further {
    /// For whom.
    pub(crate) ownership: Ownership,
    /// The owner's node, where none is placed; a caretaker's is that of who holds the name, if it is held.
    pub(crate) beside: Option<NodeId>,
    /// Replicas that take part already: none is placed on their nodes.
    pub(crate) members: Vec<Member>,
}

/// What it is filled from.
pub(crate) struct Origin {
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
        from: &Origin,
    ) -> Result<Added, Fault> {
        let repair = |shape, replaced| Call::Repair {
            segment,
            name: name.to_owned(),
            shape,
            ownership: further.ownership,
            replaced,
            source: self.view.place(from.source),
            slot: from.slot,
            base: from.base,
        };
        match self.on_a_further_node(name, segment, further, repair).await? {
            Reply::Repaired { member, base, closed } => Ok(Added { member, base, closed }),
            other => Err(unexpected(&other)),
        }
    }

    /// The same, but that nothing stands in it.
    pub(crate) async fn make_replica(
        self: &Arc<Self>,
        name: &str,
        segment: SegmentId,
        further: &Further,
    ) -> Result<Member, Fault> {
        let remembered = further.ownership;
        let create = |shape, replaced| Call::Create { segment, name: name.to_owned(), shape, remembered, replaced };
        match self.on_a_further_node(name, segment, further, create).await? {
            Reply::Created { member } => Ok(member),
            other => Err(unexpected(&other)),
        }
    }

    /// Calls the best node for one more replica, or the next one if it cannot make it: with the segment's shape, and what of it the node keeps
    /// for nothing.
    async fn on_a_further_node(
        self: &Arc<Self>,
        name: &str,
        segment: SegmentId,
        further: &Further,
        call: impl Fn(Shape, Vec<Member>) -> Call,
    ) -> Result<Reply, Fault> {
        let Further { ownership, beside, members } = further;
        let (mut rooms, mut kept) = (self.rooms().await, self.kept_everywhere(segment).await);
        // Read after that: nothing that the record comes to list is among what is kept for nothing.
        let (entry, _) = self.segment(name).await?;
        rooms.retain(|place| kept.contains_key(&place.node));
        // Of those whose node's memory is new none is there.
        let is_there = |member: &&Member| kept.get(&member.node).is_none_or(|kept| kept.contains(member));
        let taken: Vec<_> = members.iter().chain(&entry.in_sync).filter(is_there).map(|member| member.node).collect();
        for kept in kept.values_mut() {
            let replaced = Forgettable::of_owner(*ownership, members, kept, &entry.record())
                .map_err(|why| Fault::new(FaultKind::Refused(why), why.to_string()))?;
            *kept = replaced.members;
        }
        let search = self.search(&entry, *beside, &taken, rooms, &kept)?;
        let mut why = None;
        for target in search.choose(TARGETS) {
            let call = call(entry.shape, kept.remove(&target.node).unwrap_or_default());
            match self.call(target.node, call, REPAIR).await {
                Ok(reply) => return Ok(reply),
                // It goes on there, perhaps; or it is for nobody.
                Err(fault) if matches!(fault.kind, FaultKind::NoAnswer | FaultKind::Refused(_)) => return Err(fault),
                Err(fault) => {
                    tracing::warn!(segment = name, "node {} was to keep a further replica: {fault}", target.name);
                    why = Some(fault);
                }
            }
        }
        Err(why.unwrap_or_else(|| no_further_room(name, &search)))
    }

    /// Whether a node would take a further replica of a segment whose replicas on these nodes stay, and which nobody has open.
    pub(crate) async fn has_room_for(
        self: &Arc<Self>,
        name: &str,
        entry: &SegmentEntry,
        rooms: &[NodeEntry],
        beside: Option<NodeId>,
        stay: &[NodeId],
    ) -> Result<(), Fault> {
        let kept = self.kept_everywhere(entry.segment).await;
        let search = self.search(entry, beside, stay, rooms.to_vec(), &kept)?;
        let has_room = !search.choose(1).is_empty();
        has_room.then_some(()).ok_or_else(|| no_further_room(name, &search))
    }

    /// Where a further replica could go of a segment with replicas on these nodes: on none of them, nor beside its owner, where it has one.
    /// What it is to replace, of what is kept for nothing, is not in its way.
    pub(crate) fn search<'e>(
        &self,
        entry: &'e SegmentEntry,
        beside: Option<NodeId>,
        taken: &[NodeId],
        mut rooms: Vec<NodeEntry>,
        kept: &HashMap<NodeId, Vec<Member>>,
    ) -> Result<Search<'e>, Fault> {
        let bytes = geometry(entry.shape)?.replica_bytes();
        let taken: HashSet<_> = taken.iter().copied().chain(beside).collect();
        rooms.retain(|place| !taken.contains(&place.node));
        let mut former = Vec::new();
        for place in &mut rooms {
            let kept = kept.get(&place.node).map_or(0, Vec::len);
            place.used = place.used.saturating_sub(bytes * kept as u64);
            former.extend((kept > 0).then_some(place.node));
        }
        let unwanted = self.view.unwanted();
        let stays = |node: &NodeId| Some(*node) == beside || !unwanted.contains(node);
        let near = self.view.entries(taken.into_iter().filter(stays));
        Ok(Search { nodes: rooms, bytes, placing: &entry.placing, owner: beside.or(entry.home()), near, former })
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

fn no_further_room(name: &str, search: &Search<'_>) -> Fault {
    let why = match search.told() {
        none if none.is_empty() => "every node that answers has one already, or owns it".to_owned(),
        why => format!("{why}; give one more (`memory`, and the tmpfs of `memory_dir`), or add a node"),
    };
    let bytes = shown(search.bytes);
    let text = format!("no further node takes a replica of segment {name}, of {bytes}: {why}");
    Fault::new(FaultKind::NoRoom, text)
}
