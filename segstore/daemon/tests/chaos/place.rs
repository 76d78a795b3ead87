//! Where a run has its files, and what tells it from others: whatever a killed run has left is found by that, and removed.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::network;

/// What the names of every run's directories and namespaces begin with.
const PREFIX: &str = "segchaos";
/// On tmpfs: replica memory, and what etcd would wait for a disk for.
const MEMORY: &str = "/dev/shm";

/// The files of a run. Gone with it, but for its logs where those are wanted.
pub(crate) struct Place {
    name: String,
    directory: PathBuf,
    /// As long as this is held, the run is not over.
    _lock: Flock<File>,
    pub(crate) is_kept: bool,
}

impl Place {
    /// For this run, after removing what runs that are over have left.
    pub(crate) fn new() -> Self {
        remove_leftovers();
        let name = format!("{PREFIX}{}", std::process::id());
        let directory = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&directory).unwrap();
        let lock = lock(&directory).expect("nobody else has this number");
        std::fs::create_dir_all(Path::new(MEMORY).join(&name)).unwrap();
        Self { name, directory, _lock: lock, is_kept: false }
    }

    /// What the names of its namespaces begin with.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn memory(&self, name: &str) -> PathBuf {
        Path::new(MEMORY).join(&self.name).join(name)
    }

    /// To be appended to.
    pub(crate) fn log(&self, name: &str) -> File {
        File::options().append(true).create(true).open(self.file(&format!("{name}.log"))).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(Path::new(MEMORY).join(&self.name));
        if !self.is_kept {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

fn lock(directory: &Path) -> Option<Flock<File>> {
    let file = File::options().write(true).create(true).truncate(false).open(directory.join("lock")).ok()?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()
}

/// Of runs that were killed: memory and namespaces. Logs stay with whoever wants to read them.
fn remove_leftovers() {
    let is_over = |name: &str| {
        let directory = std::env::temp_dir().join(name);
        name.starts_with(PREFIX) && (!directory.exists() || lock(&directory).is_some())
    };
    for entry in std::fs::read_dir(MEMORY).unwrap().flatten() {
        if is_over(&entry.file_name().to_string_lossy()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    for namespace in network::namespaces() {
        if namespace.split_once('-').is_some_and(|(run, _)| is_over(run)) {
            network::remove(&namespace);
        }
    }
}
