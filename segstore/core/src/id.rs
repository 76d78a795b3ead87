//! What things are called. Identifiers are random and 128 bits wide; terms and epochs count.
//!
//! In messages an identifier is 32 hexadecimal digits.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Text that is no identifier.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no identifier: one is 32 hexadecimal digits")]
pub struct IdError(String);

fn identifier(text: &str) -> Result<u128, IdError> {
    let is_whole = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = is_whole.then(|| u128::from_str_radix(text, 16).ok()).flatten();
    number.ok_or_else(|| IdError(text.to_owned()))
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u128);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                identifier(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<str>::deserialize(deserializer)?;
                identifier(&text).map(Self).map_err(D::Error::custom)
            }
        }
    };
}

identifier! {
    /// A segment's life, from creation to unlink. A name can be used again; this cannot.
    SegmentId
}
identifier! {
    /// One process's ownership of a segment. The same process that takes over again is a new owner.
    OwnerId
}
identifier! {
    /// A node of the cluster.
    NodeId
}
identifier! {
    /// One life of a replica's memory. It stands in that memory, so a node that comes back without its memory is told apart
    /// from one that comes back with it.
    Incarnation
}

/// The number of an ownership; every takeover raises it. Zero: nobody has owned the segment yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Term(pub u64);

/// The number of a checkpoint; rises in a segment's life, may skip. Zero: the empty image that every segment starts from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl OwnerId {
    /// Above a caretaker's own 64 bits. The bits of others are random: none has these.
    const CARETAKER: u128 = (u64::MAX as u128) << 64;

    /// A caretaker, as which a node owns a segment for which no application runs, to restore its replicas. It makes no checkpoint, and is no
    /// rival: see [`Takeover`](crate::takeover::Takeover). `number` was never used before.
    #[must_use]
    pub const fn caretaker(number: u64) -> Self {
        Self(Self::CARETAKER | number as u128)
    }

    /// Whether it is one.
    #[must_use]
    pub const fn is_caretaker(self) -> bool {
        self.0 & Self::CARETAKER == Self::CARETAKER
    }
}

impl Term {
    /// The term that a takeover of this one claims; the last one is its own successor, and cannot be claimed.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Epoch {
    /// The number after this one; the last one is its own successor, and is never attempted.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What orders images: the term first, then the epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// The ownership that made the image.
    pub term: Term,
    /// Its number within the segment's life.
    pub epoch: Epoch,
}

impl Stamp {
    /// The empty image that a freshly formatted replica holds.
    pub const EMPTY: Self = Self { term: Term(0), epoch: Epoch(0) };

    /// An image's stamp.
    #[must_use]
    pub const fn new(term: u64, epoch: u64) -> Self {
        Self { term: Term(term), epoch: Epoch(epoch) }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {} of term {}", self.epoch, self.term)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.epoch)
    }
}

/// A replica as the in-sync set names it: a place and the life of the memory there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Member {
    /// The node that holds the memory.
    pub node: NodeId,
    /// The life of that memory.
    pub incarnation: Incarnation,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica {} on node {}", self.incarnation, self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_32_hexadecimal_digits() {
        let node = NodeId(0xab << 100);
        assert_eq!(node.to_string().parse(), Ok(node));
        for wrong in ["", "ab", "+0000000000000000000000000000001", "0000000000000000000000000000000g"] {
            assert_eq!(wrong.parse::<NodeId>(), Err(IdError(wrong.to_owned())));
        }
    }
}
