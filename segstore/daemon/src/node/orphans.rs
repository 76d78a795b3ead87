//! Replicas that nobody needs any more: they left the in-sync set, and the record says so. That it does not name them proves nothing: in an
//! older copy of the directory it does not name those that were added since either.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use segstore::control::message::{Fault, FaultKind};
use segstore_core::forget::{Forgettable, Local};
use segstore_core::id::{Member, SegmentId};

use super::Node;
use crate::replicas::Kept;

/// How often to look.
const PERIOD: Duration = Duration::from_secs(20);
/// How long a replica must have been needed by nobody: an owner may be about to add it.
const LONG_ENOUGH: Duration = Duration::from_secs(600);

/// A replica that nobody needs now.
struct Orphan {
    segment: SegmentId,
    forgettable: Forgettable,
}

/// Forgets them, until the process ends. While the directory does not answer, or is not this cluster's, nothing is forgotten.
pub async fn forget_orphans(node: Arc<Node>) {
    let mut since: HashMap<Vec<Member>, Instant> = HashMap::new();
    let mut unknown = HashMap::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        if node.lease.borrow().is_none() {
            continue;
        }
        let Ok(orphans) = orphans(&node, &mut unknown).await else { continue };
        since.retain(|members, _| orphans.iter().any(|orphan| orphan.forgettable.members == *members));
        for Orphan { segment, forgettable } in orphans {
            let first = *since.entry(forgettable.members.clone()).or_insert_with(Instant::now);
            if first.elapsed() >= LONG_ENOUGH {
                forget(&node, segment, forgettable).await;
            }
        }
    }
}

async fn forget(node: &Node, segment: SegmentId, orphan: Forgettable) {
    for member in &orphan.members {
        tracing::info!(%segment, replica = %member.incarnation, "a replica that nobody needs is forgotten");
    }
    let replicas = node.replicas.clone();
    let done = tokio::task::spawn_blocking(move || replicas.retire(segment, &orphan)).await;
    if let Ok(Err(error)) = done {
        tracing::warn!("{error}");
    }
}

/// What nobody needs now. Of what is `unknown` to the directory at two looks it is told that it stays.
async fn orphans(node: &Arc<Node>, unknown: &mut HashMap<Member, u32>) -> Result<Vec<Orphan>, Fault> {
    let replicas = node.replicas.clone();
    let listed = tokio::task::spawn_blocking(move || replicas.list()).await;
    let kept = listed.map_err(|error| Fault::new(FaultKind::Internal, error.to_string()))?;
    if kept.is_empty() {
        return Ok(Vec::new());
    }
    let segments = node.segments().await?;
    let mut orphans = Vec::new();
    for Kept { segment, member, remembered, is_in_use, .. } in kept {
        let Some((name, entry, _)) = segments.iter().find(|(_, entry, _)| entry.segment == segment) else {
            // Of what was removed every node is told. Between the two lists it may have gone from both.
            if !node.is_known(segment).await? {
                let looks = unknown.entry(member).or_default();
                *looks += 1;
                if *looks == 2 {
                    tell_of_unknown(segment, member);
                }
            }
            continue;
        };
        let local = match entry.keeping.local {
            true => Local::Kept { is_held: node.holder(name).await?.is_some() },
            false => Local::None,
        };
        let orphan = Forgettable::orphan(member, remembered, &entry.record(), local);
        // A copy beside the owner was never in the set, and left none.
        let has_left = entry.keeping.local || entry.former.contains(&member);
        let orphan = orphan.filter(|_| has_left && !is_in_use);
        orphans.extend(orphan.map(|forgettable| Orphan { segment, forgettable }));
    }
    Ok(orphans)
}

fn tell_of_unknown(segment: SegmentId, member: Member) {
    tracing::warn!(
        %segment, replica = %member.incarnation,
        "the directory has no record of a segment that has a replica here, and has never known it: is it a copy from before the segment was \
         made? The replica stays until its directory comes back; to give it up, stop this daemon and remove its files in `memory_dir`"
    );
}
