//! A slot's open mark: the first 64 bytes of a slot, written first by every push.
//!
//! It names the image that the push brings and the image that stood there before. A slot is *closed* when its header carries the
//! stamp that the mark names; until then it is *open*. The mark and the former stamp stand in one cache line of their own, so
//! that they survive whatever happens to the header.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::VERSION;
use super::checksum::Key;
use crate::id::{Epoch, Stamp, Term};

/// Bytes of a mark.
pub const BYTES: usize = 64;
const MAGIC: u32 = u32::from_le_bytes(*b"MARK");
const FORMER_KNOWN: u64 = 1;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    magic: U32,
    version: U32,
    term: U64,
    epoch: U64,
    former_term: U64,
    former_epoch: U64,
    flags: U64,
    reserved: U64,
    checksum: U64,
}

const _: () =
    assert!(size_of::<Raw>() == BYTES, "a mark is one cache line: it must not tear where the fabric does not");
const CHECKED: usize = BYTES - 8;

/// What a push is about to do to a slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mark {
    /// The image that the push brings.
    pub opened_for: Stamp,
    /// The image that the slot held before, where the owner knew it.
    pub former: Option<Stamp>,
}

impl Mark {
    /// The bytes to write.
    #[must_use]
    pub fn encode(&self, key: Key) -> [u8; BYTES] {
        let former = self.former.unwrap_or_default();
        let mut raw = Raw {
            magic: MAGIC.into(),
            version: VERSION.into(),
            term: self.opened_for.term.0.into(),
            epoch: self.opened_for.epoch.0.into(),
            former_term: former.term.0.into(),
            former_epoch: former.epoch.0.into(),
            flags: if self.former.is_some() { FORMER_KNOWN.into() } else { 0.into() },
            reserved: 0.into(),
            checksum: 0.into(),
        };
        raw.checksum = key.structure(&raw.as_bytes()[..CHECKED]).into();
        zerocopy::transmute!(raw)
    }

    /// The mark in `bytes`, or `None` where they were torn, altered, or written for another segment.
    #[must_use]
    pub fn decode(key: Key, bytes: &[u8; BYTES]) -> Option<Self> {
        let raw: &Raw = zerocopy::transmute_ref!(bytes);
        let intact = raw.checksum.get() == key.structure(&bytes[..CHECKED]);
        (intact && raw.magic.get() == MAGIC && raw.version.get() == VERSION).then(|| Self {
            opened_for: stamp(raw.term, raw.epoch),
            former: (raw.flags.get() & FORMER_KNOWN != 0).then(|| stamp(raw.former_term, raw.former_epoch)),
        })
    }
}

fn stamp(term: U64, epoch: U64) -> Stamp {
    Stamp { term: Term(term.get()), epoch: Epoch(epoch.get()) }
}
