//! What travels: four messages, and the page that both sides map. `docs/wire.md` draws them byte by byte.

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::setup::Messages;
use crate::{Error, ErrorKind, Result, Rights};

/// The version of all of it.
pub const VERSION: u16 = 1;
const MESSAGES: Messages = Messages { provider: "shm", version: VERSION };
/// The most regions of one peer: their descriptors travel in one message, and Linux allows 253.
pub const MAX_GRANTS: usize = 64;
/// The longest socket address (the system's own limit).
pub const MAX_ADDRESS: usize = 107;
/// The longest message on the socket.
pub const MAX_MESSAGE: usize = size_of::<WelcomeHeader>() + MAX_GRANTS * size_of::<WelcomeGrant>();

/// What opens the socket to one peer.
pub type Token = [u8; 16];

/// Initiator to target, over the control channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Hello {
    magic: [u8; 4],
    version: U16,
    reserved: U16,
    /// Both sides must run under one kernel, and in one boot of it.
    pub boot: [u8; 16],
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ReplyHeader {
    magic: [u8; 4],
    version: U16,
    address_len: U16,
    token: Token,
}

/// Target to initiator, over the control channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What to present on the socket.
    pub token: Token,
    /// The socket: a path, or an abstract name after a zero byte.
    pub address: Vec<u8>,
}

/// Initiator to target, first on the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Knock {
    magic: [u8; 4],
    version: U16,
    reserved: U16,
    /// From the reply.
    pub token: Token,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WelcomeHeader {
    magic: [u8; 4],
    version: U16,
    count: U16,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WelcomeGrant {
    offset: U64,
    len: U64,
    rights: u8,
    reserved: [u8; 7],
}

/// One region of a welcome; its descriptor travels beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcomed {
    /// Where the region starts in the file, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// What may be done with it.
    pub rights: Rights,
}

const _: () = assert!(size_of::<Hello>() == 24, "a message's size is part of the format");
const _: () = assert!(size_of::<ReplyHeader>() == 24, "a message's size is part of the format");
const _: () = assert!(size_of::<Knock>() == 24, "a message's size is part of the format");
const _: () = assert!(size_of::<WelcomeHeader>() == 8, "a message's size is part of the format");
const _: () = assert!(size_of::<WelcomeGrant>() == 24, "a message's size is part of the format");

impl Hello {
    const MAGIC: [u8; 4] = *b"SHMh";

    /// A hello of this version.
    pub fn new(boot: [u8; 16]) -> Hello {
        Hello { magic: Hello::MAGIC, version: VERSION.into(), reserved: 0.into(), boot }
    }

    /// Checks a peer's bytes.
    ///
    /// # Errors
    /// `Protocol` or `Incompatible`.
    pub fn parse(bytes: &[u8]) -> Result<Hello> {
        let hello = Hello::read_from_bytes(bytes).map_err(|_| MESSAGES.length("hello", bytes))?;
        MESSAGES.check("hello", (hello.magic, Hello::MAGIC), hello.version.get())?;
        Ok(hello)
    }
}

impl Reply {
    const MAGIC: [u8; 4] = *b"SHMr";

    /// The bytes of a reply of this version.
    pub fn encode(&self) -> Vec<u8> {
        let address_len = u16::try_from(self.address.len()).unwrap_or(u16::MAX).into();
        let header = ReplyHeader { magic: Reply::MAGIC, version: VERSION.into(), address_len, token: self.token };
        [header.as_bytes(), &self.address].concat()
    }

    /// Checks a peer's bytes.
    ///
    /// # Errors
    /// `Protocol` or `Incompatible`.
    pub fn parse(bytes: &[u8]) -> Result<Reply> {
        let (header, address) = ReplyHeader::read_from_prefix(bytes).map_err(|_| MESSAGES.length("reply", bytes))?;
        MESSAGES.check("reply", (header.magic, Reply::MAGIC), header.version.get())?;
        if address.len() != usize::from(header.address_len.get()) || !(2..=MAX_ADDRESS).contains(&address.len()) {
            return Err(MESSAGES.length("reply", bytes));
        }
        Ok(Reply { token: header.token, address: address.to_vec() })
    }
}

impl Knock {
    const MAGIC: [u8; 4] = *b"SHMk";

    /// A knock of this version.
    pub fn new(token: Token) -> Knock {
        Knock { magic: Knock::MAGIC, version: VERSION.into(), reserved: 0.into(), token }
    }

    /// Checks a peer's bytes.
    ///
    /// # Errors
    /// `Protocol` or `Incompatible`.
    pub fn parse(bytes: &[u8]) -> Result<Knock> {
        let knock = Knock::read_from_bytes(bytes).map_err(|_| MESSAGES.length("knock", bytes))?;
        MESSAGES.check("knock", (knock.magic, Knock::MAGIC), knock.version.get())?;
        Ok(knock)
    }
}

const WELCOME: [u8; 4] = *b"SHMw";

/// The bytes of the target's answer on the socket.
pub fn encode_welcome(grants: &[Welcomed]) -> Vec<u8> {
    let count = u16::try_from(grants.len()).unwrap_or(u16::MAX).into();
    let mut bytes = WelcomeHeader { magic: WELCOME, version: VERSION.into(), count }.as_bytes().to_vec();
    for grant in grants {
        let (offset, len, rights) = (grant.offset.into(), grant.len.into(), grant.rights.bits());
        bytes.extend_from_slice(WelcomeGrant { offset, len, rights, reserved: [0; 7] }.as_bytes());
    }
    bytes
}

/// Checks a target's answer.
///
/// # Errors
/// `Protocol` or `Incompatible`.
pub fn parse_welcome(bytes: &[u8]) -> Result<Vec<Welcomed>> {
    let (header, rest) = WelcomeHeader::read_from_prefix(bytes).map_err(|_| MESSAGES.length("welcome", bytes))?;
    MESSAGES.check("welcome", (header.magic, WELCOME), header.version.get())?;
    let count = usize::from(header.count.get());
    if !(1..=MAX_GRANTS).contains(&count) || rest.len() != count * size_of::<WelcomeGrant>() {
        return Err(MESSAGES.length("welcome", bytes));
    }
    let grants = <[WelcomeGrant]>::ref_from_bytes(rest).map_err(|_| MESSAGES.length("welcome", bytes))?;
    grants.iter().map(check_grant).collect()
}

fn check_grant(grant: &WelcomeGrant) -> Result<Welcomed> {
    let (offset, len) = (grant.offset.get(), grant.len.get());
    let rights = Rights::from_bits(grant.rights);
    match (rights, offset.checked_add(len)) {
        (Some(rights), Some(end)) if len > 0 && i64::try_from(end).is_ok() => Ok(Welcomed { offset, len, rights }),
        _ => Err(Error::operation(
            ErrorKind::Protocol,
            format!("a welcome grants {len} bytes at {offset} with rights {:#x}: the target is broken", grant.rights),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_bytes() {
        let mut hello = b"SHMh\x01\0\0\0".to_vec();
        hello.extend([7; 16]);
        assert_eq!(Hello::new([7; 16]).as_bytes(), hello);
        let mut reply = b"SHMr\x01\0\x05\0".to_vec();
        reply.extend([9; 16]);
        reply.extend(b"\0name");
        assert_eq!(Reply { token: [9; 16], address: b"\0name".to_vec() }.encode(), reply);
        let mut knock = b"SHMk\x01\0\0\0".to_vec();
        knock.extend([9; 16]);
        assert_eq!(Knock::new([9; 16]).as_bytes(), knock);
        let welcome = encode_welcome(&[Welcomed { offset: 4096, len: 0x0102, rights: Rights::WRITE }]);
        assert_eq!(welcome, b"SHMw\x01\0\x01\0\0\x10\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..5usize) {
            let mut bytes = bytes;
            // Half of the way in, so that more than the magic is tried.
            let starts: [&[u8]; 5] = [b"", b"SHMh\x01\0", b"SHMr\x01\0", b"SHMk\x01\0", b"SHMw\x01\0"];
            bytes.splice(0..0, starts[kind].iter().copied());
            let _ = Hello::parse(&bytes);
            let _ = Knock::parse(&bytes);
            if let Ok(reply) = Reply::parse(&bytes) {
                prop_assert_eq!(reply.encode(), bytes.clone());
            }
            if let Ok(grants) = parse_welcome(&bytes) {
                prop_assert!(grants.iter().all(|grant| grant.offset.checked_add(grant.len).is_some()));
            }
        }
    }
}
