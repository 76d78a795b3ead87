//! The head of a replica: whose it is, its shape, and the highest term that it has seen.
//!
//! The term is what keeps an old owner out, over restarts of the daemon too. It stands in two lines that are written one after the
//! other: a daemon that is killed in the middle of a store leaves one whole, and damage to one line forgets nothing.

use serde::{Deserialize, Serialize};
use zerocopy::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::VERSION;
use super::checksum::Key;
use super::geometry::Geometry;
use crate::id::{Incarnation, NodeId, OwnerId, SegmentId, Term};

/// Bytes of the head: identity, then two term lines.
pub const BYTES: usize = 256;
const MAGIC: u64 = u64::from_le_bytes(*b"SEGREPL1");
const LINE: usize = 64;
const IDENTITY: usize = 2 * LINE;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    magic: U64,
    version: U32,
    block_size: U32,
    segment: U128,
    incarnation: U128,
    node: U128,
    capacity: U64,
    slots: U32,
    reserved: [u8; 44],
    checksum: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawOwnership {
    term: U64,
    owner: U128,
    reserved: [u8; 32],
    checksum: U64,
}

const _: () = assert!(size_of::<Raw>() == IDENTITY, "the identity takes two lines");
const _: () = assert!(size_of::<RawOwnership>() == LINE, "a term line is one cache line");
const _: () = assert!(IDENTITY + 2 * LINE == BYTES, "identity and term lines fill the head");

/// The highest term that a replica has seen, and whose it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Ownership {
    /// The term.
    pub term: Term,
    /// Its owner.
    pub owner: OwnerId,
}

/// What stands at the start of a replica.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReplicaHead {
    /// The segment's life that the replica belongs to.
    pub segment: SegmentId,
    /// This memory's life.
    pub incarnation: Incarnation,
    /// The node that made it.
    pub node: NodeId,
    /// The replica's shape.
    pub geometry: Geometry,
    /// The highest term seen.
    pub remembered: Ownership,
}

/// Why bytes are not the head of a replica that this version can serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeadError {
    /// Too few bytes.
    #[error("{0} bytes: a replica's head takes {BYTES}")]
    Short(usize),
    /// Something else stands there.
    #[error("no replica starts here (magic {0:#018x})")]
    Magic(u64),
    /// Written by another version.
    #[error("a replica of format version {0}; this version serves {VERSION}")]
    Version(u32),
    /// The identity fails its checksum.
    #[error("the replica's head fails its checksum")]
    Damaged,
    /// The shape is outside the limits.
    #[error("the replica's shape is impossible: {0}")]
    Geometry(#[from] super::GeometryError),
    /// Neither term line is intact: the replica no longer knows whom to keep out.
    #[error("both term lines fail their checksums: the replica no longer knows its term")]
    TermLost,
}

impl ReplicaHead {
    /// The whole head of a fresh replica.
    #[must_use]
    pub fn encode(&self) -> [u8; BYTES] {
        let key = Key::of(self.segment);
        let mut raw = Raw {
            magic: MAGIC.into(),
            version: VERSION.into(),
            block_size: self.geometry.block_size().into(),
            segment: self.segment.0.into(),
            incarnation: self.incarnation.0.into(),
            node: self.node.0.into(),
            capacity: self.geometry.capacity().into(),
            slots: self.geometry.slots().into(),
            reserved: [0; 44],
            checksum: 0.into(),
        };
        raw.checksum = key.structure(&raw.as_bytes()[..IDENTITY - 8]).into();
        let mut bytes = [0; BYTES];
        bytes[..IDENTITY].copy_from_slice(raw.as_bytes());
        for place in bytes[IDENTITY..].chunks_exact_mut(LINE) {
            place.copy_from_slice(&term_line(key, self.remembered));
        }
        bytes
    }

    /// Reads a head from memory that may hold anything.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeadError> {
        let head = bytes.get(..BYTES).ok_or(HeadError::Short(bytes.len()))?;
        let (raw, lines) = Raw::ref_from_prefix(head).map_err(|_| HeadError::Short(bytes.len()))?;
        if raw.magic.get() != MAGIC {
            return Err(HeadError::Magic(raw.magic.get()));
        }
        if raw.version.get() != VERSION {
            return Err(HeadError::Version(raw.version.get()));
        }
        let segment = SegmentId(raw.segment.get());
        let key = Key::of(segment);
        if raw.checksum.get() != key.structure(&head[..IDENTITY - 8]) {
            return Err(HeadError::Damaged);
        }
        let remembered = lines.chunks_exact(LINE).filter_map(|line| decode_term_line(key, line)).max();
        Ok(Self {
            segment,
            incarnation: Incarnation(raw.incarnation.get()),
            node: NodeId(raw.node.get()),
            geometry: Geometry::new(raw.capacity.get(), raw.block_size.get(), raw.slots.get())?,
            remembered: remembered.ok_or(HeadError::TermLost)?,
        })
    }

    /// How to store `new`: two stores, in this order, each of which must have been made before the next begins. The first goes to
    /// the line that does not hold the highest term so far. `head` is the head as it stands.
    #[must_use]
    pub fn store(segment: SegmentId, head: &[u8; BYTES], new: Ownership) -> [(usize, [u8; LINE]); 2] {
        let key = Key::of(segment);
        let (first, second) = head[IDENTITY..].split_at(LINE);
        let first_is_older = decode_term_line(key, first) < decode_term_line(key, second);
        let line = term_line(key, new);
        let places = [IDENTITY, IDENTITY + LINE];
        if first_is_older { [(places[0], line), (places[1], line)] } else { [(places[1], line), (places[0], line)] }
    }
}

fn term_line(key: Key, ownership: Ownership) -> [u8; LINE] {
    let mut raw = RawOwnership {
        term: ownership.term.0.into(),
        owner: ownership.owner.0.into(),
        reserved: [0; 32],
        checksum: 0.into(),
    };
    raw.checksum = key.structure(&raw.as_bytes()[..LINE - 8]).into();
    zerocopy::transmute!(raw)
}

fn decode_term_line(key: Key, line: &[u8]) -> Option<Ownership> {
    let raw = RawOwnership::ref_from_bytes(line).ok()?;
    let intact = raw.checksum.get() == key.structure(&line[..LINE - 8]);
    intact.then(|| Ownership { term: Term(raw.term.get()), owner: OwnerId(raw.owner.get()) })
}
