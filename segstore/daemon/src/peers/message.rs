//! The messages between daemons. JSON, as between client and daemon: a newer one may add fields, each with a default.

use segstore::control::message::{Bytes, Fault, Held, OwnerState, Place, ReplicaInfo, Shape, Standby};
use segstore_core::id::{Incarnation, Member, NodeId, SegmentId, Stamp, Term};
use segstore_core::layout::Ownership;
use segstore_core::replica::Request as ReplicaRequest;
use segstore_core::slot::Damage;
use serde::{Deserialize, Serialize};

/// What one daemon asks of another, or of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Make an empty replica. Answer: [`Reply::Created`].
    Create {
        /// For which segment.
        segment: SegmentId,
        /// Its name, for people.
        name: String,
        /// Its shape.
        shape: Shape,
        /// The term that it remembers from the start.
        remembered: Ownership,
        /// What the node keeps of the segment for nothing: it is forgotten first.
        #[serde(default)]
        replaced: Vec<Member>,
    },
    /// Fence a replica. Answer: [`Reply::Heads`].
    Fence {
        /// Who asks whom.
        request: ReplicaRequest,
    },
    /// Open a data endpoint. Answer: [`Reply::Connected`].
    Connect {
        /// The segment's life.
        segment: SegmentId,
        /// The replica.
        member: Member,
        /// As its writer; none: to read.
        writer: Option<ReplicaRequest>,
        /// The transport's provider.
        provider: String,
        /// What its `dial` gave.
        hello: Bytes,
    },
    /// The heads of the slots. Answer: [`Reply::Heads`].
    Heads {
        /// The segment's life.
        segment: SegmentId,
        /// The replica.
        member: Member,
    },
    /// Bring every slot to the newest whole image. Answer: [`Reply::Done`].
    Level {
        /// Who asks whom.
        request: ReplicaRequest,
    },
    /// Look whether the image in a slot is whole, where it stands. Answer: [`Reply::Verified`].
    Verify {
        /// The segment's life.
        segment: SegmentId,
        /// The replica.
        member: Member,
        /// The slot.
        slot: u32,
        /// The image that it holds.
        image: Stamp,
    },
    /// Say what the node does for a segment that nobody has open. Answer: [`Reply::Care`].
    Care {
        /// The segment.
        name: String,
    },
    /// Make a replica and fill it from another. Answered when it is filled: [`Reply::Repaired`].
    Repair {
        /// For which segment.
        segment: SegmentId,
        /// Its name, for people.
        name: String,
        /// Its shape.
        shape: Shape,
        /// For this owner.
        ownership: Ownership,
        /// In place of these, which take part in nothing.
        #[serde(default)]
        replaced: Vec<Member>,
        /// The replica to copy from, and how to reach it.
        source: Place,
        /// Its slot.
        slot: u32,
        /// The image that it holds.
        base: Stamp,
    },
    /// What the node knows of its replica of a segment. Answer: [`Reply::Replicas`].
    Replicas {
        /// The segment's life.
        segment: SegmentId,
    },
    /// Name a node no longer that is down. Answer: [`Reply::Done`].
    ForgetNode {
        /// Which.
        node: NodeId,
    },
    /// Which replicas the node keeps, and how they are. Answer: [`Reply::Kept`].
    Kept,
    /// How much memory replicas take here, and may take. Answer: [`Reply::Usage`].
    Usage,
    /// Forget every replica of a segment that was removed. Answer: [`Reply::Done`], when the node has none.
    Forget {
        /// The segment's life.
        segment: SegmentId,
        /// Only replicas that nobody has ever owned: of a segment that was half made.
        #[serde(default)]
        unowned_only: bool,
    },
    /// Have the client that holds a segment in this session hold a slot. Answer: [`Reply::Held`].
    Hold {
        /// The segment.
        name: String,
        /// The session's public number.
        session: u64,
        /// For how long, in milliseconds.
        time: u64,
        /// Not in these replicas.
        #[serde(default)]
        without: Vec<Member>,
    },
    /// End that. Answer: [`Reply::Done`].
    EndHold {
        /// The segment.
        name: String,
        /// The session's public number.
        session: u64,
        /// The hold.
        number: u64,
    },
    /// Tell the client that holds a segment that it is to be kept another way. Answer: [`Reply::Done`], before the client answers.
    Changed {
        /// The segment.
        name: String,
        /// The session's public number.
        session: u64,
    },
    /// Say who stands by here for a name. Answer: [`Reply::Standby`].
    Standby {
        /// The name.
        name: String,
    },
    /// Say whether a session here holds a name, or is about to hold it again, and has the segment open. Answer: [`Reply::Holds`].
    Holds {
        /// The name.
        name: String,
        /// The session's public number.
        session: u64,
    },
    /// Ask the client that holds a name in this session to let it go, for somebody on another node. Answer: [`Reply::Asked`].
    Move {
        /// The name.
        name: String,
        /// The session's public number.
        session: u64,
        /// The other node.
        to: NodeId,
        /// Its name.
        to_name: String,
        /// For how long that is asked for, in milliseconds.
        time: u64,
    },
    /// Take a name whose holder lets it go, for whoever stands by for it here. Answer: [`Reply::Done`], when that one holds it.
    Take {
        /// The name.
        name: String,
        /// The revision of the entry that says who holds it.
        revision: u64,
        /// Who hands it over, for people.
        from: String,
    },
    /// Say what keeps the node from being switched off. Answer: [`Reply::Busy`].
    Busy,
    /// Be drained from here on, or not any more. Answer: [`Reply::Done`].
    Drain {
        /// Whether it begins.
        on: bool,
    },
    /// Ask the client that holds a segment how it is. Answer: [`Reply::State`].
    State {
        /// The segment.
        name: String,
        /// The session's public number.
        session: u64,
    },
}

/// A replica that a node keeps.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeptReplica {
    /// Which.
    pub incarnation: Incarnation,
    /// The highest term that it remembers.
    pub term: Term,
    /// Why it is of no use any more.
    pub problem: Option<String>,
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is done.
    Done,
    /// The new replica.
    Created {
        /// The replica.
        member: Member,
    },
    /// The first bytes of every slot.
    Heads(Vec<Bytes>),
    /// What the provider's `complete` needs.
    Connected {
        /// The reply.
        reply: Bytes,
    },
    /// The replica is filled.
    Repaired {
        /// The replica.
        member: Member,
        /// Every slot holds this image or what follows it.
        base: Stamp,
        /// The slot that is exactly that image, closed.
        closed: Option<u32>,
    },
    /// An image was looked at.
    Verified {
        /// What is wrong with it.
        damage: Option<Damage>,
    },
    /// What the node does for the segment, or why that is nothing, for people; none: it is not this node's to look after.
    Care(Option<String>),
    /// What the node keeps of the segment.
    Replicas(Vec<ReplicaInfo>),
    /// A client was asked.
    Asked {
        /// Whether it has answered.
        is_heard: bool,
    },
    /// Whether it does.
    Holds(bool),
    /// Who stands by here, the first to come first.
    Standby(Vec<Standby>),
    /// Every replica that the node keeps.
    Kept(Vec<KeptReplica>),
    /// Memory for replicas.
    Usage {
        /// Bytes in use.
        used: u64,
        /// Bytes that may be used.
        budget: u64,
    },
    /// Segments of which replicas are here.
    Busy {
        /// Every one.
        kept: Vec<SegmentId>,
        /// Those that are being made, filled or written.
        written: Vec<SegmentId>,
    },
    /// A slot is held.
    Held(Held),
    /// How a segment is.
    State(Box<OwnerState>),
}

/// Who serves calls: this node.
#[async_trait::async_trait]
pub trait Serve: Send + Sync {
    /// Serves one call of `from`.
    async fn serve(&self, from: NodeId, call: Call) -> Result<Reply, Fault>;
}
