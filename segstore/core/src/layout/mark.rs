//! A slot's mark: the first 64 bytes of a slot, written first and last by every push.
//!
//! It names the image that the push brings and the image that stood there before, and says whether the push is over. Without the
//! second writing a header that was damaged could not be told from one that was cut off: the one hides an image that may have been
//! acknowledged, the other proves that it was not.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::VERSION;
use super::checksum::Key;
use crate::id::{Epoch, Stamp, Term};

/// Bytes of a mark.
pub const BYTES: usize = 64;
const MAGIC: u32 = u32::from_le_bytes(*b"MARK");
const FORMER_KNOWN: u64 = 1;
const CLOSED: u64 = 2;

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

/// What a push is doing to a slot, or has done.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mark {
    /// The image that the push brings.
    pub image: Stamp,
    /// The image that the slot held before, where the owner knew it.
    pub former: Option<Stamp>,
    /// The push is over: everything of it stands.
    pub is_closed: bool,
}

impl Mark {
    /// The bytes to write.
    #[must_use]
    pub fn encode(&self, key: Key) -> [u8; BYTES] {
        let former = self.former.unwrap_or_default();
        let mut raw = Raw {
            magic: MAGIC.into(),
            version: VERSION.into(),
            term: self.image.term.0.into(),
            epoch: self.image.epoch.0.into(),
            former_term: former.term.0.into(),
            former_epoch: former.epoch.0.into(),
            flags: self.flags().into(),
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
            image: stamp(raw.term, raw.epoch),
            former: (raw.flags.get() & FORMER_KNOWN != 0).then(|| stamp(raw.former_term, raw.former_epoch)),
            is_closed: raw.flags.get() & CLOSED != 0,
        })
    }

    fn flags(&self) -> u64 {
        let former = if self.former.is_some() { FORMER_KNOWN } else { 0 };
        let closed = if self.is_closed { CLOSED } else { 0 };
        former | closed
    }
}

/// The version of a mark that is intact and of another version. In every version a mark has 64 bytes, the magic and the version at its
/// start and its checksum at its end.
pub(crate) fn other_version(key: Key, bytes: &[u8; BYTES]) -> Option<u32> {
    let raw: &Raw = zerocopy::transmute_ref!(bytes);
    let is_mark = raw.checksum.get() == key.structure(&bytes[..CHECKED]) && raw.magic.get() == MAGIC;
    Some(raw.version.get()).filter(|&version| is_mark && version != VERSION)
}

fn stamp(term: U64, epoch: U64) -> Stamp {
    Stamp { term: Term(term.get()), epoch: Epoch(epoch.get()) }
}
