//! What a former life of this daemon left in its directory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::statvfs;
use segstore_core::id::{Incarnation, SegmentId};
use segstore_core::layout::replica_head;

use super::Options;
use super::error::ReplicaError;
use super::files::{self, Files};
use super::hosted::Hosted;
use crate::identity::replace;

/// The file that says of which boot of the machine the replicas are.
const BOOT: &str = "boot";

/// Takes up the replicas that are whole. What is not is logged, and neither served nor removed; what was being made is removed.
pub(super) fn take_up(options: &Options) -> Result<BTreeMap<(SegmentId, Incarnation), Arc<Hosted>>, ReplicaError> {
    let directory = &options.directory;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| system("making", directory, error))?;
    forget_other_boot(directory, &options.boot)?;
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
    check_room(options, hosted.values().map(|replica| replica.bytes()).max().unwrap_or_default());
    Ok(hosted)
}

fn adopt(head_path: &Path, options: &Options) -> Result<Hosted, ReplicaError> {
    let (files, head) = Files::open(head_path)?;
    if head.node != options.node {
        let text = format!("{}: it belongs to node {}, not to this one", head_path.display(), head.node);
        return Err(ReplicaError::Invalid(text));
    }
    Ok(Hosted::of_former_life(&head, files, &options.domains))
}

/// What outlived its boot lay on a disk, which may have lost the newest of it: acknowledged checkpoints are not in it for certain.
fn forget_other_boot(directory: &Path, boot: &str) -> Result<(), ReplicaError> {
    let file = directory.join(BOOT);
    match std::fs::read_to_string(&file) {
        Ok(found) if found.trim() == boot => return Ok(()),
        Ok(found) => {
            let gone: Vec<_> = contents(directory)?.into_iter().filter(|path| is_of_replica(path)).collect();
            gone.iter().try_for_each(|path| remove(path))?;
            tracing::error!(
                "{}: {} files of replicas of another boot of this machine ({}) are removed: what a disk kept may be older than what was \
                 acknowledged; set `memory_dir` to a directory on tmpfs",
                directory.display(),
                gone.len(),
                found.trim()
            );
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(system("reading", &file, error)),
    }
    // On the disk before the first replica is.
    replace(&file, boot).map_err(|error| system("writing", &file, error))
}

/// Heads that were never written, slots without a head, copies that were cut off: nobody was told of them, or it was given up for another
/// that was to be made out of it.
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

fn is_of_replica(path: &Path) -> bool {
    let kind = path.extension().unwrap_or_default().to_string_lossy();
    [files::HEAD, files::NEW_HEAD, files::SLOTS].contains(&&*kind) || kind.starts_with(files::MOVING)
}

/// Tells what will go wrong later.
fn check_room(options: &Options, largest: u64) {
    let directory = &options.directory;
    if statfs(directory).is_ok_and(|about| about.filesystem_type() != TMPFS_MAGIC) {
        tracing::warn!(
            "memory_dir {} is not on tmpfs: its replicas count as lost when the machine starts again, and are as slow as its disk",
            directory.display()
        );
    }
    let Ok(about) = statvfs(directory) else { return };
    let has = about.blocks() * about.fragment_size();
    // Shutting a writer out of shared memory takes a copy of its replica.
    let needs = options.budget.saturating_add(largest);
    if needs > has {
        tracing::warn!(
            "memory_dir {}: its file system has {has} bytes, but `memory` allows {} for replicas, and shutting a writer out of the largest \
             one takes {largest} more for a moment: enlarge it (mount -o remount,size=... where `findmnt -T {}` says), or lower `memory`",
            directory.display(),
            options.budget,
            directory.display()
        );
    }
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
