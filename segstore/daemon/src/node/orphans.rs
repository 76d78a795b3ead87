//! Replicas that nobody needs any more: of segments that were removed while this node was away, or that left the in-sync set.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use segstore::control::message::Fault;
use segstore_core::id::{Incarnation, SegmentId};

use super::Node;
use crate::cluster::SegmentEntry;
use crate::replicas::Kept;

/// How often to look.
const PERIOD: Duration = Duration::from_secs(60);
/// How long a replica must have been needed by nobody: an owner may be about to add it.
const LONG_ENOUGH: Duration = Duration::from_secs(600);

/// Forgets them, until the process ends. While the directory does not answer nothing is forgotten.
pub async fn forget_orphans(node: Arc<Node>) {
    let mut since: HashMap<(SegmentId, Incarnation), Instant> = HashMap::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        let Ok(orphans) = orphans(&node).await else { continue };
        since.retain(|replica, _| orphans.contains(replica));
        for replica in orphans {
            let first = *since.entry(replica).or_insert_with(Instant::now);
            if first.elapsed() >= LONG_ENOUGH {
                let (segment, incarnation) = replica;
                tracing::info!(%segment, replica = %incarnation, "a replica that nobody needs is forgotten");
                let replicas = node.replicas.clone();
                let done = tokio::task::spawn_blocking(move || replicas.retire(segment, incarnation)).await;
                if let Ok(Err(error)) = done {
                    tracing::warn!("{error}");
                }
                since.remove(&replica);
            }
        }
    }
}

async fn orphans(node: &Arc<Node>) -> Result<Vec<(SegmentId, Incarnation)>, Fault> {
    let kept = node.replicas.list();
    if kept.is_empty() {
        return Ok(Vec::new());
    }
    let segments = node.segments().await?;
    let mut orphans = Vec::new();
    for replica in kept {
        let is_needed = match segments.iter().find(|(_, entry, _)| entry.segment == replica.segment) {
            Some((name, entry, _)) => is_needed(&replica, entry, node.holder(name).await?.is_some()),
            None => false,
        };
        if !is_needed && !replica.is_filling {
            orphans.push((replica.segment, replica.member.incarnation));
        }
    }
    Ok(orphans)
}

/// A member of the in-sync set, or the copy beside the owner. As long as nobody holds the segment, also the copy beside an owner that
/// is gone, which may start here again: who took the segment over only to read it has left the image as it was.
fn is_needed(replica: &Kept, entry: &SegmentEntry, is_held: bool) -> bool {
    let is_owners = (replica.remembered.term, replica.remembered.owner) == (entry.term, entry.owner);
    entry.in_sync.contains(&replica.member) || entry.keeping.local && (is_owners || !is_held)
}

#[cfg(test)]
mod tests {
    use segstore::control::message::{Access, BelowMinimum, Keeping, Shape};
    use segstore_core::id::{Member, NodeId, OwnerId, Term};
    use segstore_core::layout::Ownership;

    use super::*;

    const SEGMENT: SegmentId = SegmentId(1);

    fn member(number: u128) -> Member {
        Member { node: NodeId(number), incarnation: Incarnation(number) }
    }

    fn kept(number: u128, term: u64) -> Kept {
        let remembered = Ownership { term: Term(term), owner: OwnerId(term.into()) };
        Kept { segment: SEGMENT, member: member(number), remembered, is_filling: false }
    }

    /// In term 5, with the first replica in sync.
    fn entry(local: bool) -> SegmentEntry {
        SegmentEntry {
            segment: SEGMENT,
            term: Term(5),
            owner: OwnerId(5),
            in_sync: vec![member(1)],
            shape: Shape { capacity: 1 << 20, block_size: 4096, slots: 2 },
            keeping: Keeping { replicas: 1, minimum: 1, below_minimum: BelowMinimum::Continue, local },
            access: Access { uid: 0, gid: 0, mode: 0o600 },
            created: 0,
            events: Vec::new(),
        }
    }

    #[test]
    fn the_copy_beside_an_owner_is_kept_until_another_has_come_to_stay() {
        assert!(is_needed(&kept(2, 5), &entry(true), true), "the owner is there");
        assert!(is_needed(&kept(2, 5), &entry(true), false), "it may start here again");
        assert!(is_needed(&kept(2, 4), &entry(true), false), "somebody has read what nobody owns");
        assert!(!is_needed(&kept(2, 4), &entry(true), true), "another one owns it");
    }

    #[test]
    fn what_is_in_no_set_is_an_orphan() {
        assert!(is_needed(&kept(1, 3), &entry(false), true), "in sync, whatever it has seen");
        for is_held in [false, true] {
            assert!(!is_needed(&kept(2, 5), &entry(false), is_held));
        }
    }
}
