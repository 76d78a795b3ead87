//! What client and daemon say to each other.
//!
//! A newer side may add fields and variants; an older one ignores fields that it does not know, and answers a request that it does
//! not know with [`FaultKind::Unsupported`]. So every added field needs a default.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use segstore_core::id::{Epoch, Member, NodeId, Stamp};
use segstore_core::layout::{Geometry, GeometryError, Ownership};
use segstore_core::record::{Swap, Versioned};
use segstore_core::replica::{Refused, Request as ReplicaRequest};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The version of this protocol. A daemon serves this one and the one before.
pub const PROTOCOL: u32 = 1;

/// Bytes, as base64 in messages.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(D::Error::custom)
    }
}

// ---- segments, nodes, owners ----

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

/// Counts of durations by powers of two.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Histogram {
    /// Entry *i* counts durations below 2^i microseconds that the entries before it do not count; the last, all that are longer.
    pub counts: Vec<u64>,
    /// Their sum in nanoseconds.
    pub sum: u64,
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
    /// The newest whole image in it, if its node answered.
    pub image: Option<Stamp>,
    /// While it is filled: blocks copied, blocks to copy.
    pub repair: Option<(u32, u32)>,
    /// What is wrong with it.
    pub problem: Option<String>,
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
    /// Whether the directory is kept here.
    pub directory: bool,
    /// Bytes of replica memory in use.
    pub used: u64,
    /// Bytes of replica memory that it may use.
    pub budget: u64,
    /// Replicas that it keeps.
    pub replicas: u32,
    /// The version of its daemon.
    pub version: String,
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
    /// What, in one word: `created`, `claimed` (nobody held it), `taken_over` (from a living holder, by force), `removed`, `added`.
    pub what: String,
    /// In which term.
    pub term: u64,
    /// Why, in a sentence.
    pub why: String,
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

// ---- client to daemon ----

/// What a client asks of its node's daemon.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The first message of a connection. Answer: [`Answer::Welcome`].
    Hello {
        /// [`PROTOCOL`] of the client.
        protocol: u32,
        /// The session to join, as [`Answer::Welcome`] gave it; none: a new one.
        session: Option<String>,
        /// What the client is, for people.
        program: String,
    },
    /// Make a segment. Answer: [`Answer::Segment`].
    Create {
        /// Its name.
        name: String,
        /// Its shape.
        shape: Shape,
        /// How it is kept.
        keeping: Keeping,
        /// Permission bits.
        mode: u32,
        /// The user that it is to belong to; none: the client's.
        #[serde(default)]
        uid: Option<u32>,
        /// The group; none: the client's.
        #[serde(default)]
        gid: Option<u32>,
    },
    /// What the directory knows. Answer: [`Answer::Segment`].
    Lookup {
        /// The segment.
        name: String,
    },
    /// Hold the name, so that no other session in the cluster owns the segment. A name that does not exist yet can be held too.
    /// Answer: [`Answer::Acquired`].
    Acquire {
        /// The segment.
        name: String,
        /// How long to wait for the present holder to go, in milliseconds; none: for ever; zero: not at all.
        wait: Option<u64>,
        /// Take the name from a holder that is not known to be gone.
        force: bool,
    },
    /// Hold the name no longer. Answer: [`Answer::Done`].
    Release {
        /// The segment.
        name: String,
    },
    /// Change the record by compare-and-swap. Answer: [`Answer::Swapped`] or [`Answer::Conflict`]; where there is no answer, a
    /// fault of kind [`FaultKind::NoAnswer`].
    Swap {
        /// The segment.
        name: String,
        /// The change.
        swap: Swap,
        /// Why, for the events.
        why: String,
        /// Why these replicas leave the in-sync set, each for itself.
        #[serde(default)]
        causes: Vec<(Member, String)>,
    },
    /// Fence a replica. Answer: [`Answer::Heads`].
    Fence {
        /// The segment.
        name: String,
        /// The replica.
        member: Member,
        /// Who asks.
        request: ReplicaRequest,
    },
    /// Open a data endpoint to a replica. Answer: [`Answer::Connected`].
    Connect {
        /// The segment.
        name: String,
        /// The replica.
        member: Member,
        /// As its writer; none: to read.
        writer: Option<ReplicaRequest>,
        /// The transport's provider.
        provider: String,
        /// What the provider's `dial` gave.
        hello: Bytes,
    },
    /// The heads of a replica's slots, as they are. Answer: [`Answer::Heads`].
    Heads {
        /// The segment.
        name: String,
        /// The replica.
        member: Member,
    },
    /// Bring every slot of a replica to its newest whole image, in that node's own memory: asked by an owner whose newest image is
    /// acknowledged there, and who writes no more. Answer: [`Answer::Done`].
    Level {
        /// The segment.
        name: String,
        /// The replica.
        member: Member,
        /// Who asks.
        request: ReplicaRequest,
    },
    /// The copy on this node. Answer: [`Answer::Local`].
    Local {
        /// The segment.
        name: String,
        /// For whom it is made if there is none.
        make_for: Option<Ownership>,
    },
    /// Place one more replica and fill it from this slot. Answered when it is filled: [`Answer::Repaired`].
    Repair {
        /// The segment.
        name: String,
        /// For this owner.
        ownership: Ownership,
        /// Replicas that take part already: none is placed on their nodes.
        members: Vec<Member>,
        /// The replica to copy from.
        source: Member,
        /// Its slot.
        slot: u32,
        /// The image that it holds.
        base: Stamp,
    },
    /// Have a living owner hold its newest acknowledged checkpoint. Answer: [`Answer::Held`].
    Hold {
        /// The segment.
        name: String,
        /// For how long, in milliseconds.
        time: u64,
        /// Not in these replicas: the reader cannot reach them.
        #[serde(default)]
        without: Vec<Member>,
    },
    /// End such a hold. Answer: [`Answer::Done`].
    EndHold {
        /// The segment.
        name: String,
        /// Its number.
        number: u64,
    },
    /// Answer: [`Answer::Status`].
    Status {
        /// The segment.
        name: String,
    },
    /// Answer: [`Answer::Segments`].
    Segments,
    /// Answer: [`Answer::Holds`].
    Holds,
    /// Answer: [`Answer::Nodes`].
    Nodes,
    /// Name a node that is down, and keeps nothing that counts, no longer. Answer: [`Answer::Done`].
    ForgetNode {
        /// The node's name.
        name: String,
    },
    /// Answer: [`Answer::Events`].
    Events {
        /// Of one segment; none: of all.
        name: Option<String>,
    },
    /// Unlink a segment. Answer: [`Answer::Done`].
    Remove {
        /// The segment.
        name: String,
        /// Even if somebody holds it: that owner is fenced.
        force: bool,
    },
}

/// What the daemon answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The connection stands.
    Welcome {
        /// The daemon's [`PROTOCOL`].
        protocol: u32,
        /// The node.
        node: NodeId,
        /// Its name.
        node_name: String,
        /// What tells machines apart.
        host: String,
        /// What joins this session: a secret.
        session: String,
        /// The transport's providers that clients should use, by name, the best first.
        providers: Vec<String>,
    },
    /// It is done.
    Done,
    /// The session holds the name.
    Acquired {
        /// Since now: it did not before.
        newly: bool,
    },
    /// A segment.
    Segment(Box<SegmentInfo>),
    /// The change was made, and gave the record this version.
    Swapped {
        /// The version.
        version: segstore_core::record::RecordVersion,
    },
    /// The change was not made: the record is this.
    Conflict {
        /// The record.
        current: Versioned,
    },
    /// The first bytes of every slot.
    Heads(Vec<Bytes>),
    /// What the provider's `complete` needs.
    Connected {
        /// The reply.
        reply: Bytes,
    },
    /// The copy on this node.
    Local {
        /// The replica.
        member: Member,
        /// The first bytes of every slot.
        heads: Vec<Bytes>,
    },
    /// A replica was filled.
    Repaired {
        /// The replica.
        place: Place,
        /// Every slot holds this image or what follows it.
        base: Stamp,
        /// The slot that is exactly that image, closed.
        closed: Option<u32>,
    },
    /// A slot is held.
    Held(Held),
    /// All that is known of a segment.
    Status(Box<Status>),
    /// Segments by name.
    Segments(Vec<SegmentInfo>),
    /// Names that are held, with a segment or without.
    Holds(Vec<HeldName>),
    /// Nodes by name.
    Nodes(Vec<NodeInfo>),
    /// Events, oldest first.
    Events(Vec<Event>),
}

// ---- daemon to client ----

/// What a daemon asks of a client that owns a segment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Demand {
    /// Hold the newest acknowledged checkpoint. Answer: [`Report::Held`].
    Hold {
        /// The segment.
        name: String,
        /// For how long, in milliseconds.
        time: u64,
        /// Not in these replicas.
        #[serde(default)]
        without: Vec<Member>,
    },
    /// End a hold. Answer: [`Report::Done`].
    EndHold {
        /// The segment.
        name: String,
        /// Its number.
        number: u64,
    },
    /// Say how the segment is. Answer: [`Report::State`].
    State {
        /// The segment.
        name: String,
    },
}

/// What the client answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// It is done.
    Done,
    /// A slot is held.
    Held(Held),
    /// How the segment is.
    State(Box<OwnerState>),
}

// ---- faults ----

/// Why something was not done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What a program can act on.
    pub kind: FaultKind,
    /// What a person needs to know: what was wrong, with what value, and what to do.
    pub message: String,
}

/// What a program can act on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// There is no such segment, replica or hold.
    NotFound,
    /// The name is taken.
    Exists,
    /// Another session holds the segment.
    Held(Box<Holder>),
    /// The session does not hold the segment, or not any more.
    NotHeld,
    /// The owner was told by a later one, or the replica has seen a later term.
    Refused(Refused),
    /// No node has room, or too few have.
    NoRoom,
    /// A node, the directory or a client cannot be reached; nothing was done.
    Unreachable,
    /// There was no answer: it may have been done, or may still be.
    NoAnswer,
    /// The user may not.
    Denied,
    /// A value is wrong.
    Invalid,
    /// The other side is too old for this request.
    Unsupported,
    /// Something that should not happen.
    Internal,
}

impl Fault {
    /// A fault of that kind.
    #[must_use]
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}
