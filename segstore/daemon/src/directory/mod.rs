//! What the cluster agrees on: small entries under names, changed by compare-and-swap, some of them tied to a lease.
//!
//! One trait, so that nothing else in the daemon knows where the directory lives. [`Embedded`] keeps it on one daemon's disk, and [`Remote`] is
//! what the other daemons have of it; `Etcd` (feature `etcd`) is an etcd's.

pub mod document;
pub mod embedded;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod remote;
pub(crate) mod serve;
pub mod wire;

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use serde::{Deserialize, Serialize};

pub use embedded::Embedded;
#[cfg(feature = "etcd")]
pub use etcd::Etcd;
pub use remote::Remote;

/// Counts the changes of a directory. An entry carries the revision of the change that made it what it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Revision(pub u64);

/// A lease: entries tied to it go when it is not kept alive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct LeaseId(pub u64);

/// What stands under a name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// Its bytes.
    #[serde(with = "wire::base64")]
    pub value: Vec<u8>,
    /// The change that made it.
    pub revision: Revision,
    /// The lease that it is tied to.
    pub lease: Option<LeaseId>,
}

/// What is to stand under a name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Value {
    /// Its bytes.
    #[serde(with = "wire::base64")]
    pub bytes: Vec<u8>,
    /// The lease that it is to be tied to.
    pub lease: Option<LeaseId>,
}

/// Entries at one revision.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listing {
    /// By rising name.
    pub entries: Vec<Entry>,
    /// The directory's revision when it was read: where a watch goes on.
    pub revision: Revision,
}

/// What became of a compare-and-swap.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Swapped {
    /// The change was made, at this revision.
    Made(Revision),
    /// It was not: this is what stands there.
    Conflict(Option<Entry>),
}

/// One change that a watch tells of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// The entry is now this.
    Put(Entry),
    /// The entry is gone.
    Deleted {
        /// Its name.
        key: String,
        /// The change that removed it.
        revision: Revision,
    },
}

/// Why the directory did not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum DirectoryError {
    /// Nothing was changed.
    #[error("the directory refused: {0}")]
    Refused(String),
    /// There is no room where it is kept: nothing was changed.
    #[error(
        "the directory is full ({0}): make room for `data_dir` of the daemon that keeps it; in etcd: compact, defragment, raise its quota, \
         disarm its alarm"
    )]
    Full(String),
    /// It was not asked: nothing was changed.
    #[error("the directory is out of reach: {0}")]
    OutOfReach(String),
    /// There was no answer. A change may have been made, and may still be.
    #[error("the directory gave no answer: {0}")]
    NoAnswer(String),
    /// The lease is over, or never was.
    #[error("lease {} is over: get another, and write what was tied to it again", .0.0)]
    LeaseOver(LeaseId),
    /// The changes after that revision are not kept any more.
    #[error("the changes after revision {} are not kept: list again, and watch from there", .0.0)]
    Forgotten(Revision),
}

/// Changes as they happen, in order, without a gap. When it ends, something was missed: list again.
pub type Watch = mpsc::Receiver<Change>;

/// Where the cluster's entries live.
#[async_trait]
pub trait Directory: Send + Sync {
    /// What stands under `key`.
    async fn read(&self, key: &str) -> Result<Option<Entry>, DirectoryError>;

    /// Everything whose name begins with `prefix`.
    async fn list(&self, prefix: &str) -> Result<Listing, DirectoryError>;

    /// Puts `new` (`None`: nothing) under `key`, if what stands there was made by the change `expected` (`None`: if nothing
    /// stands there). The change is durable when this returns.
    async fn compare_swap(
        &self,
        key: &str,
        expected: Option<Revision>,
        new: Option<Value>,
    ) -> Result<Swapped, DirectoryError>;

    /// Tells of every change after `after` of names that begin with `prefix`.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, DirectoryError>;

    /// A new lease that lasts `time` from now, and from each time it is kept alive.
    async fn grant(&self, time: Duration) -> Result<LeaseId, DirectoryError>;

    /// Keeps a lease alive.
    async fn keep_alive(&self, lease: LeaseId) -> Result<(), DirectoryError>;

    /// Ends a lease now, and what is tied to it. One that is over already is no error.
    async fn end(&self, lease: LeaseId) -> Result<(), DirectoryError>;
}
