//! Which segments a node is to look after.

use std::sync::Arc;

use segstore::control::message::{Fault, Holder, Place, SegmentInfo};
use segstore_core::id::NodeId;

use crate::cluster::{Claimant, NodeEntry, SegmentEntry, member_key, node_key};
use crate::directory::Revision;
use crate::node::{Node, SHORT, directory_fault, has_new_memory};
use crate::peers::message::{Call, Reply};

/// What was found of segments that nobody owns.
#[derive(Default)]
pub(super) struct Look {
    /// Those whose replicas are to be restored.
    pub(super) needy: Vec<String>,
    /// Those that were tried, or are being restored.
    pub(super) resting: Vec<String>,
    /// Those whose replicas were, and why nothing can be done for them.
    pub(super) stuck: Vec<(String, String)>,
}

/// What a segment lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Need {
    /// A further replica.
    Further,
    /// That one is let go, of which others have taken the place.
    LetGo,
}

/// A segment, the revision of its entry, and who holds its name.
type Listed = (String, SegmentEntry, Revision, Option<Holder>);

/// Looks at all that nobody has open.
pub(super) async fn look(node: &Arc<Node>) -> Result<Look, Fault> {
    let (segments, mut holders) = (node.segments().await?, node.holders().await?);
    let unwanted = node.view.unwanted();
    let held = segments.into_iter().map(|(name, entry, revision)| {
        let holder = holders.remove(&name);
        (name, entry, revision, holder)
    });
    let mine = held.filter(|of| is_mine(node, of, &unwanted));
    // What rests is not looked at each time.
    look_at(node, mine, &unwanted, |name| node.care.is_due(name)).await
}

/// Looks at one of them, as it is now.
pub(super) async fn look_again(node: &Arc<Node>, name: &str) -> Result<Look, Fault> {
    let (entry, revision) = node.segment(name).await?;
    let holder = node.holder(name).await?.map(|(holder, _)| holder);
    let (of, unwanted) = ((name.to_owned(), entry, revision, holder), node.view.unwanted());
    let mine = is_mine(node, &of, &unwanted).then_some(of);
    look_at(node, mine.into_iter(), &unwanted, |_| true).await
}

async fn look_at(
    node: &Arc<Node>,
    mine: impl Iterator<Item = Listed>,
    unwanted: &[NodeId],
    is_due: impl Fn(&str) -> bool,
) -> Result<Look, Fault> {
    let described = mine.map(|(name, entry, revision, holder)| (node.describe(&name, &entry, revision, holder), entry));
    let (mut infos, entries): (Vec<_>, Vec<_>) = described.unzip();
    if !infos.is_empty() {
        node.look_at(&mut infos).await;
    }
    let (mut look, mut rooms) = (Look::default(), None);
    for (info, entry) in infos.into_iter().zip(entries) {
        let (replicas, beside) = (entry.keeping.replicas as usize, holder_node(&info));
        let Some(need) = need(&info.places, replicas, beside, unwanted) else { continue };
        if !is_due(&info.name) {
            look.resting.push(info.name);
            continue;
        }
        match what_is_in_the_way(node, &info, &entry, (need, unwanted), &mut rooms).await? {
            Some(why) => look.stuck.push((info.name, why)),
            None => look.needy.push(info.name),
        }
    }
    Ok(look)
}

/// Looked for before a term is spent on it.
async fn what_is_in_the_way(
    node: &Arc<Node>,
    info: &SegmentInfo,
    entry: &SegmentEntry,
    (need, unwanted): (Need, &[NodeId]),
    rooms: &mut Option<Vec<NodeEntry>>,
) -> Result<Option<String>, Fault> {
    let stay: Vec<_> = info.places.iter().filter(|place| !is_lost(place, unwanted)).collect();
    if info.is_lost() {
        return Ok(Some("no replica of it is there, from which another could be filled".to_owned()));
    }
    if let Some(place) = stay.iter().find(|place| !place.is_live()) {
        let why = place.problem.as_deref().unwrap_or("its node is down");
        return Ok(Some(may_come_back(&place.node_name, why)));
    }
    if let Some(claimant) = &entry.claimant
        && let Err(why) = check_ended(node, &info.name, claimant).await?
    {
        return Ok(Some(why));
    }
    if need == Need::LetGo {
        return Ok(None);
    }
    let rooms = match rooms {
        Some(rooms) => rooms,
        None => rooms.insert(node.rooms().await),
    };
    let stay: Vec<_> = stay.iter().map(|place| place.member.node).collect();
    Ok(node.has_room_for(&info.name, entry, rooms, holder_node(info), &stay).await.err().map(|fault| fault.message))
}

/// Why nothing is done without a replica that a takeover would leave out.
pub(super) fn may_come_back(node_name: &str, why: &str) -> String {
    format!("it waits for the replica on {node_name}, which may come back: {why}")
}

/// Who looks after a segment that nobody has open: the node on which its name is held, which knows that, or where nobody holds it, the first
/// with a replica that is up, and to keep it.
fn is_mine(node: &Node, (name, entry, _, holder): &Listed, unwanted: &[NodeId]) -> bool {
    if let Some(holder) = holder {
        return node.is_idle(name, holder);
    }
    let up = || entry.in_sync.iter().map(|member| member.node).filter(|at| node.view.get(*at).is_ok());
    let first = up().find(|at| !unwanted.contains(at)).or_else(|| up().next());
    first == Some(node.id)
}

/// Checks that whoever owned a segment last, which nobody has open, is known to be gone. On a node that is only cut off from the directory it
/// may live, and hold it again.
pub(super) async fn check_ended(node: &Arc<Node>, name: &str, last: &Claimant) -> Result<Result<(), String>, Fault> {
    if last.has_ended {
        return Ok(Ok(()));
    }
    let found = node.directory.read(&node_key(last.node)).await.map_err(|error| directory_fault(&error))?;
    let why = match found {
        // It may have been out of the cluster meanwhile, and be about to hold again what lives there.
        Some(_) => {
            let call = Call::Holds { name: name.to_owned(), session: last.session };
            match node.call(last.node, call, SHORT).await {
                Ok(Reply::Holds(false)) => return Ok(Ok(())),
                Ok(_) => "has it open again in a moment".to_owned(),
                Err(fault) => format!("may live: {fault}"),
            }
        }
        None if node.view.is_gone(last.node) => return Ok(Ok(())),
        None => {
            let member = node.directory.read(&member_key(last.node)).await.map_err(|error| directory_fault(&error))?;
            if member.is_none() {
                return Ok(Ok(())); // It is named no longer.
            }
            "may live: its node is down, and not gone for good (`node_gone_after`). Whoever opens it has it".to_owned()
        }
    };
    Ok(Err(format!("its last owner, {}, {why}", last.who)))
}

fn is_lost(place: &Place, unwanted: &[NodeId]) -> bool {
    unwanted.contains(&place.member.node) || has_new_memory(place)
}

/// Where its next owner is expected: on the node where its name is held.
fn holder_node(info: &SegmentInfo) -> Option<NodeId> {
    info.holder.as_ref().map(|holder| holder.node)
}

/// What a segment lacks of which so many replicas are asked for on other nodes than `beside`. More than that stay until an owner comes: one
/// may be beside it.
fn need(places: &[Place], replicas: usize, beside: Option<NodeId>, unwanted: &[NodeId]) -> Option<Need> {
    let (lost, stay): (Vec<_>, Vec<_>) = places.iter().partition(|place| is_lost(place, unwanted));
    let elsewhere = stay.iter().filter(|place| Some(place.member.node) != beside).count();
    if elsewhere < replicas { Some(Need::Further) } else { (!lost.is_empty()).then_some(Need::LetGo) }
}

#[cfg(test)]
mod tests {
    use segstore_core::id::{Incarnation, Member};

    use super::*;
    use crate::node::GONE;

    fn place(node: u128, problem: Option<&str>) -> Place {
        Place {
            member: Member { node: NodeId(node), incarnation: Incarnation(node) },
            node_name: format!("n{node}"),
            host: String::new(),
            providers: Vec::new(),
            up: problem != Some("down"),
            problem: problem.map(str::to_owned),
        }
    }

    #[test]
    fn what_is_lost_is_restored_and_nothing_else() {
        let lacks = |places: &[Place], unwanted: &[u128]| {
            need(places, 2, None, &unwanted.iter().map(|&node| NodeId(node)).collect::<Vec<_>>())
        };
        let (one, two) = (place(1, None), place(2, None));
        let (gone, down, three) = (place(2, Some(GONE)), place(2, Some("down")), place(3, None));
        assert_eq!(lacks(&[one.clone(), two.clone()], &[]), None);
        assert_eq!(lacks(std::slice::from_ref(&one), &[]), Some(Need::Further), "more are asked for");
        assert_eq!(lacks(&[one.clone(), gone.clone()], &[]), Some(Need::Further), "its memory is new");
        assert_eq!(lacks(&[one.clone(), down.clone()], &[]), None, "it may come back with its memory");
        assert_eq!(lacks(&[one.clone(), down.clone()], &[2]), Some(Need::Further), "it is gone for good");
        assert_eq!(lacks(&[one.clone(), two.clone(), three.clone()], &[]), None, "one may be beside the next owner");
        assert_eq!(lacks(&[one.clone(), two.clone(), three.clone()], &[3]), Some(Need::LetGo), "it is being drained");
        assert_eq!(lacks(&[one.clone(), two, gone.clone()], &[]), Some(Need::LetGo));
        assert_eq!(lacks(std::slice::from_ref(&one), &[1]), Some(Need::Further), "from where it is to go");
        let beside = |node, places: &[Place]| need(places, 2, Some(NodeId(node)), &[]);
        assert_eq!(beside(1, &[one.clone(), three.clone()]), Some(Need::Further), "one would die with the owner");
        assert_eq!(beside(2, &[one, three]), None);
    }
}
