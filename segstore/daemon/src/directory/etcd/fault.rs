//! What etcd's errors mean: whether anything may have been done, and whether another member is worth asking.

use etcd_client::Error;
use tonic::{Code, Status};

use crate::directory::{DirectoryError, LeaseId};
use crate::peers::{causes, describe};

/// What one member's error means.
#[derive(Debug)]
pub(super) enum Fault {
    /// Nothing was done, and no member will do it.
    Final(DirectoryError),
    /// Nothing was done: this member could not be asked.
    NotAsked(String),
    /// It may have been done, and may still be.
    Unknown(String),
}

/// etcd says it in words; there is a code only for the kind of error.
const NO_LEASE: [&str; 2] = ["requested lease not found", "lease not found"];
const NO_SPACE: &str = "database space exceeded";
const NO_LEADER: &str = "etcdserver: no leader";
const OUTDATED: &str = "revision of auth store is old";
/// What to look at, where it says that somebody may not.
const RIGHTS: [(&str, &str); 3] = [
    ("authentication failed", "are `etcd_user` and `etcd_password_file` right?"),
    ("user name is empty", "it wants a user: `etcd_user` and `etcd_password_file`"),
    ("permission denied", "may `etcd_user` read and write what begins with `etcd_prefix`?"),
];

impl Fault {
    pub(super) fn refused(why: &str) -> Self {
        Self::Final(DirectoryError::Refused(why.to_owned()))
    }

    /// The same of a call that only said who asks: nothing else was asked.
    pub(super) fn of_introduction(self) -> Self {
        match self {
            Self::Unknown(why) => Self::NotAsked(why),
            fault => fault,
        }
    }

    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::GRpcStatus(status) => Self::of_status(status),
            // The answer to a lease that is kept alive says that it has no time left.
            Error::LeaseKeepAliveError(text) if NO_LEASE.contains(&text.as_str()) => over(),
            Error::TransportError(error) => Self::NotAsked(error.to_string()),
            Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => {
                Self::refused(&error.to_string())
            }
            error => Self::Unknown(error.to_string()),
        }
    }

    fn of_status(status: &Status) -> Self {
        let text = status.message();
        let says = |what: &str| text.contains(what);
        match status.code() {
            _ if NO_LEASE.iter().any(|what| says(what)) => over(),
            _ if says(NO_SPACE) => Self::Final(DirectoryError::Full(text.to_owned())),
            _ if says(NO_LEADER) || was_not_connected(status) => Self::NotAsked(describe(status)),
            Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument | Code::Unimplemented => {
                let advice = RIGHTS.iter().find(|(why, _)| says(why));
                Self::refused(&advice.map_or(text.to_owned(), |(_, advice)| format!("{text}; {advice}")))
            }
            _ => Self::Unknown(describe(status)),
        }
    }
}

/// Nothing was done: who asks was told before somebody's rights were changed, and is to be told again.
pub(super) fn is_outdated(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains(OUTDATED))
}

fn over() -> Fault {
    Fault::Final(DirectoryError::LeaseOver(LeaseId(0)))
}

/// Names the lease that is over.
pub(super) fn about(error: DirectoryError, lease: Option<LeaseId>) -> DirectoryError {
    match (error, lease) {
        (DirectoryError::LeaseOver(_), Some(lease)) => DirectoryError::LeaseOver(lease),
        (error, _) => error,
    }
}

impl From<Fault> for DirectoryError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Final(error) => error,
            Fault::NotAsked(why) => Self::OutOfReach(why),
            Fault::Unknown(why) => Self::NoAnswer(why),
        }
    }
}

/// A connection was refused, or could not be made: the request has not left this process.
fn was_not_connected(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<tonic::ConnectError>() || cause.to_string().contains("tcp connect error"))
}
