//! Replicas that nobody needs any more: of segments that were removed while this node was away, or that left the in-sync set.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use segstore::control::message::Fault;
use segstore_core::forget::{Forgettable, Local};
use segstore_core::id::{Member, SegmentId};

use super::Node;
use crate::replicas::Kept;

/// How often to look.
const PERIOD: Duration = Duration::from_secs(60);
/// How long a replica must have been needed by nobody: an owner may be about to add it.
const LONG_ENOUGH: Duration = Duration::from_secs(600);

/// Forgets them, until the process ends. While the directory does not answer nothing is forgotten.
pub async fn forget_orphans(node: Arc<Node>) {
    let mut since: HashMap<Vec<Member>, Instant> = HashMap::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        let Ok(orphans) = orphans(&node).await else { continue };
        since.retain(|members, _| orphans.iter().any(|(_, orphan)| orphan.members == *members));
        for (segment, orphan) in orphans {
            let first = *since.entry(orphan.members.clone()).or_insert_with(Instant::now);
            if first.elapsed() >= LONG_ENOUGH {
                forget(&node, segment, orphan).await;
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

async fn orphans(node: &Arc<Node>) -> Result<Vec<(SegmentId, Forgettable)>, Fault> {
    let kept = node.replicas.list();
    if kept.is_empty() {
        return Ok(Vec::new());
    }
    let segments = node.segments().await?;
    let mut orphans = Vec::new();
    for Kept { segment, member, remembered, is_filling } in kept {
        let entry = segments.iter().find(|(_, entry, _)| entry.segment == segment);
        let orphan = match entry {
            Some((name, entry, revision)) => {
                let is_held = node.holder(name).await?.is_some();
                let local = if entry.keeping.local { Local::Kept { is_held } } else { Local::None };
                Forgettable::orphan(member, remembered, &entry.versioned(*revision).record, local)
            }
            // The segment was unlinked.
            None => Some(Forgettable { by: remembered, members: vec![member] }),
        };
        orphans.extend(orphan.filter(|_| !is_filling).map(|orphan| (segment, orphan)));
    }
    Ok(orphans)
}
