//! What a client asks of its node's daemon, and what that answers.

use segstore_core::id::{Member, NodeId, Stamp};
use segstore_core::layout::Ownership;
use segstore_core::record::{RecordVersion, Swap, Versioned};
use segstore_core::replica::Request as ReplicaRequest;
use serde::{Deserialize, Serialize};

use crate::control::rdma::RdmaDevice;

use super::{
    Bytes, Event, Held, HeldName, Holder, Judged, Keeping, Left, NodeInfo, Place, Placing, SegmentInfo, Shape, Status,
};

/// What a client asks of its node's daemon.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The first message of a connection. Answer: [`Answer::Welcome`].
    Hello {
        /// [`PROTOCOL`](super::PROTOCOL) of the client.
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
        /// Where.
        #[serde(default)]
        placing: Placing,
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
        /// For this process, until it lets go or has ended; otherwise for the session, until one of its processes lets go or all have ended.
        #[serde(default)]
        own: bool,
    },
    /// Hold the name no longer, unless another process of the session wants it. Answer: [`Answer::Done`].
    Release {
        /// The segment.
        name: String,
        /// What was acquired for this process, or for the session.
        #[serde(default)]
        own: bool,
    },
    /// Wait until a name is the session's no longer. Answer: [`Answer::Lost`].
    AwaitLoss {
        /// The name.
        name: String,
        /// Its number, as [`Answer::Acquired`] gave it.
        hold: u64,
    },
    /// Ask who holds a name to let it go, for somebody who stands by on another node. Answered when that one holds it: [`Answer::Moved`].
    Move {
        /// The name.
        name: String,
        /// The name of the other node; none: any where somebody stands by.
        to: Option<String>,
        /// How long to wait, in milliseconds.
        wait: u64,
    },
    /// How long the node's lease is good. Answered without the directory: [`Answer::Lease`].
    Lease,
    /// Change the record by compare-and-swap. Answer: [`Answer::Swapped`] or [`Answer::Conflict`]; where there is no answer, a
    /// fault of kind [`NoAnswer`](super::FaultKind::NoAnswer).
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
    /// Place one more replica, in which nothing stands: its owner reaches none that it could be filled from. Answer: [`Answer::Made`].
    Make {
        /// The segment.
        name: String,
        /// For this owner.
        ownership: Ownership,
        /// Replicas that take part already: none is placed on their nodes.
        members: Vec<Member>,
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
    /// Keep a segment in another number of replicas from here on. Answer: [`Answer::Segment`].
    SetReplicas {
        /// The segment.
        name: String,
        /// How many, on other nodes than the owner's.
        replicas: u32,
    },
    /// Say which nodes get a segment's next replicas, and why. Answer: [`Answer::Plan`].
    Plan {
        /// The segment.
        name: String,
        /// What it would be made as; none: it is there.
        made: Option<(Shape, Keeping, Placing)>,
    },
    /// Begin to drain a node, or end that: it gets no further replica. Answer: [`Answer::Done`].
    Drain {
        /// The node's name.
        node: String,
        /// Whether it begins.
        on: bool,
    },
    /// Say what keeps a node from being switched off. Answer: [`Answer::Left`].
    Left {
        /// The node's name.
        node: String,
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
        /// The daemon's [`PROTOCOL`](super::PROTOCOL).
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
        /// How long the node may be silent before it counts as dead, in milliseconds; 0: an older daemon does not say.
        #[serde(default)]
        node_lease_ms: u64,
        /// The node's RDMA device, as it is configured.
        #[serde(default)]
        rdma: RdmaDevice,
        /// Whether it tells apart which process of a session wants a name; an older daemon does not.
        #[serde(default)]
        knows_processes: bool,
    },
    /// It is done.
    Done,
    /// The session holds the name.
    Acquired {
        /// Since now: it did not before.
        newly: bool,
        /// What tells this hold from every other of the name, before it and after it.
        #[serde(default)]
        hold: u64,
    },
    /// The hold is over.
    Lost {
        /// Who holds the name instead.
        holder: Option<Holder>,
    },
    /// Who holds the name now.
    Moved {
        /// The new holder.
        holder: Holder,
    },
    /// How the node's lease stands.
    Lease {
        /// For how long it is good if it is not confirmed again, in milliseconds from when this is said; 0: it may be over.
        left_ms: u64,
        /// Its whole time, in milliseconds.
        time_ms: u64,
        /// Why it is not kept alive now.
        trouble: Option<String>,
    },
    /// A segment.
    Segment(Box<SegmentInfo>),
    /// The change was made, and gave the record this version.
    Swapped {
        /// The version.
        version: RecordVersion,
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
    /// A replica was made, in which nothing stands.
    Made {
        /// The replica.
        place: Place,
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
    /// Every node: first those that keep a replica, then those that get one, in that order.
    Plan(Vec<Judged>),
    /// To [`Request::Left`].
    Left(Vec<Left>),
}
