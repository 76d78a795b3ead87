//! How a replica is reached, and which ways have proved bad.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use segstore_core::id::NodeId;

/// How long a way over which data did not get through comes last.
const DISTRUST: Duration = Duration::from_secs(60);

/// How a replica is reached, the best way first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Way {
    /// In this machine's shared memory, in a replica of the writer's own node: its memory outlives its daemon, and while that is
    /// away nobody can take the segment over by it. So the writer goes on; it must connect again when the daemon is back.
    OwnNode,
    /// In this machine's shared memory.
    Shm,
    /// By RDMA.
    Verbs,
    /// By TCP.
    Tcp,
}

impl Way {
    /// What the transport calls it, and daemons do.
    pub(crate) fn provider(self) -> &'static str {
        match self {
            Self::OwnNode | Self::Shm => "shm",
            Self::Verbs => "verbs",
            Self::Tcp => "tcp",
        }
    }
}

/// Nodes to which data did not get through by RDMA. Connecting proves little: a fabric may lose what is large, or under load.
#[derive(Default)]
pub(crate) struct Distrusted(Mutex<HashMap<NodeId, Instant>>);

impl Distrusted {
    /// Data did not get through to a node. True: this way comes last from here on.
    pub(crate) fn add(&self, node: NodeId, way: Way) -> bool {
        let comes_last = way == Way::Verbs;
        if comes_last {
            self.nodes().insert(node, Instant::now());
        }
        comes_last
    }

    /// It is worth another attempt.
    pub(crate) fn forgive(&self, node: NodeId) {
        self.nodes().remove(&node);
    }

    /// Tells later whether data has come not to get through to a node since now: then another attempt may take another way.
    pub(crate) fn news_of(&self, node: NodeId) -> impl Fn() -> bool {
        let was_known = self.has(node, Way::Verbs);
        move || !was_known && self.has(node, Way::Verbs)
    }

    /// Whether this way comes last.
    pub(crate) fn has(&self, node: NodeId, way: Way) -> bool {
        way == Way::Verbs && self.nodes().get(&node).is_some_and(|since| since.elapsed() < DISTRUST)
    }

    fn nodes(&self) -> std::sync::MutexGuard<'_, HashMap<NodeId, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
