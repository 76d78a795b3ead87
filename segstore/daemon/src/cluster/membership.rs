//! Which cluster this node's replicas belong to.
//!
//! A directory in which nothing stands looks the same whether it is new or the wrong one: `data_dir` of its daemon, a mount or an
//! address was mistaken. Who joins it takes its own segments for removed, and makes them anew, empty, under the same names. So a
//! directory has a number, and a node keeps that number beside its replicas, where both are lost together.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::CLUSTER;
use crate::directory::{Directory, DirectoryError, Swapped, Value};
use crate::identity::{random, replace};
use crate::node::parse;
use crate::replicas::Replicas;

/// The file beside the replicas.
const FILE: &str = "cluster";

/// This node's place in its cluster. Cheap to clone.
#[derive(Clone)]
pub struct Membership {
    file: PathBuf,
    replicas: Arc<Replicas>,
}

impl Membership {
    /// Of a node that keeps `replicas` in `memory_dir`.
    #[must_use]
    pub fn new(memory_dir: &Path, replicas: Arc<Replicas>) -> Self {
        Self { file: memory_dir.join(FILE), replicas }
    }

    /// Whether `directory` is that of this node's cluster. A node without replicas may go over to another; a new directory gets its
    /// number from a node that was in none.
    ///
    /// # Errors
    /// It is another's; it does not answer; the file beside the replicas cannot be read or written.
    pub async fn confirm(&self, directory: &dyn Directory) -> Result<(), DirectoryError> {
        let own = self.own()?;
        let found = match (directory.read(CLUSTER).await?, &own) {
            (Some(entry), _) => parse(&entry).map_err(|fault| DirectoryError::Refused(fault.to_string()))?,
            (None, Some(own)) => return Err(self.refuse("it is new", own)),
            (None, None) => number(directory).await?,
        };
        let is_bound = self.replicas.usage().replicas > 0;
        match own {
            Some(own) if own == found => Ok(()),
            Some(own) if is_bound => Err(self.refuse(&format!("it is that of cluster {found}"), &own)),
            _ => replace(&self.file, &found).map_err(|error| self.failed(&error)),
        }
    }

    /// The number beside the replicas.
    fn own(&self) -> Result<Option<String>, DirectoryError> {
        match std::fs::read_to_string(&self.file) {
            Ok(own) => Ok(Some(own.trim().to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn refuse(&self, which: &str, own: &str) -> DirectoryError {
        DirectoryError::Refused(format!(
            "{which}, and this node is of cluster {own}: look at `directory` here, and at `data_dir` of the daemon that keeps it. This \
             node stays out until it finds its cluster again, or {} is removed: that gives up the replicas that it keeps",
            self.file.display()
        ))
    }

    fn failed(&self, error: &std::io::Error) -> DirectoryError {
        DirectoryError::Refused(format!("{}: {error}", self.file.display()))
    }
}

/// Gives a new directory its number; another node may have been first.
async fn number(directory: &dyn Directory) -> Result<String, DirectoryError> {
    let refused = |error: &dyn std::fmt::Display| DirectoryError::Refused(error.to_string());
    let new = format!("{:032x}", random().map_err(|error| refused(&error))?);
    let bytes = serde_json::to_vec(&new).map_err(|error| refused(&error))?;
    match directory.compare_swap(CLUSTER, None, Some(Value { bytes, lease: None })).await? {
        Swapped::Conflict(Some(entry)) => parse(&entry).map_err(|fault| refused(&fault)),
        Swapped::Made(_) | Swapped::Conflict(None) => Ok(new),
    }
}
