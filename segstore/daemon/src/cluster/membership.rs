//! Which cluster this node belongs to.
//!
//! A directory in which nothing stands looks the same whether it is new or the wrong one: `data_dir` of its daemon, a mount or an
//! address was mistaken. Who joins it takes its own segments for removed, and makes them anew, empty, under the same names. So a
//! directory has a number, and a node keeps that number beside its replicas, where both are lost together. And a directory has a list
//! of its nodes, so that it is known who may have replicas while he is away.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use segstore_core::id::NodeId;

use super::{CLUSTER, member_key};
use crate::directory::{Directory, DirectoryError, Swapped, Value};
use crate::identity::{random, replace};
use crate::node::parse;

/// The file beside the replicas.
const FILE: &str = "cluster";

/// This node's place in its cluster.
pub struct Membership {
    node: NodeId,
    name: String,
    file: PathBuf,
}

impl Membership {
    /// Of the node of that name, whose replicas are in `memory_dir`.
    #[must_use]
    pub fn new(node: NodeId, name: String, memory_dir: &Path) -> Self {
        Self { node, name, file: memory_dir.join(FILE) }
    }

    /// Whether `directory` is that of this node's cluster, in whose list the node is from here on. A node that was in none belongs to
    /// any, and gives a new directory its number.
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
        match own {
            Some(own) if own == found => {}
            Some(own) => return Err(self.refuse(&format!("it is that of cluster {found}"), &own)),
            None => {
                replace(&self.file, &found).map_err(|error| self.failed(&error))?;
                tracing::info!("this node belongs to cluster {found} from here on");
            }
        }
        // In a conflict it is there already.
        directory.compare_swap(&member_key(self.node), None, Some(value(&self.name)?)).await.map(drop)
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
            "{which}, and this node is of cluster {own}: look at `directory` here, and at `data_dir` of the daemon that keeps it (is it mounted?). If it is \
             to go over to this one, remove {}: replicas that it keeps stay, but are of use in their own cluster only",
            self.file.display()
        ))
    }

    fn failed(&self, error: &std::io::Error) -> DirectoryError {
        let file = self.file.display();
        DirectoryError::Refused(format!(
            "{file}, which says to which cluster this node belongs: {error}; it must be there, and room for it"
        ))
    }
}

/// Gives a new directory its number; another node may have been first.
async fn number(directory: &dyn Directory) -> Result<String, DirectoryError> {
    let new = format!("{:032x}", random().map_err(|error| DirectoryError::Refused(error.to_string()))?);
    match directory.compare_swap(CLUSTER, None, Some(value(&new)?)).await? {
        Swapped::Made(_) => {
            tracing::warn!("the directory is new: a new cluster begins with it, {new}");
            Ok(new)
        }
        Swapped::Conflict(Some(entry)) => parse(&entry).map_err(|fault| DirectoryError::Refused(fault.to_string())),
        Swapped::Conflict(None) => Err(DirectoryError::Refused("its number has gone at this moment".to_owned())),
    }
}

fn value(text: &str) -> Result<Value, DirectoryError> {
    let bytes = serde_json::to_vec(text).map_err(|error| DirectoryError::Refused(error.to_string()))?;
    Ok(Value { bytes, lease: None })
}
