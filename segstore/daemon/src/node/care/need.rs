//! Which segments a node is to look after.

use std::sync::Arc;

use segstore::control::message::{Fault, Place, SegmentInfo};
use segstore_core::id::{NodeId, SegmentId, Term};

use crate::cluster::{Claimant, SegmentEntry, node_key};
use crate::node::{GONE, Node, directory_fault};

/// A segment that nobody owns, and whose replicas are to be restored.
pub(super) struct Needy {
    pub(super) name: String,
    pub(super) segment: SegmentId,
    /// It was in this term.
    pub(super) term: Term,
}

/// What was found.
#[derive(Default)]
pub(super) struct Look {
    pub(super) needy: Vec<Needy>,
    /// Those that would be, and why nothing can be done for them.
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

/// Looks at all that nobody owns.
pub(super) async fn look(node: &Arc<Node>) -> Result<Look, Fault> {
    let (segments, holders) = (node.segments().await?, node.holders().await?);
    let unwanted = node.view.unwanted();
    let mut mine = Vec::new();
    for (name, entry, revision) in segments {
        let is_mine = !holders.contains_key(&name) && is_to_look_after(node, &entry, &unwanted);
        if is_mine && has_ended(node, entry.claimant.as_ref(), &unwanted).await? {
            mine.push((node.describe(&name, &entry, revision, None), entry));
        }
    }
    let (mut infos, entries): (Vec<SegmentInfo>, Vec<SegmentEntry>) = mine.into_iter().unzip();
    if !infos.is_empty() {
        node.look_at(&mut infos).await;
    }
    let (mut look, mut rooms) = (Look::default(), None);
    for (info, entry) in infos.into_iter().zip(entries) {
        let Some(need) = need(&info.places, entry.keeping.replicas as usize, &unwanted) else { continue };
        if need == Need::Further {
            // Before a term is spent on it.
            let rooms = match &rooms {
                Some(rooms) => rooms,
                None => rooms.insert(node.rooms().await),
            };
            let stay = info.places.iter().filter(|place| !is_lost(place, &unwanted));
            let stay: Vec<_> = stay.map(|place| place.member.node).collect();
            if let Err(fault) = node.has_room_for(&info.name, &entry, rooms, &stay) {
                look.stuck.push((info.name, fault.message));
                continue;
            }
        }
        look.needy.push(Needy { name: info.name, segment: entry.segment, term: entry.term });
    }
    Ok(look)
}

/// The first node with a replica looks after a segment that is up, and to keep it.
fn is_to_look_after(node: &Node, entry: &SegmentEntry, unwanted: &[NodeId]) -> bool {
    let up = || entry.in_sync.iter().map(|member| member.node).filter(|at| node.view.get(*at).is_ok());
    let first = up().find(|at| !unwanted.contains(at)).or_else(|| up().next());
    first == Some(node.id)
}

/// Whether whoever owned a segment last, which nobody holds, is known to be gone. On a node that is only cut off from the directory it may
/// live, and hold it again.
async fn has_ended(node: &Node, claimant: Option<&Claimant>, unwanted: &[NodeId]) -> Result<bool, Fault> {
    let Some(claimant) = claimant.filter(|claimant| !claimant.has_ended) else { return Ok(true) };
    // A node that is in the cluster holds whatever lives there.
    let found = node.directory.read(&node_key(claimant.node)).await.map_err(|error| directory_fault(&error))?;
    Ok(found.is_some() || unwanted.contains(&claimant.node))
}

fn is_lost(place: &Place, unwanted: &[NodeId]) -> bool {
    unwanted.contains(&place.member.node) || place.problem.as_deref() == Some(GONE)
}

/// What a segment lacks of which so many replicas are asked for. More than that stay until an owner comes: one may be beside it.
fn need(places: &[Place], replicas: usize, unwanted: &[NodeId]) -> Option<Need> {
    let stay = places.iter().filter(|place| !is_lost(place, unwanted)).count();
    let has_source = places.iter().any(Place::is_live);
    let need = if stay < replicas { Need::Further } else { Need::LetGo };
    (has_source && stay < replicas.max(places.len())).then_some(need)
}

#[cfg(test)]
mod tests {
    use segstore_core::id::{Incarnation, Member};

    use super::*;

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
            need(places, 2, &unwanted.iter().map(|&node| NodeId(node)).collect::<Vec<_>>())
        };
        let (one, two) = (place(1, None), place(2, None));
        let (gone, down, three) = (place(2, Some(GONE)), place(2, Some("down")), place(3, None));
        assert_eq!(lacks(&[one.clone(), two.clone()], &[]), None);
        assert_eq!(lacks(&[one.clone()], &[]), Some(Need::Further), "more are asked for");
        assert_eq!(lacks(&[one.clone(), gone.clone()], &[]), Some(Need::Further), "its memory is new");
        assert_eq!(lacks(&[one.clone(), down.clone()], &[]), None, "it may come back with its memory");
        assert_eq!(lacks(&[one.clone(), down.clone()], &[2]), Some(Need::Further), "it is gone for good");
        assert_eq!(lacks(&[one.clone(), two.clone(), three.clone()], &[]), None, "one may be beside the next owner");
        assert_eq!(lacks(&[one.clone(), two.clone(), three.clone()], &[3]), Some(Need::LetGo), "it is being drained");
        assert_eq!(lacks(&[one.clone(), two, gone.clone()], &[]), Some(Need::LetGo));
        assert_eq!(lacks(&[gone, down], &[]), None, "there is nothing to copy from");
        assert_eq!(lacks(&[one], &[1]), Some(Need::Further), "from where it is to go");
    }
}
