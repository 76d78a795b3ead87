//! Segments that the directory has known, and what is left of those that were removed.
//!
//! That there is no record of a segment proves that it was removed only where it was once: in a new directory, or in a copy from
//! before the segment was made, there is none either, and its replicas are all that there is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use segstore::control::message::{Fault, FaultKind};
use segstore_core::id::SegmentId;

use super::{Node, SHORT, directory_fault, encode};
use crate::cluster::{KNOWN, known_key};
use crate::directory::{DirectoryError, Value};
use crate::peers::message::Call;

/// How often to look.
const PERIOD: Duration = Duration::from_secs(20);
/// How long there must have been no record: a segment may be just being made, which takes no longer than [`LONG`].
const LONG_ENOUGH: Duration = Duration::from_secs(60);

/// Has what is left of removed segments forgotten, until the process ends: nodes that were away come back with their replicas. One
/// node does it for all.
pub async fn forget_removed(node: Arc<Node>) {
    let mut since: HashMap<SegmentId, Instant> = HashMap::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        let is_first = node.view.up().first().is_some_and(|first| first.node == node.id);
        if !is_first || node.lease.borrow().is_none() {
            since.clear();
            continue;
        }
        let Ok(removed) = node.removed().await else { continue };
        since.retain(|segment, _| removed.contains(segment));
        for segment in removed {
            if since.entry(segment).or_insert_with(Instant::now).elapsed() >= LONG_ENOUGH {
                node.forget(segment).await;
                since.remove(&segment);
            }
        }
    }
}

impl Node {
    /// Has it written down that there is to be a segment, before the first of its replicas is made.
    pub(crate) async fn make_known(&self, segment: SegmentId, name: &str) -> Result<(), Fault> {
        let value = Value { bytes: encode(&name)?, lease: None };
        let swapped = self.directory.compare_swap(&known_key(segment), None, Some(value)).await;
        swapped.map(drop).map_err(|error| directory_fault(&error))
    }

    /// Whether this directory has known the segment.
    pub(crate) async fn is_known(&self, segment: SegmentId) -> Result<bool, Fault> {
        let found = self.directory.read(&known_key(segment)).await;
        found.map(|found| found.is_some()).map_err(|error| directory_fault(&error))
    }

    /// Of what the directory has known, the segments of which there is no record.
    async fn removed(&self) -> Result<HashSet<SegmentId>, Fault> {
        let known = self.directory.list(KNOWN).await.map_err(|error| directory_fault(&error))?;
        let present: HashSet<_> = self.segments().await?.into_iter().map(|(_, entry, _)| entry.segment).collect();
        let ids = known.entries.iter().map(|entry| entry.key.trim_start_matches(KNOWN).parse());
        let ids: Result<HashSet<SegmentId>, _> = ids.collect();
        let ids = ids.map_err(|error| Fault::new(FaultKind::Internal, format!("a key below {KNOWN}: {error}")))?;
        Ok(ids.difference(&present).copied().collect())
    }

    /// Every node forgets what it has of a segment of which there is no record, and with the last of them the directory does. Nodes that
    /// do not answer are asked again later.
    pub(crate) async fn forget(self: &Arc<Self>, segment: SegmentId) {
        let nodes = self.view.all().len();
        if self.call_all(&Call::Forget { segment }, SHORT).await.len() == nodes
            && let Err(error) = self.forget_known(segment).await
        {
            tracing::debug!(%segment, "what the directory knows of it stays: {error}");
        }
    }

    async fn forget_known(&self, segment: SegmentId) -> Result<(), DirectoryError> {
        let key = known_key(segment);
        if let Some(found) = self.directory.read(&key).await? {
            self.directory.compare_swap(&key, Some(found.revision), None).await?;
        }
        Ok(())
    }
}
