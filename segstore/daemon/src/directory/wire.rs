//! The directory's questions and answers as they travel between daemons.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Change, DirectoryError, Entry, LeaseId, Listing, Revision, Swapped, Value};

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Question {
    /// What stands under a name.
    Read(String),
    /// Everything under a prefix.
    List(String),
    /// A compare-and-swap.
    Swap {
        /// The name.
        key: String,
        /// What must stand there.
        expected: Option<Revision>,
        /// What shall.
        new: Option<Value>,
    },
    /// A lease.
    Grant(Duration),
    /// One more time.
    KeepAlive(LeaseId),
    /// Its end.
    End(LeaseId),
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Question::Read`].
    Entry(Option<Entry>),
    /// To [`Question::List`].
    Listing(Listing),
    /// To [`Question::Swap`].
    Swapped(Swapped),
    /// To [`Question::Grant`].
    Granted(LeaseId),
    /// It is done.
    Done,
}

/// What came of a question.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outcome(pub Result<Answer, DirectoryError>);

/// A watch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WatchFrom {
    /// Of which names.
    pub prefix: String,
    /// Of changes after this one.
    pub after: Revision,
}

/// One message of a watch. The first says that it stands, or why not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Watched {
    /// It stands.
    Begun,
    /// It does not.
    Failed(DirectoryError),
    /// Something changed.
    Changed(Change),
}

/// Bytes as base64.
pub(super) mod base64 {
    use segstore::control::message::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        Bytes(bytes.to_vec()).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Bytes::deserialize(deserializer).map(|bytes| bytes.0)
    }
}
