//! A directory as a document: to keep, to look at, and to move a cluster from one kind of directory to another.
//!
//! What is tied to a lease is left out: leases are of one directory, and who holds one writes anew what is tied to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Directory, DirectoryError, Entry, Swapped, Value};

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
    pub async fn import(&self, directory: &dyn Directory) -> Result<(), DirectoryError> {
        let encode = |(key, value): &(String, Json)| Ok((key.clone(), serde_json::to_vec(value)?));
        let entries: serde_json::Result<BTreeMap<_, _>> = self.entries.iter().map(encode).collect();
        let entries = entries.map_err(|error| DirectoryError::Refused(error.to_string()))?;
        let check = |found: &Entry| match entries.get(&found.key) {
            Some(bytes) if *bytes == found.value => Ok(()),
            _ => Err(occupied(&found.key)),
        };
        // Before anything is changed.
        directory.list("").await?.entries.iter().try_for_each(check)?;
        for (key, bytes) in &entries {
            let new = Value { bytes: bytes.clone(), lease: None };
            if let Swapped::Conflict(Some(found)) = directory.compare_swap(key, None, Some(new)).await? {
                check(&found)?;
            }
        }
        Ok(())
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
    pub fn count(&self) -> usize {
        self.entries.len()
    }
}

fn occupied(key: &str) -> DirectoryError {
    DirectoryError::Refused(format!(
        "{key} stands there already, and is something else: a directory is imported where there is none so far; \
         take another `data_dir`, or another `etcd_prefix`"
    ))
}
