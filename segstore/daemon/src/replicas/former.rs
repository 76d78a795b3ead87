//! What a former life of this daemon left in its directory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use segstore_core::id::{Incarnation, SegmentId};
use segstore_core::layout::replica_head;

use super::Options;
use super::error::ReplicaError;
use super::files::{self, Files};
use super::hosted::Hosted;

/// Takes up the replicas that are whole. What is not is logged, and neither served nor removed; what was being made is removed.
pub(super) fn take_up(options: &Options) -> Result<BTreeMap<(SegmentId, Incarnation), Arc<Hosted>>, ReplicaError> {
    let directory = &options.directory;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| system("making", directory, error))?;
    remove_unfinished(directory)?;
    let mut hosted = BTreeMap::new();
    for path in contents(directory)?.iter().filter(|path| path.extension() == Some(OsStr::new(files::HEAD))) {
        match adopt(path, options) {
            Ok(replica) => drop(hosted.insert((replica.segment, replica.member.incarnation), Arc::new(replica))),
            Err(error) => tracing::error!("a replica of a former life is lost: {error}"),
        }
    }
    if !hosted.is_empty() {
        tracing::info!("{} replicas of a former life of this daemon are served again", hosted.len());
    }
    Ok(hosted)
}

fn adopt(head_path: &Path, options: &Options) -> Result<Hosted, ReplicaError> {
    let (files, head) = Files::open(head_path)?;
    if head.node != options.node {
        let text = format!("{}: it belongs to node {}, not to this one", head_path.display(), head.node);
        return Err(ReplicaError::Invalid(text));
    }
    let replica = Hosted::new(&head, files);
    replica.adopt(&options.domains)?;
    Ok(replica)
}

/// Heads that were never written, slots without a head, copies that were cut off: nobody was ever told of them.
fn remove_unfinished(directory: &Path) -> Result<(), ReplicaError> {
    // A replica's head comes before its slots.
    for path in contents(directory)? {
        let kind = path.extension().unwrap_or_default().to_string_lossy();
        let is_unfinished = match &*kind {
            files::HEAD => path.metadata().is_ok_and(|about| about.len() < replica_head::BYTES as u64),
            files::SLOTS => !path.with_extension(files::HEAD).exists(),
            files::NEW_HEAD => true,
            other => other.starts_with(files::MOVING),
        };
        if is_unfinished {
            tracing::warn!("{} was never finished: it is removed", path.display());
            remove(&path)?;
        }
    }
    Ok(())
}

/// By rising name.
fn contents(directory: &Path) -> Result<Vec<PathBuf>, ReplicaError> {
    let listed = std::fs::read_dir(directory).and_then(|entries| {
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        paths.collect::<Result<Vec<_>, _>>()
    });
    let mut paths = listed.map_err(|error| system("reading", directory, error))?;
    paths.sort_unstable();
    Ok(paths)
}

fn remove(path: &Path) -> Result<(), ReplicaError> {
    std::fs::remove_file(path).map_err(|error| system("removing", path, error))
}

fn system(doing: &'static str, file: &Path, error: std::io::Error) -> ReplicaError {
    ReplicaError::System { doing, file: file.to_owned(), error }
}
