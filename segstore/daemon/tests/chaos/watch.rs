//! What anybody can learn of segments by asking the daemons, without making the run wait for answers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use segstore::{ReplicaInfo, Session};

use crate::segments::{NODES, SEGMENTS};

const PAUSE: Duration = Duration::from_millis(250);

/// Where each segment's replicas were, a moment ago.
pub(crate) struct Watch {
    replicas: Arc<Mutex<BTreeMap<usize, Vec<usize>>>>,
}

impl Watch {
    pub(crate) fn start(sockets: Vec<PathBuf>) -> Self {
        let replicas = Arc::<Mutex<BTreeMap<_, _>>>::default();
        let shared = replicas.clone();
        std::thread::spawn(move || {
            for socket in sockets.iter().cycle() {
                if let Some(found) = look(socket) {
                    *shared.lock().unwrap_or_else(PoisonError::into_inner) = found;
                }
                std::thread::sleep(PAUSE);
            }
        });
        Self { replicas }
    }

    /// The nodes of a segment's replicas.
    pub(crate) fn replicas(&self, segment: usize) -> Vec<usize> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner).get(&segment).cloned().unwrap_or_default()
    }
}

fn look(socket: &Path) -> Option<BTreeMap<usize, Vec<usize>>> {
    let session = Session::connect_to(socket).ok()?;
    let of = |(segment, spec): (usize, &crate::segments::Spec)| {
        let places = session.lookup(spec.name).ok()?.places;
        Some((segment, places.iter().filter_map(|place| numbered(&place.node_name)).collect()))
    };
    SEGMENTS.iter().enumerate().map(of).collect()
}

fn numbered(name: &str) -> Option<usize> {
    name.strip_prefix('n')?.parse().ok().filter(|node| *node < NODES)
}

/// Whether every segment has a replica in sync that is there, is whole, and is not on this node, as the daemon at `socket` says; if not,
/// which has none.
pub(crate) fn dispense_with(node: usize, socket: &Path) -> Result<(), String> {
    let session = Session::connect_to(socket).map_err(|error| error.to_string())?;
    let is_good = |replica: &ReplicaInfo| {
        let is_there = replica.image.is_some() && replica.problem.is_none() && replica.repair.is_none();
        replica.in_sync && is_there && numbered(&replica.node_name) != Some(node)
    };
    SEGMENTS.iter().try_for_each(|spec| {
        let status = session.status(spec.name).map_err(|error| error.to_string())?;
        if status.replicas.iter().any(is_good) { Ok(()) } else { Err(format!("{} has no other replica", spec.name)) }
    })
}
