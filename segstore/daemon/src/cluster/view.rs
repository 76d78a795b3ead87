//! Which nodes there are, as the directory tells: kept up to date by a watch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use segstore::control::message::{Fault, FaultKind, Place};
use segstore_core::id::{Member, NodeId};
use tokio::sync::watch;

use super::{NODES, NodeEntry};
use crate::directory::{Change, Directory, Entry};

const PAUSE: Duration = Duration::from_millis(200);

/// A node that was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    entry: NodeEntry,
    up: bool,
}

/// The nodes that were seen since this daemon started.
#[derive(Clone, Default)]
pub struct View {
    nodes: watch::Sender<BTreeMap<NodeId, Seen>>,
}

impl View {
    /// Follows the directory until the process ends.
    pub async fn follow(self, directory: Arc<dyn Directory>) {
        loop {
            if let Ok(listing) = directory.list(NODES).await {
                self.replace(&listing.entries);
                if let Ok(mut watch) = directory.watch(NODES, listing.revision).await {
                    while let Some(change) = watch.recv().await {
                        self.apply(change);
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until a node was seen: then every node that had joined before it was seen as well.
    pub async fn until_seen(&self, node: NodeId) {
        // It fails when the sender is gone, which is `self`.
        let _ = self.nodes.subscribe().wait_for(|nodes| nodes.contains_key(&node)).await;
    }

    fn replace(&self, entries: &[Entry]) {
        self.nodes.send_modify(|nodes| {
            nodes.values_mut().for_each(|seen| seen.up = false);
            nodes.extend(entries.iter().filter_map(parse).map(|entry| (entry.node, Seen { entry, up: true })));
        });
    }

    fn apply(&self, change: Change) {
        self.nodes.send_modify(|nodes| match change {
            Change::Put(entry) => {
                if let Some(entry) = parse(&entry) {
                    if nodes.get(&entry.node).is_none_or(|seen| !seen.up) {
                        tracing::info!(node = entry.name, "a node has joined, at {}", entry.address);
                    }
                    nodes.insert(entry.node, Seen { entry, up: true });
                }
            }
            Change::Deleted { key, .. } => {
                let node = key.strip_prefix(NODES).and_then(|node| node.parse().ok());
                if let Some(seen) = node.and_then(|node| nodes.get_mut(&node)) {
                    tracing::warn!(node = seen.entry.name, "a node is gone: its lease is over");
                    seen.up = false;
                }
            }
        });
    }

    /// Names a node no longer, unless it is up.
    pub fn forget(&self, node: NodeId) {
        self.nodes.send_modify(|nodes| nodes.retain(|seen, Seen { up, .. }| *seen != node || *up));
    }

    /// Every node that was seen, and whether it is up.
    #[must_use]
    pub fn all(&self) -> Vec<(NodeEntry, bool)> {
        let nodes = self.nodes.borrow();
        nodes.values().map(|seen| (seen.entry.clone(), seen.up)).collect()
    }

    /// The nodes that are up.
    #[must_use]
    pub fn up(&self) -> Vec<NodeEntry> {
        self.all().into_iter().filter_map(|(entry, up)| up.then_some(entry)).collect()
    }

    /// These nodes, of those that were seen.
    #[must_use]
    pub fn entries(&self, wanted: impl IntoIterator<Item = NodeId>) -> Vec<NodeEntry> {
        let nodes = self.nodes.borrow();
        wanted.into_iter().filter_map(|node| Some(nodes.get(&node)?.entry.clone())).collect()
    }

    /// A node that is up.
    ///
    /// # Errors
    /// It is down, or was never seen.
    pub fn get(&self, node: NodeId) -> Result<NodeEntry, Fault> {
        let nodes = self.nodes.borrow();
        let text = match nodes.get(&node) {
            Some(Seen { entry, up: true }) => return Ok(entry.clone()),
            Some(Seen { entry, .. }) => format!("node {} is down: its lease is over", entry.name),
            None => format!("node {node} is not in the cluster now"),
        };
        Err(Fault::new(FaultKind::Unreachable, text))
    }

    /// The nodes that are being drained.
    #[must_use]
    pub fn draining(&self) -> Vec<NodeId> {
        draining(&self.nodes.borrow())
    }

    /// The nodes that are being drained, as soon as these are not they any more.
    pub async fn other_draining(&self, known: &[NodeId]) -> Vec<NodeId> {
        let mut nodes = self.nodes.subscribe();
        // It fails when the sender is gone, which is `self`.
        let changed = nodes.wait_for(|nodes| draining(nodes) != known).await;
        changed.map_or_else(|_| known.to_vec(), |nodes| draining(&nodes))
    }

    /// A node's name, as far as it is known.
    #[must_use]
    pub fn name(&self, node: NodeId) -> String {
        let nodes = self.nodes.borrow();
        nodes.get(&node).map_or_else(|| node.to_string(), |seen| seen.entry.name.clone())
    }

    /// How a replica can be reached.
    #[must_use]
    pub fn place(&self, member: Member) -> Place {
        let nodes = self.nodes.borrow();
        match nodes.get(&member.node) {
            Some(Seen { entry, up }) => Place {
                member,
                node_name: entry.name.clone(),
                host: entry.host.clone(),
                providers: entry.providers.clone(),
                up: *up,
                problem: (!up).then(|| "its node is down: its lease is over".to_owned()),
            },
            None => Place {
                member,
                node_name: member.node.to_string(),
                host: String::new(),
                providers: Vec::new(),
                up: false,
                problem: Some("its node is not in the cluster now".to_owned()),
            },
        }
    }
}

fn draining(nodes: &BTreeMap<NodeId, Seen>) -> Vec<NodeId> {
    nodes.values().filter(|seen| seen.entry.draining).map(|seen| seen.entry.node).collect()
}

fn parse(entry: &Entry) -> Option<NodeEntry> {
    serde_json::from_slice(&entry.value)
        .inspect_err(|error| tracing::error!(key = entry.key, "an entry that makes no sense: {error}"))
        .ok()
}
