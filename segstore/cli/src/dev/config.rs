//! What a daemon of such a cluster is told.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::{Deserialize, Serialize};

use super::node::daemon;
use crate::arguments::Up;
use crate::exit::Failure;

/// The keys that are written; what is not said is the daemon's default.
#[derive(Serialize, Deserialize)]
pub(super) struct NodeConfig {
    pub(super) name: String,
    pub(super) listen: String,
    pub(super) directory: String,
    pub(super) secret_file: PathBuf,
    pub(super) data_dir: PathBuf,
    pub(super) memory_dir: PathBuf,
    pub(super) memory: String,
    pub(super) socket: PathBuf,
    pub(super) pid_file: PathBuf,
    pub(super) transport: Option<String>,
    pub(super) node_lease: Option<String>,
    pub(super) metrics: String,
}

impl NodeConfig {
    pub(super) fn text(&self) -> Result<String, Failure> {
        toml::to_string(self)
            .map_err(|error| Failure::Usage(format!("--dir {}: {error}; choose another", self.data_dir.display())))
    }

    pub(super) fn read(file: &Path) -> Option<Self> {
        toml::from_str(&std::fs::read_to_string(file).ok()?).ok()
    }
}

/// Has the daemon itself look at what a user chose, before anything is started.
pub(super) fn check(up: &Up, dir: &Path) -> Result<(), Failure> {
    let mut daemon = daemon()?;
    daemon.args(["--check-config", "--directory", "self"]).arg("--secret-file").arg(dir.join("secret"));
    for (flag, value) in [("--memory", &up.memory), ("--transport", &up.transport), ("--node-lease", &up.node_lease)] {
        if let Some(value) = value {
            daemon.arg(format!("{flag}={value}"));
        }
    }
    let checked = daemon.stdin(Stdio::null()).output();
    let checked = checked.map_err(|error| Failure::File(format!("starting segstored: {error}")))?;
    if checked.status.success() {
        return Ok(());
    }
    Err(Failure::Usage(String::from_utf8_lossy(&checked.stderr).trim_end().to_owned()))
}
