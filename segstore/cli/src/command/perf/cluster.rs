//! Daemons of `perf --dev`'s own.

use std::path::{Path, PathBuf};

use segstore::Session;
use segstore_bench::Over;

use crate::arguments::Up;
use crate::dev::{self, Started};
use crate::exit::Failure;

/// Three daemons, which end with this.
pub(super) struct Cluster {
    dir: PathBuf,
    up: Up,
    daemons: Vec<Started>,
}

impl Cluster {
    pub(super) fn start(over: Over, memory: &str, on_disk: bool) -> Result<Self, Failure> {
        Self::start_with(over, memory, on_disk, None)
    }

    /// With nodes that count as dead after that.
    pub(super) fn start_with(over: Over, memory: &str, on_disk: bool, lease: Option<&str>) -> Result<Self, Failure> {
        let dir = place();
        let up = Up {
            nodes: 3,
            dir: dir.clone(),
            memory: Some(memory.to_owned()),
            transport: Some(over.name().to_owned()),
            node_lease: lease.map(str::to_owned),
            on_disk,
        };
        // Also what comes up in part goes again.
        let mut cluster = Self { up, dir, daemons: Vec::new() };
        cluster.start_stopped()?;
        Ok(cluster)
    }

    /// Starts every node that does not run.
    pub(super) fn start_stopped(&mut self) -> Result<(), Failure> {
        self.daemons = dev::up(&self.up)?;
        Ok(())
    }

    pub(super) fn session(&self) -> Result<Session, Failure> {
        Ok(Session::connect_to(self.socket("n1"))?)
    }

    pub(super) fn socket(&self, node: &str) -> PathBuf {
        self.dir.join(node).join("segstored.sock")
    }

    /// The process of a node's daemon.
    pub(super) fn process(&self, node: &str) -> Option<i32> {
        self.daemons.iter().find(|daemon| daemon.name == node).map(|daemon| daemon.pid)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        clear(&self.dir);
    }
}

fn place() -> PathBuf {
    std::env::temp_dir().join(format!("segstore-perf-{}", std::process::id()))
}

fn clear(dir: &Path) {
    if let Err(error) = dev::down(dir) {
        eprintln!("segctl: {error}");
    }
    let _ = std::fs::remove_dir_all(dir);
}

/// Ends daemons that this process started: they are processes of their own, and would stay.
pub(super) fn clear_all() {
    if place().exists() {
        clear(&place());
    }
}
