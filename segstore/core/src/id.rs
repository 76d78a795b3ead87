//! What things are called. Identifiers are random and 128 bits wide; terms and epochs count.

use std::fmt;

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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Term(pub u64);

/// The number of a checkpoint; rises in a segment's life, may skip. Zero: the empty image that every segment starts from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Epoch(pub u64);

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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
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
