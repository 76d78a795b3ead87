//! Who has a segment, and what that one says of it.

use segstore_core::id::{Epoch, Member, NodeId, Stamp};
use segstore_core::layout::Ownership;
use serde::{Deserialize, Serialize};

/// Who holds a segment's name: one session in the cluster at a time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// The node that the session is connected to.
    pub node: NodeId,
    /// That node's name.
    pub node_name: String,
    /// The session's public number.
    pub session: u64,
    /// The process.
    pub pid: i32,
    /// What it says that it is.
    pub program: String,
    /// Milliseconds since 1970.
    pub since: u64,
}

/// A name that somebody holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeldName {
    /// The name.
    pub name: String,
    /// Who holds it.
    pub holder: Holder,
}

/// Who waits for a name that another session holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Standby {
    /// The name of the node on which it does.
    pub node_name: String,
    /// The process.
    pub pid: i32,
    /// What it says that it is.
    pub program: String,
}

/// What an owner says of its segment.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnerState {
    /// The newest acknowledged checkpoint.
    pub acknowledged: Stamp,
    /// The newest that was asked for.
    pub newest: Epoch,
    /// Bytes of application state.
    pub length: u64,
    /// Members in sync.
    pub in_sync: u32,
    /// Of these, on other nodes than the owner's.
    pub elsewhere: u32,
    /// The nodes of those.
    pub elsewhere_on: Vec<NodeId>,
    /// Replicas that it is connected to.
    pub links: Vec<LinkState>,
    /// How many there should be on other nodes.
    #[serde(default)]
    pub wanted: u32,
    /// Milliseconds since the oldest change that is asked for and not acknowledged; zero: none.
    pub unsafe_for: u64,
    /// Bytes of blocks that are changed, as far as was told, and not acknowledged.
    pub unsafe_bytes: u64,
    /// What the checkpoint under way waits for.
    pub waiting_for: Option<String>,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// Slots that readers hold.
    pub holds: u32,
    /// How long checkpoints took.
    pub checkpoint_time: Histogram,
    /// How long loads took.
    pub load_time: Histogram,
    /// Bytes pushed to replicas so far.
    pub pushed_bytes: u64,
}

/// How an owner reaches one replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LinkState {
    /// The replica.
    pub member: Member,
    /// The transport's provider.
    pub provider: String,
}

/// Counts of durations by powers of two.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Histogram {
    /// Entry *i* counts durations below 2^i microseconds that the entries before it do not count; the last, all that are longer.
    pub counts: Vec<u64>,
    /// Their sum in nanoseconds.
    pub sum: u64,
}

/// A slot that stands still for a reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Held {
    /// Who holds it.
    pub ownership: Ownership,
    /// What releases it.
    pub number: u64,
    /// The replica.
    pub member: Member,
    /// The slot.
    pub slot: u32,
    /// What it holds.
    pub image: Stamp,
}
