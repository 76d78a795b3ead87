//! The frames, and the two messages of the set-up. `docs/wire.md` draws them byte by byte.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Error, ErrorKind, Result, Rights};

/// The version of all of it.
pub const VERSION: u16 = 1;
/// The most bytes of a frame after its header.
pub const MAX_PAYLOAD: usize = 4096;
/// The most regions of one peer.
pub const MAX_GRANTS: usize = 64;

const MAGIC: u8 = 0x5e;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: u8,
    kind: u8,
    grant: U16,
    payload_len: U32,
    offset: U64,
    first: U64,
    second: U64,
}

const _: () = assert!(size_of::<Header>() == 32, "a frame's header is part of the format");

/// What travels: requests to the target, answers to the initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'b> {
    /// Request: put the bytes there.
    Write {
        /// Which granted region.
        grant: u16,
        /// The offset in it.
        offset: u64,
        /// The bytes.
        bytes: &'b [u8],
    },
    /// Request: send bytes from there.
    Read {
        /// Which granted region.
        grant: u16,
        /// The offset in it.
        offset: u64,
        /// How many, at most [`MAX_PAYLOAD`].
        len: u64,
    },
    /// Request: tell the target.
    Notify {
        /// This.
        value: u64,
    },
    /// Request: compare and swap.
    CompareSwap {
        /// Which granted region.
        grant: u16,
        /// The offset in it.
        offset: u64,
        /// What must be there.
        expected: u64,
        /// What shall be there.
        new: u64,
    },
    /// Request: answer `Done` when all of the batch has taken effect.
    End,
    /// Answer to a read.
    Data {
        /// The bytes.
        bytes: &'b [u8],
    },
    /// Answer to a compare and swap.
    Word {
        /// What was there.
        was: u64,
    },
    /// Answer to the end of a batch.
    Done,
    /// The connection is over.
    Refused {
        /// Why; an unknown reason is carried.
        reason: u64,
    },
}

/// Reasons of `Refused`.
pub mod reason {
    /// The target revoked the peer.
    pub const REVOKED: u64 = 1;
    /// The frame asks for what was not granted.
    pub const DENIED: u64 = 2;
    /// The frame makes no sense.
    pub const MALFORMED: u64 = 3;
}

impl<'b> Frame<'b> {
    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, grant, offset, first, second, payload): (u8, u16, u64, u64, u64, &[u8]) = match *self {
            Frame::Write { grant, offset, bytes } => (1, grant, offset, 0, 0, bytes),
            Frame::Read { grant, offset, len } => (2, grant, offset, len, 0, &[]),
            Frame::Notify { value } => (3, 0, 0, value, 0, &[]),
            Frame::CompareSwap { grant, offset, expected, new } => (4, grant, offset, expected, new, &[]),
            Frame::End => (5, 0, 0, 0, 0, &[]),
            Frame::Data { bytes } => (17, 0, 0, 0, 0, bytes),
            Frame::Word { was } => (18, 0, 0, was, 0, &[]),
            Frame::Done => (19, 0, 0, 0, 0, &[]),
            Frame::Refused { reason } => (20, 0, 0, reason, 0, &[]),
        };
        let header = Header {
            magic: MAGIC,
            kind,
            grant: grant.into(),
            payload_len: u32::try_from(payload.len()).unwrap_or(u32::MAX).into(),
            offset: offset.into(),
            first: first.into(),
            second: second.into(),
        };
        [header.as_bytes(), payload].concat()
    }

    /// Checks a peer's bytes: one whole frame.
    ///
    /// # Errors
    /// `Protocol` with what is wrong.
    pub fn parse(bytes: &'b [u8]) -> Result<Frame<'b>> {
        let (header, payload) = Header::ref_from_prefix(bytes).map_err(|_| wrong(&format!("{} bytes", bytes.len())))?;
        if header.magic != MAGIC {
            return Err(wrong(&format!("magic {:#x}", header.magic)));
        }
        if payload.len() as u64 != u64::from(header.payload_len) || payload.len() > MAX_PAYLOAD {
            let says = header.payload_len;
            return Err(wrong(&format!("a payload of {} bytes, announced as {says}", payload.len())));
        }
        let (grant, offset) = (header.grant.get(), header.offset.get());
        let (first, second) = (header.first.get(), header.second.get());
        let frame = match header.kind {
            1 => Frame::Write { grant, offset, bytes: payload },
            2 if first <= MAX_PAYLOAD as u64 => Frame::Read { grant, offset, len: first },
            3 => Frame::Notify { value: first },
            4 => Frame::CompareSwap { grant, offset, expected: first, new: second },
            5 => Frame::End,
            17 => Frame::Data { bytes: payload },
            18 => Frame::Word { was: first },
            19 => Frame::Done,
            20 => Frame::Refused { reason: first },
            kind => return Err(wrong(&format!("kind {kind} with length {first}"))),
        };
        if !payload.is_empty() && !matches!(frame, Frame::Write { .. } | Frame::Data { .. }) {
            return Err(wrong(&format!("kind {} with a payload", header.kind)));
        }
        Ok(frame)
    }
}

fn wrong(what: &str) -> Error {
    Error::endpoint(ErrorKind::Protocol, format!("a sim frame of {what}: the peer is broken"))
}

/// Initiator to target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Hello {
    magic: [u8; 4],
    version: U16,
    reserved: U16,
    world: U64,
    node: U64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ReplyHeader {
    magic: [u8; 4],
    version: U16,
    count: U16,
    link: U64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ReplyGrant {
    len: U64,
    rights: u8,
    reserved: [u8; 7],
}

const _: () = assert!(size_of::<Hello>() == 24, "a message's size is part of the format");
const _: () = assert!(size_of::<ReplyHeader>() == 16, "a message's size is part of the format");
const _: () = assert!(size_of::<ReplyGrant>() == 16, "a message's size is part of the format");

impl Hello {
    const MAGIC: [u8; 4] = *b"SIMh";

    /// A hello of this version.
    pub fn new(world: u64, node: u64) -> Hello {
        Hello {
            magic: Hello::MAGIC,
            version: VERSION.into(),
            reserved: 0.into(),
            world: world.into(),
            node: node.into(),
        }
    }

    /// Checks a peer's bytes; gives the world and the node.
    ///
    /// # Errors
    /// `Protocol`.
    pub fn parse(bytes: &[u8]) -> Result<(u64, u64)> {
        match Hello::read_from_bytes(bytes) {
            Ok(hello) if hello.magic == Hello::MAGIC && hello.version.get() == VERSION => {
                Ok((hello.world.get(), hello.node.get()))
            }
            _ => Err(Error::operation(ErrorKind::Protocol, format!("{} bytes that are no sim hello", bytes.len()))),
        }
    }
}

/// Target to initiator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The connection.
    pub link: u64,
    /// Length and rights of each granted region.
    pub grants: Vec<(u64, Rights)>,
}

impl Reply {
    const MAGIC: [u8; 4] = *b"SIMr";

    /// The bytes of a reply of this version.
    pub fn encode(&self) -> Vec<u8> {
        let count = u16::try_from(self.grants.len()).unwrap_or(u16::MAX).into();
        let header = ReplyHeader { magic: Reply::MAGIC, version: VERSION.into(), count, link: self.link.into() };
        let mut bytes = header.as_bytes().to_vec();
        for (len, rights) in &self.grants {
            let grant = ReplyGrant { len: (*len).into(), rights: rights.bits(), reserved: [0; 7] };
            bytes.extend_from_slice(grant.as_bytes());
        }
        bytes
    }

    /// Checks a peer's bytes.
    ///
    /// # Errors
    /// `Protocol`.
    pub fn parse(bytes: &[u8]) -> Result<Reply> {
        let no = || Error::operation(ErrorKind::Protocol, format!("{} bytes that are no sim reply", bytes.len()));
        let (header, rest) = ReplyHeader::read_from_prefix(bytes).map_err(|_| no())?;
        let count = usize::from(header.count.get());
        if header.magic != Reply::MAGIC || header.version.get() != VERSION || !(1..=MAX_GRANTS).contains(&count) {
            return Err(no());
        }
        let grants = <[ReplyGrant]>::ref_from_bytes(rest).map_err(|_| no())?;
        if grants.len() != count {
            return Err(no());
        }
        let check = |grant: &ReplyGrant| Some((grant.len.get(), Rights::from_bits(grant.rights)?));
        let grants = grants.iter().map(check).collect::<Option<Vec<_>>>().ok_or_else(no)?;
        Ok(Reply { link: header.link.get(), grants })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_bytes() {
        let write = Frame::Write { grant: 2, offset: 0x0102, bytes: b"ab" };
        let golden = b"\x5e\x01\x02\0\x02\0\0\0\x02\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0ab";
        assert_eq!(write.encode(), golden);
        let swap = Frame::CompareSwap { grant: 1, offset: 8, expected: 3, new: 4 };
        let golden = b"\x5e\x04\x01\0\0\0\0\0\x08\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0";
        assert_eq!(swap.encode(), golden);
        let hello = Hello::new(1, 2);
        assert_eq!(hello.as_bytes(), b"SIMh\x01\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
        let reply = Reply { link: 3, grants: vec![(4096, Rights::ALL)] };
        assert_eq!(reply.encode(), b"SIMr\x01\0\x01\0\x03\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\x07\0\0\0\0\0\0\0");
    }

    fn frame(bytes: &[u8]) -> impl Strategy<Value = Frame<'_>> {
        let (grant, offset, word) = (any::<u16>(), any::<u64>(), any::<u64>());
        prop_oneof![
            (grant, offset).prop_map(move |(grant, offset)| Frame::Write { grant, offset, bytes }),
            (any::<u16>(), any::<u64>(), 0..=MAX_PAYLOAD as u64).prop_map(|(grant, offset, len)| Frame::Read {
                grant,
                offset,
                len
            }),
            word.prop_map(|value| Frame::Notify { value }),
            (any::<u16>(), any::<u64>(), any::<u64>(), any::<u64>())
                .prop_map(|(grant, offset, expected, new)| Frame::CompareSwap { grant, offset, expected, new }),
            Just(Frame::End),
            Just(Frame::Data { bytes }),
            any::<u64>().prop_map(|was| Frame::Word { was }),
            Just(Frame::Done),
            any::<u64>().prop_map(|reason| Frame::Refused { reason }),
        ]
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(frame in frame(b"some bytes")) {
            let bytes = frame.encode();
            prop_assert_eq!(Frame::parse(&bytes).expect("a whole frame"), frame);
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            kind in 0..32u8,
            exact in any::<bool>(),
        ) {
            let mut bytes = bytes;
            if bytes.len() >= 32 {
                // Half of the way in, so that more than the magic is tried.
                let len = u32::try_from(bytes.len() - 32).expect("short");
                (bytes[0], bytes[1]) = (MAGIC, kind);
                if exact {
                    bytes[4..8].copy_from_slice(&len.to_le_bytes());
                }
            }
            let _ = Frame::parse(&bytes);
            let _ = Hello::parse(&bytes);
            let _ = Reply::parse(&bytes);
            bytes.splice(0..0, *b"SIMr\x01\0");
            let _ = Reply::parse(&bytes);
        }
    }
}
