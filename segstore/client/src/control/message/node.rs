//! A node.

use std::collections::BTreeMap;

use segstore_core::id::NodeId;
use serde::{Deserialize, Serialize};

use super::{Holder, Labelled};

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where its daemon listens for the others.
    pub address: String,
    /// Whether it only keeps replicas.
    pub storage: bool,
    /// Whether its lease stands; where `stale` is said, whether it stood then.
    pub up: bool,
    /// Why nobody knows how the node is now: the directory does not answer.
    #[serde(default)]
    pub stale: Option<String>,
    /// What tells machines apart.
    #[serde(default)]
    pub host: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether everything is being moved off it.
    #[serde(default)]
    pub draining: bool,
    /// Whether the directory is kept here.
    pub directory: bool,
    /// Bytes of replica memory in use.
    pub used: u64,
    /// Bytes of replica memory that it may use.
    pub budget: u64,
    /// Where it keeps replicas on its machine; empty: an older daemon does not say.
    #[serde(default)]
    pub memory_dir: String,
    /// Replicas that it keeps.
    pub replicas: u32,
    /// The version of its daemon.
    pub version: String,
}

impl NodeInfo {
    /// The value of one of its labels: see [`Labelled`].
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        Labelled { name: &self.name, host: &self.host, storage: self.storage, labels: &self.labels }.label(key)
    }
}

/// What keeps a node from being switched off.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Left {
    /// A segment's name.
    pub segment: String,
    /// Whether a replica in sync is there.
    pub has_replica: bool,
    /// Whether somebody still writes to a replica there: its owner may count on it again, or it is just being filled.
    #[serde(default)]
    pub is_written: bool,
    /// Who holds the segment, there or elsewhere.
    pub holder: Option<Holder>,
}
