//! Which nodes there are, as the directory tells: kept up to date by a watch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use segstore::control::message::{Fault, FaultKind, Place};
use segstore_core::id::{Member, NodeId};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{MEMBERS, NODES, NodeEntry};
use crate::directory::{Change, Directory, Entry};

const PAUSE: Duration = Duration::from_millis(200);
/// How often to look whether a node that is down is gone for good.
const LOOK: Duration = Duration::from_secs(1);

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    entry: NodeEntry,
    /// Since when it is down; none: it is up. At the earliest since this daemon started.
    down: Option<Instant>,
    /// It was up since this daemon started: more is known of it than its name.
    was_up: bool,
}

impl Seen {
    fn up(entry: NodeEntry) -> Self {
        Self { entry, down: None, was_up: true }
    }

    /// A member that is down from the beginning.
    fn absent(node: NodeId, name: String) -> Self {
        Self { entry: NodeEntry::named(node, name), down: Some(Instant::now()), was_up: false }
    }

    fn is_up(&self) -> bool {
        self.down.is_none()
    }
}

/// The nodes of the cluster: those that were seen since this daemon started, and by their names those that were down already.
#[derive(Clone)]
pub struct View {
    nodes: watch::Sender<BTreeMap<NodeId, Seen>>,
    gone_after: Option<Duration>,
}

impl View {
    /// No node was seen so far. One that is down for `gone_after` counts as gone for good.
    #[must_use]
    pub fn new(gone_after: Option<Duration>) -> Self {
        Self { nodes: watch::Sender::default(), gone_after }
    }

    /// Follows the directory until the process ends.
    pub async fn follow(self, directory: Arc<dyn Directory>) {
        loop {
            // Members first: who joins in between is among the nodes.
            if let (Ok(members), Ok(listing)) = (directory.list(MEMBERS).await, directory.list(NODES).await) {
                self.replace(&listing.entries, &members.entries);
                if let Ok(mut watch) = directory.watch(NODES, listing.revision).await {
                    while let Some(change) = watch.recv().await {
                        self.apply(change);
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until a node was seen to be up: then every node that had joined before it was seen as well.
    pub async fn until_seen(&self, node: NodeId) {
        // It fails when the sender is gone, which is `self`.
        let _ = self.nodes.subscribe().wait_for(|nodes| nodes.get(&node).is_some_and(Seen::is_up)).await;
    }

    fn replace(&self, entries: &[Entry], members: &[Entry]) {
        self.nodes.send_modify(|nodes| {
            for seen in nodes.values_mut() {
                seen.down.get_or_insert_with(Instant::now);
            }
            nodes.extend(entries.iter().filter_map(parse).map(|entry: NodeEntry| (entry.node, Seen::up(entry))));
            for member in members {
                if let (Some(node), Some(name)) = (node_of(MEMBERS, &member.key), parse(member)) {
                    nodes.entry(node).or_insert_with(|| Seen::absent(node, name));
                }
            }
        });
    }

    fn apply(&self, change: Change) {
        self.nodes.send_modify(|nodes| match change {
            Change::Put(entry) => {
                if let Some(entry) = parse::<NodeEntry>(&entry) {
                    if nodes.get(&entry.node).is_none_or(|seen| !seen.is_up()) {
                        tracing::info!(node = entry.name, "a node has joined, at {}", entry.address);
                    }
                    nodes.insert(entry.node, Seen::up(entry));
                }
            }
            Change::Deleted { key, .. } => {
                if let Some(seen) = node_of(NODES, &key).and_then(|node| nodes.get_mut(&node)) {
                    tracing::warn!(node = seen.entry.name, "a node is gone: its lease is over");
                    seen.down.get_or_insert_with(Instant::now);
                }
            }
        });
    }

    /// Names a node no longer, unless it is up.
    pub fn forget(&self, node: NodeId) {
        self.nodes.send_modify(|nodes| nodes.retain(|known, seen| *known != node || seen.is_up()));
    }

    /// Every node, and whether it is up.
    #[must_use]
    pub fn all(&self) -> Vec<(NodeEntry, bool)> {
        let nodes = self.nodes.borrow();
        nodes.values().map(|seen| (seen.entry.clone(), seen.is_up())).collect()
    }

    /// The nodes that are up.
    #[must_use]
    pub fn up(&self) -> Vec<NodeEntry> {
        self.all().into_iter().filter_map(|(entry, up)| up.then_some(entry)).collect()
    }

    /// Whether a node that is up has another value of a label.
    #[must_use]
    pub fn has_another(&self, key: &str, value: &str) -> bool {
        let nodes = self.nodes.borrow();
        let mut up = nodes.values().filter(|seen| seen.is_up());
        up.any(|seen| seen.entry.label(key).is_some_and(|other| other != value))
    }

    /// These nodes, of those that were seen since this daemon started.
    #[must_use]
    pub fn entries(&self, wanted: impl IntoIterator<Item = NodeId>) -> Vec<NodeEntry> {
        let nodes = self.nodes.borrow();
        let seen = wanted.into_iter().filter_map(|node| nodes.get(&node).filter(|seen| seen.was_up));
        seen.map(|seen| seen.entry.clone()).collect()
    }

    /// A node that is up.
    ///
    /// # Errors
    /// It is down, or was never seen.
    pub fn get(&self, node: NodeId) -> Result<NodeEntry, Fault> {
        let nodes = self.nodes.borrow();
        let text = match nodes.get(&node) {
            Some(Seen { entry, down: None, .. }) => return Ok(entry.clone()),
            Some(Seen { entry, .. }) => format!("node {} is down: its lease is over", entry.name),
            None => format!("node {node} is not in the cluster now"),
        };
        Err(Fault::new(FaultKind::Unreachable, text))
    }

    /// Whether a node is gone for good.
    #[must_use]
    pub fn is_gone(&self, node: NodeId) -> bool {
        self.nodes.borrow().get(&node).is_some_and(|seen| self.is_gone_for_good(seen))
    }

    fn is_gone_for_good(&self, seen: &Seen) -> bool {
        self.gone_after.zip(seen.down).is_some_and(|(after, since)| since.elapsed() >= after)
    }

    /// The nodes that are to keep nothing: those that are being drained, and those that are gone for good.
    #[must_use]
    pub fn unwanted(&self) -> Vec<NodeId> {
        let nodes = self.nodes.borrow();
        let unwanted = nodes.values().filter(|seen| seen.entry.draining || self.is_gone_for_good(seen));
        unwanted.map(|seen| seen.entry.node).collect()
    }

    /// Who is up, and who is to keep nothing.
    #[must_use]
    pub fn wanted(&self) -> (Vec<NodeId>, Vec<NodeId>) {
        (self.up().into_iter().map(|entry| entry.node).collect(), self.unwanted())
    }

    /// What `see` sees here, as soon as that is not `known` any more.
    pub async fn other<T: PartialEq>(&self, known: &T, see: impl Fn(&Self) -> T) -> T {
        let mut nodes = self.nodes.subscribe();
        loop {
            let seen = see(self);
            if seen != *known {
                return seen;
            }
            let is_one_down = nodes.borrow_and_update().values().any(|seen| !seen.is_up());
            let wait = if is_one_down { LOOK } else { Duration::MAX };
            // The sender is `self`, and is not gone.
            let _ = tokio::time::timeout(wait, nodes.changed()).await;
        }
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
            Some(seen @ Seen { entry, .. }) => Place {
                member,
                node_name: entry.name.clone(),
                host: entry.host.clone(),
                providers: entry.providers.clone(),
                up: seen.is_up(),
                problem: (!seen.is_up()).then(|| "its node is down: its lease is over".to_owned()),
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

/// Whose the key is, of those with this prefix.
fn node_of(prefix: &str, key: &str) -> Option<NodeId> {
    key.strip_prefix(prefix)?.parse().ok()
}

fn parse<T: DeserializeOwned>(entry: &Entry) -> Option<T> {
    serde_json::from_slice(&entry.value)
        .inspect_err(|error| tracing::error!(key = entry.key, "an entry that makes no sense: {error}"))
        .ok()
}
