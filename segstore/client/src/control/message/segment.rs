//! A segment: how it was made, who may open it, and what became of it.

use segstore_core::id::NodeId;
use segstore_core::layout::{Geometry, GeometryError};
use segstore_core::owner::{self, Policy};
use segstore_core::record::Versioned;
use serde::{Deserialize, Serialize};

use super::{Fault, Holder, OwnerState, Place, Placing, ReplicaInfo, Standby};

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

impl Keeping {
    /// What acknowledgements stand for.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let below = match self.below_minimum {
            BelowMinimum::Stop => owner::BelowMinimum::Stop,
            BelowMinimum::Continue => owner::BelowMinimum::Continue,
        };
        Policy { minimum: self.minimum as usize, below }
    }
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
    /// Where its replicas are to be.
    #[serde(default)]
    pub placing: Placing,
    /// Who may open it.
    pub access: Access,
    /// When it was created, in milliseconds since 1970.
    pub created: u64,
    /// Who holds it now.
    pub holder: Option<Holder>,
    /// Where the replicas in sync are.
    pub places: Vec<Place>,
    /// Nodes that are to keep nothing of it: they are being drained, or gone for good.
    #[serde(default)]
    pub unwanted: Vec<NodeId>,
    /// Which of its copies one failure would take together, for people: none that can be told apart.
    #[serde(default)]
    pub crowded: Option<String>,
}

impl SegmentInfo {
    /// The replicas in sync that are there and survive the owner's node.
    pub fn live_elsewhere(&self) -> impl Iterator<Item = &Place> {
        let owner = self.holder.as_ref().map(|holder| holder.node);
        self.places.iter().filter(move |place| place.is_live() && Some(place.member.node) != owner)
    }

    /// Whether no replica in sync is there.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        !self.places.iter().any(Place::is_live)
    }

    /// What a person should do something about, in a sentence.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let (live, wanted) = (self.live_elsewhere().count(), self.keeping.replicas as usize);
        let why = |place: &Place| {
            let problem = place.problem.as_deref().or((!place.up).then_some("its node is down"))?;
            Some(format!("{}: {problem}", place.node_name))
        };
        let why = self.places.iter().filter_map(why).collect::<Vec<_>>().join("; ");
        let why = if why.is_empty() { why } else { format!(" ({why})") };
        if self.is_lost() {
            let only = if self.holder.is_some() { ", only its owner has it" } else { "" };
            return Some(format!("no replica of it is there{only}{why}"));
        }
        (live < wanted).then(|| format!("{live} of {wanted} replicas on other nodes are in sync{why}"))
    }
}

/// Everything that is known of a segment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// What the directory knows.
    pub info: SegmentInfo,
    /// What its owner says, if there is one that answers.
    pub owner: Option<OwnerState>,
    /// What came instead, where somebody holds the name: [`FaultKind::NotHeld`](super::FaultKind::NotHeld) of who has not opened it.
    #[serde(default)]
    pub silence: Option<Fault>,
    /// Who waits to own it.
    #[serde(default)]
    pub standby: Vec<Standby>,
    /// Where nobody has it open, and replicas are missed: what a node does about that, for people.
    #[serde(default)]
    pub care: Option<String>,
    /// What its replicas say.
    pub replicas: Vec<ReplicaInfo>,
}

impl Status {
    /// [`SegmentInfo::trouble`], unless the owner says as much among its warnings. One that rests does not notice who is gone.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let is_said = self.owner.as_ref().is_some_and(|owner| owner.elsewhere < owner.wanted);
        self.info.trouble().filter(|_| self.info.is_lost() || !is_said)
    }
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
    /// What, in one word: `created`, `claimed` (nobody held it any more), `taken_over` (from a living holder, by force),
    /// `moved` (handed over by the holder before), `removed`, `added`, `changed` (how it is to be kept).
    pub what: String,
    /// In which term.
    pub term: u64,
    /// Why, in a sentence.
    pub why: String,
}
