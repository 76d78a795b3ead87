//! Why something was not done.

use segstore_core::replica::Refused;
use serde::{Deserialize, Serialize};

use super::Holder;

/// Why something was not done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What a program can act on.
    pub kind: FaultKind,
    /// What a person needs to know: what was wrong, with what value, and what to do.
    pub message: String,
}

/// What a program can act on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// There is no such segment, replica or hold.
    NotFound,
    /// The name is taken.
    Exists,
    /// Another session holds the segment.
    Held(Box<Holder>),
    /// The session does not hold the segment, or not any more.
    NotHeld,
    /// The owner was told by a later one, or the replica has seen a later term.
    Refused(Refused),
    /// No node has room, or too few have.
    NoRoom,
    /// A node, the directory or a client cannot be reached; nothing was done.
    Unreachable,
    /// There was no answer: it may have been done, or may still be.
    NoAnswer,
    /// The user may not.
    Denied,
    /// A value is wrong.
    Invalid,
    /// The other side is too old for this request.
    Unsupported,
    /// Something that should not happen.
    Internal,
}

impl Fault {
    /// A fault of that kind.
    #[must_use]
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}
