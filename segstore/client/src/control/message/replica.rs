//! A replica: where it is, and how.

use segstore_core::id::{Member, Stamp};
use serde::{Deserialize, Serialize};

/// How a replica can be reached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Place {
    /// The replica.
    pub member: Member,
    /// Its node's name.
    pub node_name: String,
    /// What tells machines apart: processes with the same value can share memory.
    pub host: String,
    /// The transport's providers that the node serves, by name, the best first.
    pub providers: Vec<String>,
    /// Whether the node is known to be up.
    pub up: bool,
    /// Why the replica is not there, where its node was asked.
    #[serde(default)]
    pub problem: Option<String>,
}

impl Place {
    /// Whether the replica is there, as far as is known.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.up && self.problem.is_none()
    }

    /// Of the providers that `host` has, those over which it reaches this place, in its order: shared memory reaches only as far as
    /// the machine.
    pub fn usable<'h>(&self, host: &str, has: impl Iterator<Item = &'h str>) -> impl Iterator<Item = &'h str> {
        let is_near = host == self.host;
        has.filter(move |name| self.providers.iter().any(|have| have == name) && (is_near || *name != "shm"))
    }
}

/// A replica as its node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaInfo {
    /// The replica.
    pub member: Member,
    /// Its node's name.
    pub node_name: String,
    /// Whether it is in the in-sync set.
    pub in_sync: bool,
    /// The transport's provider over which its owner reaches it, if it does.
    #[serde(default)]
    pub over: Option<String>,
    /// The newest whole image in it, if its node answered.
    pub image: Option<Stamp>,
    /// While it is filled: blocks copied, blocks to copy.
    pub repair: Option<(u32, u32)>,
    /// What is wrong with it.
    pub problem: Option<String>,
}
