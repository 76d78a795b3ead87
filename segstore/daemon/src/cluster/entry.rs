//! The values.

use segstore::control::message::{Access, Event, Keeping, NodeInfo, Shape};
use segstore_core::id::{Member, NodeId, OwnerId, SegmentId, Term};
use segstore_core::record::{Record, RecordVersion, Versioned};
use serde::{Deserialize, Serialize};

use crate::directory::Revision;

/// How many events a segment keeps.
const EVENTS: usize = 64;

/// A node, while its lease stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeEntry {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where its daemon listens for the others: host and port.
    pub address: String,
    /// What tells machines apart: processes with the same value can share memory.
    pub host: String,
    /// The transport's providers that it serves, by name, the best first.
    pub providers: Vec<String>,
    /// Whether it only keeps replicas.
    pub storage: bool,
    /// Bytes of replica memory in use.
    pub used: u64,
    /// Bytes of replica memory that it may use.
    pub budget: u64,
    /// Replicas that it keeps.
    pub replicas: u32,
    /// The version of its daemon.
    pub version: String,
    /// Whether it keeps the directory.
    #[serde(default)]
    pub directory: bool,
}

impl NodeEntry {
    /// What clients are told.
    #[must_use]
    pub fn info(&self, up: bool) -> NodeInfo {
        NodeInfo {
            node: self.node,
            name: self.name.clone(),
            address: self.address.clone(),
            storage: self.storage,
            up,
            directory: self.directory,
            used: self.used,
            budget: self.budget,
            replicas: self.replicas,
            version: self.version.clone(),
        }
    }
}

/// A segment: what the protocol's record says, and what a daemon must know to serve it. One value, so that a change of the record
/// and the event that explains it are one compare-and-swap.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SegmentEntry {
    /// The segment's life.
    pub segment: SegmentId,
    /// The number of the ownership.
    pub term: Term,
    /// The owner.
    pub owner: OwnerId,
    /// The replicas in sync, rising.
    pub in_sync: Vec<Member>,
    /// Its shape.
    pub shape: Shape,
    /// How it is kept.
    pub keeping: Keeping,
    /// Who may open it.
    pub access: Access,
    /// When it was created, in milliseconds since 1970.
    pub created: u64,
    /// What happened to it lately, oldest first.
    #[serde(default)]
    pub events: Vec<Event>,
}

impl SegmentEntry {
    /// The protocol's record, as it stands at `revision`.
    #[must_use]
    pub fn versioned(&self, revision: Revision) -> Versioned {
        let record =
            Record { segment: self.segment, term: self.term, owner: self.owner, in_sync: self.in_sync.clone() };
        Versioned { version: RecordVersion(revision.0), record }
    }

    /// The same segment with another record.
    #[must_use]
    pub fn with_record(&self, record: Record) -> Self {
        let Record { segment, term, owner, in_sync } = record;
        Self { segment, term, owner, in_sync, ..self.clone() }
    }

    /// Writes down what happened; the oldest events go.
    pub fn note(&mut self, event: Event) {
        self.events.push(event);
        let surplus = self.events.len().saturating_sub(EVENTS);
        self.events.drain(..surplus);
    }
}
