//! A directory as a document: to keep, to look at, and to move a cluster from one kind of directory to another.
//!
//! What is tied to a lease is left out: leases are of one directory, and who holds one writes anew what is tied to it.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Directory, DirectoryError, Swapped, Value};

/// The version of the format.
const VERSION: u32 = 1;

/// The entries of a directory at one moment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    segstore_directory: u32,
    entries: Vec<(String, Json)>,
}

impl Document {
    /// Everything that is tied to no lease.
    ///
    /// # Errors
    /// The directory does not answer; an entry is no JSON.
    pub async fn export(directory: &dyn Directory) -> Result<Self, DirectoryError> {
        let lasting = directory.list("").await?.entries.into_iter().filter(|entry| entry.lease.is_none());
        let parse = |bytes: &[u8]| serde_json::from_slice(bytes);
        let entries = lasting.map(|entry| match parse(&entry.value) {
            Ok(value) => Ok((entry.key, value)),
            Err(error) => Err(DirectoryError::Refused(format!("{} is no JSON: {error}", entry.key))),
        });
        Ok(Self { segstore_directory: VERSION, entries: entries.collect::<Result<_, _>>()? })
    }

    /// Puts all of it into a directory where nothing stands, or the same: after an attempt that broke off it is done again.
    ///
    /// # Errors
    /// The directory does not answer, or is another cluster's, or this one's after it has gone on.
    pub async fn import(&self, directory: &dyn Directory) -> Result<usize, DirectoryError> {
        // Before anything is changed.
        for entry in directory.list("").await?.entries {
            let is_same = self.entries.iter().any(|(key, value)| {
                *key == entry.key && serde_json::from_slice::<Json>(&entry.value).is_ok_and(|found| found == *value)
            });
            if !is_same {
                return Err(occupied(&entry.key));
            }
        }
        for (key, value) in &self.entries {
            let bytes = serde_json::to_vec(value).map_err(|error| DirectoryError::Refused(error.to_string()))?;
            let new = Value { bytes: bytes.clone(), lease: None };
            match directory.compare_swap(key, None, Some(new)).await? {
                Swapped::Conflict(Some(entry)) if entry.value != bytes => return Err(occupied(key)),
                Swapped::Made(_) | Swapped::Conflict(_) => {}
            }
        }
        Ok(self.entries.len())
    }

    /// Reads it from JSON.
    ///
    /// # Errors
    /// It is none, or of another version.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let document: Self = serde_json::from_slice(text).map_err(|error| format!("no exported directory: {error}"))?;
        if document.segstore_directory != VERSION {
            let is = document.segstore_directory;
            return Err(format!("an exported directory of version {is}, this program reads version {VERSION}"));
        }
        Ok(document)
    }

    /// How many entries it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn occupied(key: &str) -> DirectoryError {
    DirectoryError::Refused(format!(
        "{key} stands there already, and is something else: a directory is imported where there is none so far; \
         take another `data_dir`, or another `etcd_prefix`"
    ))
}
