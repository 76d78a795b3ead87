//! This node: what its daemon knows and serves. Other daemons ask it for replicas and owners (`calls`), clients for everything
//! ([`crate::sessions`]).

mod calls;
mod care;
mod drain;
mod further;
mod known;
mod orphans;
pub mod placement;
mod segments;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use segstore::control::message::{Fault, FaultKind, Holder, Place, SegmentInfo};
use segstore::control::rdma::RdmaDevice;
use segstore_core::id::{NodeId, Term};
use tokio::sync::{Notify, watch};

use crate::cluster::{NodeEntry, SegmentEntry, View};
use crate::directory::{Directory, DirectoryError, LeaseId, Revision};
use crate::lease::Standing;
use crate::peers::Peers;
use crate::peers::message::{Call, KeptReplica, Reply, Serve};
use crate::replicas::Replicas;
use crate::sessions::Sessions;

pub use calls::Calls;
pub(crate) use calls::geometry;
pub use care::{Care, tend_unowned};
pub use drain::Draining;
pub(crate) use further::{Added, Further, Origin};
pub use known::forget_removed;
pub use orphans::forget_orphans;
pub(crate) use segments::{Came, Change, encode, parse};

/// How long another daemon may take for what takes no time.
pub(crate) const SHORT: Duration = Duration::from_secs(2);
/// How long it may take to shut a writer out, or to make a replica.
pub(crate) const LONG: Duration = Duration::from_secs(20);
/// How long it may take to fill a replica.
pub(crate) const REPAIR: Duration = Duration::from_secs(24 * 3600);

/// What became of a replica whose node is up and does not keep it.
const GONE: &str = "its node is up, its memory is new: the replica is gone";

/// This node.
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// The machine that it is on.
    pub host: String,
    /// Whether it only keeps replicas.
    pub storage: bool,
    /// Whether the directory is kept here.
    pub keeps_directory: bool,
    /// Whether everything is being moved off it.
    pub draining: Draining,
    /// What it does for segments that nobody has open.
    pub care: Care,
    /// Its RDMA device, as it is configured.
    pub rdma: RdmaDevice,
    /// The cluster's directory.
    pub directory: Arc<dyn Directory>,
    /// The other nodes.
    pub view: View,
    /// The replicas kept here.
    pub replicas: Arc<Replicas>,
    /// Whether what fills a replica is read behind all else that its source sends.
    pub repairs_yield: AtomicBool,
    /// The other daemons.
    pub peers: Peers,
    /// The clients of this node.
    pub sessions: Sessions,
    /// How long the node may be silent before it counts as dead.
    pub lease_time: Duration,
    /// The node's lease.
    pub lease: watch::Receiver<Option<LeaseId>>,
    /// For how long it is good.
    pub standing: watch::Receiver<Standing>,
    /// Rung when what the node tells of itself is not true any more.
    pub changed: Arc<Notify>,
}

impl Node {
    /// Asks the daemon of `node`.
    pub(crate) async fn call(self: &Arc<Self>, node: NodeId, call: Call, limit: Duration) -> Result<Reply, Fault> {
        if node == self.id {
            return Calls::new(self.clone()).serve(node, call).await;
        }
        let address = self.view.get(node)?.address;
        self.peers.call(&address, call, limit).await
    }

    /// The node of that name, which is up.
    pub(crate) fn named(&self, name: &str) -> Result<NodeId, Fault> {
        let all = self.view.all();
        let found = all.iter().find(|(entry, up)| entry.name == name && *up);
        found.map(|(entry, _)| entry.node).ok_or_else(|| {
            if all.iter().any(|(entry, _)| entry.name == name) {
                return Fault::new(FaultKind::Unreachable, format!("node {name} is down"));
            }
            let mut names: Vec<_> = all.iter().map(|(entry, _)| entry.name.as_str()).collect();
            names.sort_unstable();
            Fault::new(FaultKind::NotFound, format!("there is no node {name}; there are: {}", names.join(", ")))
        })
    }

    /// What is wrong while the node has no lease.
    pub(crate) fn no_lease(&self) -> String {
        let why = self.standing.borrow().trouble.clone().unwrap_or_else(|| "its daemon's log says why".to_owned());
        format!("node {} is not in the cluster now, and tries to join again: {why}", self.name)
    }

    /// Asks every node that is up; those that do not answer in time are left out.
    pub(crate) async fn call_all(self: &Arc<Self>, call: &Call, limit: Duration) -> Vec<(NodeEntry, Reply)> {
        let mut calls = tokio::task::JoinSet::new();
        for entry in self.view.up() {
            let (node, call) = (self.clone(), call.clone());
            calls.spawn(async move { node.call(entry.node, call, limit).await.map(|reply| (entry, reply)) });
        }
        let mut answers = Vec::new();
        while let Some(answer) = calls.join_next().await {
            answers.extend(answer.ok().and_then(Result::ok));
        }
        answers
    }

    /// Asks every node which replicas it keeps, and says of these segments' places what is wrong: where a node is up with another memory,
    /// the replica is gone; and so on.
    pub(crate) async fn look_at(self: &Arc<Self>, segments: &mut [SegmentInfo]) {
        let kept = |(entry, reply): (NodeEntry, Reply)| match reply {
            Reply::Kept(kept) => Some((entry.node, kept)),
            _ => None,
        };
        let answers = self.call_all(&Call::Kept, SHORT).await;
        let kept: HashMap<_, _> = answers.into_iter().filter_map(kept).collect();
        for segment in segments {
            let mut ahead = Vec::new();
            for place in segment.places.iter_mut().filter(|place| place.up) {
                let is_it = |kept: &&KeptReplica| kept.incarnation == place.member.incarnation;
                let found = kept.get(&place.member.node).map(|kept| kept.iter().find(is_it));
                place.problem = match found {
                    Some(Some(kept)) => kept.problem.clone(),
                    Some(None) => Some(GONE.to_owned()),
                    None => Some("its node does not answer".to_owned()),
                };
                let term = found.flatten().map_or(Term(0), |kept| kept.term);
                if term > segment.record.record.term {
                    ahead.push((place, term));
                }
            }
            // Perhaps the segment was only taken over meanwhile: the directory hears of that before any replica does.
            let now = if ahead.is_empty() { None } else { self.segment(&segment.name).await.ok() };
            for (place, remembered) in ahead {
                if let Some((SegmentEntry { term, .. }, _)) = now.as_ref().filter(|(entry, _)| entry.term < remembered)
                {
                    place.problem = Some(format!(
                        "the directory went back: its record says term {term}, the replica remembers term {remembered}"
                    ));
                }
            }
        }
    }

    /// One segment, with what its replicas' nodes say of them.
    pub(crate) async fn describe_as_it_is(
        self: &Arc<Self>,
        name: &str,
        (entry, revision): (&SegmentEntry, Revision),
        holder: Option<Holder>,
    ) -> SegmentInfo {
        let mut info = self.describe(name, entry, revision, holder);
        self.look_at(std::slice::from_mut(&mut info)).await;
        info
    }

    /// The nodes that are up and answer, with the room that they have now: what the directory tells of them is a moment old.
    pub(crate) async fn rooms(self: &Arc<Self>) -> Vec<NodeEntry> {
        let answers = self.call_all(&Call::Usage, SHORT).await;
        let room = |(entry, reply)| match reply {
            Reply::Usage { used, budget } => Some(NodeEntry { used, budget, ..entry }),
            _ => None,
        };
        answers.into_iter().filter_map(room).collect()
    }
}

/// Whether the replica is gone, since its node's memory is.
pub(crate) fn has_new_memory(place: &Place) -> bool {
    place.problem.as_deref() == Some(GONE)
}

/// What the directory's trouble means to who asked.
pub(crate) fn directory_fault(error: &DirectoryError) -> Fault {
    let kind = match error {
        DirectoryError::NoAnswer(_) => FaultKind::NoAnswer,
        DirectoryError::Full(_) => FaultKind::NoRoom,
        DirectoryError::Refused(_)
        | DirectoryError::OutOfReach(_)
        | DirectoryError::LeaseOver(_)
        | DirectoryError::Forgotten(_) => FaultKind::Unreachable,
    };
    Fault::new(kind, error.to_string())
}

pub(crate) fn unexpected(reply: &Reply) -> Fault {
    Fault::new(FaultKind::Internal, format!("another daemon answered something else: {reply:?}"))
}
