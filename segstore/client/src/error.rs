//! What can go wrong, by what a caller can do about it.

use std::path::PathBuf;

use segstore_core::id::{Epoch, Term};
use segstore_transport::ErrorKind;

use crate::control::message::{Fault, FaultKind, Holder};

/// The result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The node's daemon does not answer.
    #[error("no daemon at {}: {why}; is segstored running, and is this its socket?", .path.display())]
    NoDaemon {
        /// Its socket.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// There is no such segment.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken.
    #[error("{0}")]
    Exists(String),
    /// Another session owns the segment.
    #[error("segment {name} is owned by {} (process {} on node {})", .holder.program, .holder.pid, .holder.node_name)]
    Owned {
        /// The segment.
        name: String,
        /// Who owns it.
        holder: Box<Holder>,
    },
    /// The segment was taken over: this ownership is over, and nothing of it is acknowledged any more.
    #[error("fenced: segment {name} was taken over in term {term}; load it again if this process is to own it")]
    Fenced {
        /// The segment.
        name: String,
        /// The term of the takeover.
        term: Term,
    },
    /// The checkpoint was not acknowledged in its time. It may still turn up: ask for its outcome, or make the next one.
    #[error("epoch {epoch} of segment {name} is pending: {waiting_for}")]
    Pending {
        /// The segment.
        name: String,
        /// The checkpoint.
        epoch: Epoch,
        /// What it waited for.
        waiting_for: String,
    },
    /// The newest checkpoint may have been acknowledged, and no good copy of it is in reach.
    #[error("{0}")]
    NoGoodCopy(String),
    /// Something that is needed does not answer: a node, the directory, the owner.
    #[error("{0}")]
    Unreachable(String),
    /// No room for it.
    #[error("{0}")]
    NoRoom(String),
    /// The user may not, or the state does not allow it.
    #[error("{0}")]
    Refused(String),
    /// A value is wrong.
    #[error("{0}")]
    Invalid(String),
    /// Something that should not happen.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// What the daemon said, of the segment `name`.
    pub(crate) fn of_fault(name: &str, fault: Fault) -> Self {
        let Fault { kind, message } = fault;
        match kind {
            FaultKind::NotFound => Self::NotFound(message),
            FaultKind::Exists => Self::Exists(message),
            FaultKind::Held(holder) => Self::Owned { name: name.to_owned(), holder },
            FaultKind::NoRoom => Self::NoRoom(message),
            FaultKind::Unreachable | FaultKind::NoAnswer => Self::Unreachable(message),
            FaultKind::Denied | FaultKind::NotHeld | FaultKind::Refused(_) => Self::Refused(message),
            FaultKind::Invalid => Self::Invalid(message),
            FaultKind::Unsupported | FaultKind::Internal => Self::Internal(message),
        }
    }

    /// A transport error on this side, where memory is mapped and devices are opened.
    pub(crate) fn of_transport(doing: &str, error: &segstore_transport::Error) -> Self {
        let text = format!("{doing}: {error}");
        match error.kind() {
            ErrorKind::Exhausted => Self::NoRoom(text),
            ErrorKind::InvalidInput => Self::Invalid(text),
            ErrorKind::PeerGone | ErrorKind::TimedOut | ErrorKind::Revoked => Self::Unreachable(text),
            _ => Self::Internal(text),
        }
    }
}
