//! Moving everything off a node: it gets nothing more, and owners let go of what it has when another node has it.
//!
//! That a node is being drained it knows itself, across restarts, and tells in its entry: so every node that places a replica knows, and
//! tells the owners there.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use segstore::control::message::{Fault, FaultKind, Holder, Left};
use segstore_core::id::{NodeId, SegmentId};

use super::{Node, SHORT, unexpected};
use crate::cluster::SegmentEntry;
use crate::identity::replace;
use crate::peers::message::{Call, Reply};
use crate::replicas::{Begun, Making};

/// Whether this node is being drained. It stands in a file.
#[derive(Debug)]
pub struct Draining {
    file: PathBuf,
    is_on: AtomicBool,
    /// Replicas that are being made here, each from before it is decided whether it may be.
    pub(crate) arriving: Making,
}

/// How long the owner takes at most to connect to a replica that was made for it.
const MOMENT: Duration = Duration::from_secs(10);

impl Draining {
    /// As the file says: by being there.
    #[must_use]
    pub fn read(file: PathBuf) -> Self {
        let is_on = AtomicBool::new(file.exists());
        Self { file, is_on, arriving: Making::default() }
    }

    /// Whether it is.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::SeqCst)
    }

    /// From here on, or not any more.
    ///
    /// # Errors
    /// The file cannot be made or removed.
    pub fn set(&self, on: bool) -> std::io::Result<()> {
        if on {
            replace(&self.file, "everything is being moved off this node\n")?;
        } else if let Err(error) = std::fs::remove_file(&self.file)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error);
        }
        self.is_on.store(on, Ordering::SeqCst);
        Ok(())
    }
}

/// A replica was made for an owner, who connects to it in a moment: until then it counts.
pub(crate) fn await_owner(arrival: Begun) {
    tokio::spawn(async move {
        tokio::time::sleep(MOMENT).await;
        drop(arrival);
    });
}

impl Node {
    /// Begins to make a replica here, unless the node is being drained: whoever asks after that what is here hears of it.
    pub(crate) fn arrival(&self, segment: SegmentId) -> Result<Begun, Fault> {
        let arrival = self.draining.arriving.begin(segment);
        if !self.draining.is_on() {
            return Ok(arrival);
        }
        Err(Fault::new(FaultKind::NoRoom, format!("node {} is being drained: it takes no further replica", self.name)))
    }

    /// Begins to drain a node that is up, or ends that.
    pub(crate) async fn drain(self: &Arc<Self>, name: &str, on: bool) -> Result<(), Fault> {
        let node = self.to_be_drained(name)?;
        self.call(node, Call::Drain { on }, SHORT).await.map(drop)
    }

    /// What keeps the node of that name from being switched off.
    pub(crate) async fn left(self: &Arc<Self>, name: &str) -> Result<Vec<Left>, Fault> {
        let of = self.to_be_drained(name)?;
        let (kept, written) = match self.call(of, Call::Busy, SHORT).await? {
            Reply::Busy { kept, written } => (kept, written),
            other => return Err(unexpected(&other)),
        };
        let mut unrecorded: HashSet<_> = kept.into_iter().chain(written.iter().copied()).collect();
        let (mut holders, mut left) = (self.holders().await?, Vec::new());
        // After that: what came into a set since then was written then, or being made.
        for (segment, entry, _) in self.segments().await? {
            let holder = holders.remove(&segment);
            unrecorded.remove(&entry.segment);
            let has_replica = entry.in_sync.iter().any(|member| member.node == of);
            let is_written = written.contains(&entry.segment) && !is_local(&entry, of, holder.as_ref());
            if has_replica || is_written || holder.as_ref().is_some_and(|holder| holder.node == of) {
                left.push(Left { segment, has_replica, is_written, holder });
            }
        }
        for segment in unrecorded {
            if self.is_known(segment).await? {
                let segment = format!("{segment} (being made, or removed)");
                left.push(Left { segment, has_replica: false, is_written: true, holder: None });
            }
        }
        // Names of no segment.
        let names = holders.into_iter().filter(|(_, holder)| holder.node == of);
        left.extend(names.map(|(segment, holder)| Left {
            segment,
            has_replica: false,
            is_written: false,
            holder: Some(holder),
        }));
        Ok(left)
    }

    fn to_be_drained(&self, name: &str) -> Result<NodeId, Fault> {
        self.named(name).map_err(|mut fault| {
            if fault.kind == FaultKind::Unreachable {
                fault.message += ": what it kept in sync is made anew elsewhere when it is gone for good, or its segments' owners go on without";
            }
            fault
        })
    }
}

/// Whether what is written there is the copy beside the owner, which goes with it.
fn is_local(entry: &SegmentEntry, node: NodeId, holder: Option<&Holder>) -> bool {
    entry.keeping.local && holder.is_some_and(|holder| holder.node == node)
}
