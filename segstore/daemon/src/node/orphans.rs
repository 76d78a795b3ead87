//! Replicas that nobody needs any more: of segments that were removed while this node was away, or that left the in-sync set.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use segstore::control::message::{Fault, FaultKind};
use segstore_core::id::{Incarnation, SegmentId};

use super::Node;
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
    let replicas = node.replicas.clone();
    let listed = tokio::task::spawn_blocking(move || replicas.list()).await;
    let kept = listed.map_err(|error| Fault::new(FaultKind::Internal, error.to_string()))?;
    if kept.is_empty() {
        return Ok(Vec::new());
    }
    let segments = node.segments().await?;
    let mut orphans = Vec::new();
    for Kept { segment, member, remembered, is_in_use } in kept {
        let entry = segments.iter().find(|(_, entry, _)| entry.segment == segment);
        let is_needed = match entry {
            Some((_, entry, _)) => {
                // The copy beside the owner, or beside the last one, which may start here again.
                let is_local = entry.keeping.local && (remembered.term, remembered.owner) == (entry.term, entry.owner);
                entry.in_sync.contains(&member) || is_local
            }
            None => false,
        };
        if !is_needed && !is_in_use {
            orphans.push((segment, member.incarnation));
        }
    }
    Ok(orphans)
}
