//! A segment: how it was made, who may open it, and what became of it.

use segstore_core::layout::{Geometry, GeometryError};
use segstore_core::record::Versioned;
use serde::{Deserialize, Serialize};

use super::{Holder, OwnerState, Place, ReplicaInfo};

/// The shape of a segment: fixed for its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shape {
    /// Bytes that it may grow to.
    pub capacity: u64,
    /// Bytes of a block.
    pub block_size: u32,
    /// Slots in a replica.
    pub slots: u32,
}

impl Shape {
    /// Where everything stands in a replica of this shape.
    ///
    /// # Errors
    /// Which of its values is out of bounds.
    pub fn geometry(self) -> Result<Geometry, GeometryError> {
        Geometry::new(self.capacity, self.block_size, self.slots)
    }
}

/// What to do when fewer replicas are in sync than the minimum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BelowMinimum {
    /// Acknowledge nothing until enough are in sync again.
    Stop,
    /// Go on with what is left, and say so.
    #[default]
    Continue,
}

/// How a segment is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Keeping {
    /// Replicas asked for, on other nodes than the owner's.
    pub replicas: u32,
    /// The fewest that must be in sync.
    pub minimum: u32,
    /// What to do below that.
    pub below_minimum: BelowMinimum,
    /// Whether the owner's node keeps a copy too, which counts for nothing and makes a restart there instant.
    pub local: bool,
}

/// Who may open a segment, as for a file: read is to load it, write is to own it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Access {
    /// The user that it belongs to.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Permission bits, as in `chmod`; execution means nothing.
    pub mode: u32,
}

/// What the directory knows of a segment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SegmentInfo {
    /// Its name.
    pub name: String,
    /// Who owns it, and which replicas are in sync.
    pub record: Versioned,
    /// Its shape.
    pub shape: Shape,
    /// How it is kept.
    pub keeping: Keeping,
    /// Who may open it.
    pub access: Access,
    /// When it was created, in milliseconds since 1970.
    pub created: u64,
    /// Who holds it now.
    pub holder: Option<Holder>,
    /// Where the replicas in sync are.
    pub places: Vec<Place>,
}

/// Everything that is known of a segment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// What the directory knows.
    pub info: SegmentInfo,
    /// What its owner says, if there is one that answers.
    pub owner: Option<OwnerState>,
    /// What its replicas say.
    pub replicas: Vec<ReplicaInfo>,
}

/// Something that happened to a segment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// Which segment.
    pub segment: String,
    /// The node whose daemon wrote it down.
    pub node_name: String,
    /// What, in one word: `created`, `claimed`, `sealed`, `removed`, `added`, `released`.
    pub what: String,
    /// In which term.
    pub term: u64,
    /// Why, in a sentence.
    pub why: String,
}
