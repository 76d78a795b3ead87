//! Moving everything off a node: it gets nothing more, and owners let go of what it has as soon as another node has it.
//!
//! That a node is being drained it knows itself, across restarts, and tells in its entry: so every node that places a replica knows.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use segstore::control::message::{Fault, FaultKind, Left};
use segstore_core::id::NodeId;

use super::{Node, SHORT};
use crate::peers::message::Call;

/// Whether this node is being drained. It stands in a file.
#[derive(Debug)]
pub struct Draining {
    file: PathBuf,
    is_on: AtomicBool,
}

impl Draining {
    /// As the file says: that it is there.
    #[must_use]
    pub fn read(file: PathBuf) -> Self {
        let is_on = AtomicBool::new(file.exists());
        Self { file, is_on }
    }

    /// Whether it is.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// From here on, or not any more.
    ///
    /// # Errors
    /// The file cannot be made or removed.
    pub fn set(&self, on: bool) -> std::io::Result<()> {
        if on {
            std::fs::write(&self.file, "everything is being moved off this node: segctl drain\n")?;
        } else if let Err(error) = std::fs::remove_file(&self.file)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error);
        }
        self.is_on.store(on, Ordering::Release);
        Ok(())
    }
}

impl Node {
    /// Begins to drain a node that is up, or ends that.
    pub(crate) async fn drain(self: &Arc<Self>, name: &str, on: bool) -> Result<(), Fault> {
        let node = self.named(name)?;
        self.call(node, Call::Drain { on }, SHORT).await.map(drop)
    }

    /// Tells every owner which nodes are being drained; gives what is still on the one of that name.
    pub(crate) async fn vacate(self: &Arc<Self>, name: &str) -> Result<Vec<Left>, Fault> {
        let drained = self.named(name)?;
        let nodes: Vec<_> =
            self.view.all().iter().filter(|(entry, _)| entry.draining).map(|(entry, _)| entry.node).collect();
        let mut left = Vec::new();
        for (segment, entry, _) in self.segments().await? {
            let holder = self.holder(&segment).await?.map(|(holder, _)| holder);
            if let Some(holder) = &holder {
                let call = Call::Avoid { name: segment.clone(), session: holder.session, nodes: nodes.clone() };
                // One that does not answer now is asked again: what it has there is still left.
                let _ = self.call(holder.node, call, SHORT).await;
            }
            let has_replica = entry.in_sync.iter().any(|member| member.node == drained);
            let is_owned_there = holder.as_ref().is_some_and(|holder| holder.node == drained);
            if has_replica || is_owned_there {
                left.push(Left { segment, has_replica, holder });
            }
        }
        Ok(left)
    }

    /// The node of that name.
    fn named(&self, name: &str) -> Result<NodeId, Fault> {
        let all = self.view.all();
        let found = all.iter().find(|(entry, up)| entry.name == name && *up);
        found.map(|(entry, _)| entry.node).ok_or_else(|| {
            if all.iter().any(|(entry, _)| entry.name == name) {
                let text =
                    format!("node {name} is down: what it kept in sync its segments' owners make anew elsewhere");
                return Fault::new(FaultKind::Unreachable, text);
            }
            let names: Vec<_> = all.iter().map(|(entry, _)| entry.name.as_str()).collect();
            Fault::new(FaultKind::NotFound, format!("there is no node {name}; there are: {}", names.join(", ")))
        })
    }
}
