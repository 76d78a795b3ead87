//! Why a replica does not do what it was asked.

use std::path::PathBuf;

use crate::config::shown;
use segstore::control::message::{Fault, FaultKind};
use segstore_core::id::{Incarnation, SegmentId};
use segstore_core::layout::replica_head::HeadError;
use segstore_core::replica::Refused;
use segstore_transport::{Error as TransportError, ErrorKind};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// It refuses, by the protocol.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Nothing can be named.
    #[error(transparent)]
    NoRandom(#[from] crate::identity::NoRandom),
    /// There is no such replica on this node.
    #[error("its node is up, its memory is new: the replica is gone")]
    NotFound {
        /// The segment's life.
        segment: SegmentId,
        /// The memory's life.
        incarnation: Incarnation,
    },
    /// It cannot be forgotten yet.
    #[error("a replica of segment {0} is being made here")]
    BeingMade(SegmentId),
    /// It is not of a segment that was half made.
    #[error("a replica of segment {0} has been owned")]
    Owned(SegmentId),
    /// The budget is spent.
    #[error(
        "no room for a replica of {}: {} of {} are in use; ask for a smaller capacity, raise `memory` in the daemon's \
         configuration, or remove segments", shown(*.asked), shown(*.used), shown(*.budget)
    )]
    NoBudget {
        /// Bytes asked for.
        asked: u64,
        /// Bytes in use.
        used: u64,
        /// Bytes that may be used.
        budget: u64,
    },
    /// The file system is full.
    #[error(
        "no room for a replica of {} in {}: its file system has {} free; ask for a smaller capacity, enlarge it \
         (mount -o remount,size=... where `findmnt -T {}` says), or set `memory_dir` to another tmpfs",
        shown(*.asked), .directory.display(), shown(*.free), .directory.display()
    )]
    NoSpace {
        /// Bytes asked for.
        asked: u64,
        /// Bytes that are free.
        free: u64,
        /// Where.
        directory: PathBuf,
    },
    /// The file is shorter than the replica.
    #[error(
        "{} has {is} bytes instead of {should} bytes: it was cut short by somebody; the replica is lost, remove the file",
        .file.display()
    )]
    CutShort {
        /// The file.
        file: PathBuf,
        /// Bytes that it has.
        is: u64,
        /// Bytes that it should have.
        should: u64,
    },
    /// The head makes no sense.
    #[error("{}: {why}; the replica is not served, remove the file", .file.display())]
    Head {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: HeadError,
    },
    /// What was asked makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The source of a repair does not hold what its owner said.
    #[error("the source of the repair does not hold {0} any more")]
    SourceChanged(segstore_core::id::Stamp),
    /// What a repair would copy is damaged.
    #[error(
        "block {block} in slot {slot} of the source of the repair fails its checksum: damage is not copied; with another good \
         replica, restart the source's daemon without that replica's files"
    )]
    SourceDamaged {
        /// The source's slot.
        slot: u32,
        /// The block.
        block: u32,
    },
    /// A repair was ended, by a later owner or since the segment was removed.
    #[error("the repair was ended: a later owner came, or the segment was removed")]
    Ended,
    /// The transport said so.
    #[error("{doing}: {error}")]
    Transport {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        error: TransportError,
    },
    /// The system said so.
    #[error("{doing} {}: {error}", .file.display())]
    System {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        file: PathBuf,
        /// What it said.
        error: std::io::Error,
    },
}

impl ReplicaError {
    pub(super) fn transport(doing: &'static str) -> impl Fn(TransportError) -> Self {
        move |error| Self::Transport { doing, error }
    }
}

impl From<ReplicaError> for Fault {
    fn from(error: ReplicaError) -> Self {
        let kind = match &error {
            ReplicaError::Refused(why) => FaultKind::Refused(*why),
            ReplicaError::NotFound { .. } | ReplicaError::CutShort { .. } | ReplicaError::Head { .. } => {
                FaultKind::NotFound
            }
            ReplicaError::NoBudget { .. } | ReplicaError::NoSpace { .. } => FaultKind::NoRoom,
            ReplicaError::Invalid(_) => FaultKind::Invalid,
            ReplicaError::SourceChanged(_)
            | ReplicaError::SourceDamaged { .. }
            | ReplicaError::Ended
            | ReplicaError::BeingMade(_)
            | ReplicaError::Owned(_) => FaultKind::Unreachable,
            ReplicaError::Transport { error, .. } => match error.kind() {
                ErrorKind::InvalidInput | ErrorKind::Protocol | ErrorKind::Incompatible => FaultKind::Invalid,
                ErrorKind::Exhausted => FaultKind::NoRoom,
                ErrorKind::PeerGone | ErrorKind::TimedOut | ErrorKind::Revoked => FaultKind::Unreachable,
                _ => FaultKind::Internal,
            },
            ReplicaError::System { .. } | ReplicaError::NoRandom(_) => FaultKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}
