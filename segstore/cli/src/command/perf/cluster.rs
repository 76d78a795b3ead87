//! Daemons of `perf --dev`'s own.

use std::path::{Path, PathBuf};

use segstore::Session;
use segstore_bench::Over;

use crate::arguments::Up;
use crate::dev::{self, Started};
use crate::exit::Failure;

/// What it is like.
pub(super) struct Shape {
    pub(super) nodes: usize,
    pub(super) over: Over,
    pub(super) memory: &'static str,
    pub(super) on_disk: bool,
    /// After how long a silent node counts as dead.
    pub(super) lease: Option<&'static str>,
}

impl Shape {
    /// Three nodes with so much memory each.
    pub(super) fn new(over: Over, memory: &'static str) -> Self {
        Self { nodes: 3, over, memory, on_disk: false, lease: None }
    }
}

/// Daemons, which end with this.
pub(super) struct Cluster {
    dir: PathBuf,
    up: Up,
    daemons: Vec<Started>,
}

impl Cluster {
    pub(super) fn start(over: Over, memory: &'static str) -> Result<Self, Failure> {
        Self::of(&Shape::new(over, memory))
    }

    pub(super) fn of(shape: &Shape) -> Result<Self, Failure> {
        let dir = place();
        let up = Up {
            nodes: shape.nodes,
            dir: dir.clone(),
            memory: Some(shape.memory.to_owned()),
            transport: Some(shape.over.name().to_owned()),
            node_lease: shape.lease.map(str::to_owned),
            on_disk: shape.on_disk,
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
