//! Segments that the directory has known, and what is left of those that were removed.
//!
//! That there is no record of a segment does not prove that it was removed: in a new directory, or in a copy from before the segment was
//! made, there is none either, and its replicas are all that there is. So it is written down before the first replica is made that there
//! is to be a segment, and before the record goes that it is removed; and this stays until every node has forgotten its replicas.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use segstore::control::message::{Fault, FaultKind};
use segstore_core::id::{NodeId, SegmentId};
use serde::{Deserialize, Serialize};

use super::{Node, SHORT, directory_fault, encode, parse};
use crate::cluster::{KNOWN, MEMBERS, known_key};
use crate::directory::{Entry, Revision, Swapped, Value};
use crate::peers::message::{Call, Reply};

/// How often to look.
const PERIOD: Duration = Duration::from_secs(20);
/// How long there must have been no record: a segment may be just being made.
const LONG_ENOUGH: Duration = Duration::from_secs(60);

/// What the directory has known of a segment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Known {
    name: String,
    /// Without this, and without a record, only what nobody has ever owned may be forgotten: of a segment that was half made.
    #[serde(default)]
    is_removed: bool,
}

/// A segment of which there is no record.
struct Unrecorded {
    segment: SegmentId,
    known: Known,
    revision: Revision,
}

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
        let unrecorded = match node.unrecorded().await {
            Ok(unrecorded) => unrecorded,
            Err(fault) => {
                tracing::debug!("looking for what is left of removed segments: {fault}");
                continue;
            }
        };
        since.retain(|segment, _| unrecorded.iter().any(|found| found.segment == *segment));
        for found in unrecorded {
            if since.entry(found.segment).or_insert_with(Instant::now).elapsed() < LONG_ENOUGH {
                continue;
            }
            since.remove(&found.segment);
            if let Err(fault) = node.forget_unrecorded(&found).await {
                tracing::debug!(segment = found.known.name, "what is left of it stays for now: {fault}");
            }
        }
    }
}

impl Node {
    /// Has it written down that there is to be a segment, before the first of its replicas is made.
    pub(crate) async fn make_known(&self, segment: SegmentId, name: &str) -> Result<(), Fault> {
        let known = Known { name: name.to_owned(), is_removed: false };
        self.write_known(segment, None, Some(&known)).await.map(drop)
    }

    /// Has it written down that a segment is removed, before its record goes.
    pub(crate) async fn make_removed(&self, segment: SegmentId, name: &str) -> Result<(), Fault> {
        let removed = Known { name: name.to_owned(), is_removed: true };
        while !self.write_known(segment, self.known(segment).await?, Some(&removed)).await? {}
        Ok(())
    }

    /// Whether this directory has known the segment.
    pub(crate) async fn is_known(&self, segment: SegmentId) -> Result<bool, Fault> {
        self.known(segment).await.map(|revision| revision.is_some())
    }

    async fn known(&self, segment: SegmentId) -> Result<Option<Revision>, Fault> {
        let found = self.directory.read(&known_key(segment)).await;
        found.map(|found| found.map(|entry| entry.revision)).map_err(|error| directory_fault(&error))
    }

    /// Whether nothing came between.
    async fn write_known(
        &self,
        segment: SegmentId,
        expected: Option<Revision>,
        known: Option<&Known>,
    ) -> Result<bool, Fault> {
        let value = known.map(|known| Ok::<_, Fault>(Value { bytes: encode(known)?, lease: None })).transpose()?;
        let swapped = self.directory.compare_swap(&known_key(segment), expected, value).await;
        swapped.map(|swapped| matches!(swapped, Swapped::Made(_))).map_err(|error| directory_fault(&error))
    }

    /// Every node forgets what it has of the segment, or of this only what nobody has ever owned. Gives those that have nothing (more).
    pub(crate) async fn forget(self: &Arc<Self>, segment: SegmentId, unowned_only: bool) -> HashSet<NodeId> {
        let answers = self.call_all(&Call::Forget { segment, unowned_only }, SHORT).await;
        let done = answers.into_iter().filter(|(_, reply)| matches!(reply, Reply::Done));
        done.map(|(entry, _)| entry.node).collect()
    }

    /// Of what the directory has known, the segments of which there is no record.
    async fn unrecorded(&self) -> Result<Vec<Unrecorded>, Fault> {
        let listed = self.directory.list(KNOWN).await.map_err(|error| directory_fault(&error))?;
        let recorded: HashSet<_> = self.segments().await?.into_iter().map(|(_, entry, _)| entry.segment).collect();
        let found = |entry: &Entry| {
            let (segment, known) = (id(entry, KNOWN)?, parse(entry)?);
            Ok(Unrecorded { segment, known, revision: entry.revision })
        };
        let mut known = listed.entries.iter().map(found).collect::<Result<Vec<_>, Fault>>()?;
        known.retain(|found| !recorded.contains(&found.segment));
        Ok(known)
    }

    /// With the last replica the directory forgets a segment as well. Nodes that do not answer are asked again later.
    async fn forget_unrecorded(self: &Arc<Self>, found: &Unrecorded) -> Result<(), Fault> {
        let done = self.forget(found.segment, !found.known.is_removed).await;
        let members = self.directory.list(MEMBERS).await.map_err(|error| directory_fault(&error))?;
        for member in &members.entries {
            if !done.contains(&id(member, MEMBERS)?) {
                let name: String = parse(member)?;
                return Err(Fault::new(
                    FaultKind::Unreachable,
                    format!("node {name} has not answered that it is gone"),
                ));
            }
        }
        self.write_known(found.segment, Some(found.revision), None).await.map(drop)
    }
}

/// What a key below `prefix` names.
fn id<T: std::str::FromStr<Err: std::fmt::Display>>(entry: &Entry, prefix: &str) -> Result<T, Fault> {
    let id = entry.key.strip_prefix(prefix).unwrap_or(&entry.key).parse();
    id.map_err(|error| {
        Fault::new(FaultKind::Internal, format!("the directory's entry {} makes no sense: {error}", entry.key))
    })
}
