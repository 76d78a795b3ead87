//! This node: what its daemon knows and serves. Other daemons ask it for replicas and owners (`calls`), clients for everything
//! ([`crate::sessions`]).

mod calls;
mod orphans;
pub mod placement;
mod segments;

use std::sync::Arc;
use std::time::Duration;

use segstore::control::message::{Fault, FaultKind};
use segstore_core::id::NodeId;
use tokio::sync::watch;

use crate::cluster::View;
use crate::directory::{Directory, DirectoryError, LeaseId};
use crate::peers::Peers;
use crate::peers::message::{Call, Reply, Serve};
use crate::replicas::Replicas;
use crate::sessions::Sessions;

pub use calls::Calls;
pub(crate) use calls::geometry;
pub use orphans::forget_orphans;
pub(crate) use segments::{encode, parse};

/// How long another daemon may take for what takes no time.
pub(crate) const SHORT: Duration = Duration::from_secs(2);
/// How long it may take to shut a writer out, or to make a replica.
pub(crate) const LONG: Duration = Duration::from_secs(20);
/// How long it may take to fill a replica.
pub(crate) const REPAIR: Duration = Duration::from_secs(24 * 3600);

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
    /// What clients and peers use, the best first.
    pub providers: Vec<String>,
    /// The cluster's directory.
    pub directory: Arc<dyn Directory>,
    /// The other nodes.
    pub view: View,
    /// The replicas kept here.
    pub replicas: Arc<Replicas>,
    /// The other daemons.
    pub peers: Peers,
    /// The clients of this node.
    pub sessions: Sessions,
    /// The node's lease.
    pub lease: watch::Receiver<Option<LeaseId>>,
}

impl Node {
    /// Asks the daemon of `node`.
    pub(crate) async fn call(self: &Arc<Self>, node: NodeId, call: Call, limit: Duration) -> Result<Reply, Fault> {
        let local: Arc<dyn Serve> = Arc::new(Calls::new(self.clone()));
        if node == self.id {
            return local.serve(node, call).await;
        }
        let address = self.view.get(node)?.address;
        self.peers.call((node, &address), &local, call, limit).await
    }
}

/// What the directory's trouble means to who asked.
pub(crate) fn directory_fault(error: &DirectoryError) -> Fault {
    let kind = match error {
        DirectoryError::NoAnswer(_) => FaultKind::NoAnswer,
        DirectoryError::Refused(_) | DirectoryError::LeaseOver(_) | DirectoryError::Forgotten(_) => {
            FaultKind::Unreachable
        }
    };
    Fault::new(kind, error.to_string())
}

pub(crate) fn unexpected(reply: &Reply) -> Fault {
    Fault::new(FaultKind::Internal, format!("another daemon answered something else: {reply:?}"))
}
