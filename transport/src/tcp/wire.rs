//! What travels: hello and reply over the control channel; then, on the connection, a knock, and frames with heads of
//! 16 bytes in both directions. `docs/wire.md` draws them byte by byte.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::fault::Fault;
use crate::setup::Messages;
use crate::{Error, ErrorKind, Result, Rights};

/// The version of all of it.
pub const VERSION: u16 = 1;
const MESSAGES: Messages = Messages { provider: "tcp", version: VERSION };
/// The most regions of one peer.
pub const MAX_GRANTS: usize = 64;
/// The most addresses of a reply.
pub const MAX_ADDRESSES: usize = 8;
/// The longest payload of a frame in bytes; longer transfers are split.
pub const MAX_PAYLOAD: u32 = 1 << 30;
/// What every frame starts with.
pub const MARK: u8 = 0x7c;
/// The flag of a batch's last request: it is answered by `DONE`.
pub const LAST: u8 = 1;

/// What opens a connection, once.
pub type Token = [u8; 16];
/// An Ed25519 public key.
pub type PublicKey = [u8; 32];

/// The kinds of frames: requests below 16, answers from there on.
pub mod kind {
    /// Payload to the target's memory.
    pub const WRITE: u8 = 1;
    /// Asks for bytes of the target's memory.
    pub const READ: u8 = 2;
    /// Delivers a value.
    pub const NOTIFY: u8 = 3;
    /// Replaces a word under a condition.
    pub const COMPARE_SWAP: u8 = 4;
    /// Does nothing: a batch that only flushes needs a last request too.
    pub const FLUSH: u8 = 5;
    /// The knock was right: what is granted.
    pub const WELCOME: u8 = 16;
    /// Answers a read.
    pub const DATA: u8 = 17;
    /// Answers a compare and swap.
    pub const WORD: u8 = 18;
    /// So many batches are done.
    pub const DONE: u8 = 19;
    /// Why the connection ends.
    pub const REFUSED: u8 = 20;
}

/// Initiator to target, over the control channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Hello {
    magic: [u8; 4],
    version: U16,
    /// 1: the target is to send everything else first.
    yields: u8,
    reserved: u8,
}

/// Initiator to target, first on the connection.
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
struct ReplyHeader {
    magic: [u8; 4],
    version: U16,
    count: u8,
    /// 1: a public key is the last.
    encrypted: u8,
    token: Token,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Address {
    ip: [u8; 16],
    scope: U32,
    port: U16,
    reserved: U16,
}

/// Target to initiator, over the control channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What to present on the connection.
    pub token: Token,
    /// Where to connect: the first that answers.
    pub addresses: Vec<SocketAddr>,
    /// The connection is TLS, and this is the target's key.
    pub key: Option<PublicKey>,
}

/// What every frame starts with, in both directions. The meaning of the fields is the kind's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Head {
    /// Always [`MARK`].
    pub mark: u8,
    /// One of [`kind`].
    pub kind: u8,
    /// [`LAST`], or the reason of a refusal.
    pub flags: u8,
    /// Which of the granted regions.
    pub grant: u8,
    /// A length in bytes: of the payload, or of what is asked for.
    pub len: U32,
    /// An offset or a value.
    pub value: U64,
}

/// The payload of a compare and swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Swap {
    /// What the target must hold.
    pub expected: U64,
    /// What it shall hold.
    pub new: U64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WelcomeGrant {
    len: U64,
    rights: u8,
    reserved: [u8; 7],
}

/// The length of a head.
pub const HEAD: usize = size_of::<Head>();
/// The length of a welcome's payload for each grant.
pub const GRANT: usize = size_of::<WelcomeGrant>();
/// The length of a compare and swap's payload.
pub const SWAP: usize = size_of::<Swap>();

const _: () = assert!(size_of::<Hello>() == 8, "a message's size is part of the format");
const _: () = assert!(size_of::<Knock>() == 24, "a message's size is part of the format");
const _: () = assert!(size_of::<ReplyHeader>() == 24, "a message's size is part of the format");
const _: () = assert!(size_of::<Address>() == 24, "a message's size is part of the format");
const _: () = assert!(HEAD == 16, "a message's size is part of the format");
const _: () = assert!(GRANT == 16, "a message's size is part of the format");
const _: () = assert!(SWAP == 16, "a message's size is part of the format");

impl Hello {
    const MAGIC: [u8; 4] = *b"TCPh";

    /// A hello of this version.
    pub fn new() -> Hello {
        Hello { magic: Hello::MAGIC, version: VERSION.into(), yields: 0, reserved: 0 }
    }

    /// What the target sends over this connection goes behind all else that it sends.
    pub fn set_yields(&mut self) {
        self.yields = 1;
    }

    /// Whether it is to.
    pub fn yields(&self) -> bool {
        self.yields == 1
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

impl Default for Hello {
    fn default() -> Hello {
        Hello::new()
    }
}

impl Knock {
    const MAGIC: [u8; 4] = *b"TCPk";
    /// How a TLS record of a handshake starts.
    const TLS: [u8; 2] = [22, 3];

    /// A knock of this version.
    pub fn new(token: Token) -> Knock {
        Knock { magic: Knock::MAGIC, version: VERSION.into(), reserved: 0.into(), token }
    }

    /// Checks a stranger's bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(bytes: &[u8; size_of::<Knock>()]) -> std::result::Result<Knock, Fault> {
        let knock: Knock = zerocopy::transmute!(*bytes);
        if knock.magic.starts_with(&Knock::TLS) {
            return Err(Fault::Encrypted);
        }
        if knock.magic != Knock::MAGIC {
            return Err(Fault::Magic { got: u32::from_le_bytes(knock.magic) });
        }
        if knock.version.get() != VERSION {
            return Err(Fault::Version { got: knock.version.get() });
        }
        Ok(knock)
    }
}

impl Reply {
    const MAGIC: [u8; 4] = *b"TCPr";

    /// The bytes of a reply of this version.
    pub fn encode(&self) -> Vec<u8> {
        let count = u8::try_from(self.addresses.len()).unwrap_or(u8::MAX);
        let (version, encrypted) = (VERSION.into(), u8::from(self.key.is_some()));
        let header = ReplyHeader { magic: Reply::MAGIC, version, count, encrypted, token: self.token };
        let mut bytes = header.as_bytes().to_vec();
        for address in &self.addresses {
            bytes.extend_from_slice(Address::from(address).as_bytes());
        }
        bytes.extend(self.key.iter().flatten());
        bytes
    }

    /// Checks a peer's bytes.
    ///
    /// # Errors
    /// `Protocol` or `Incompatible`.
    pub fn parse(bytes: &[u8]) -> Result<Reply> {
        let (header, rest) = ReplyHeader::read_from_prefix(bytes).map_err(|_| wrong_length(bytes))?;
        MESSAGES.check("reply", (header.magic, Reply::MAGIC), header.version.get())?;
        let (rest, key) = match header.encrypted {
            0 => (rest, None),
            1 => rest.split_last_chunk().map(|(rest, key)| (rest, Some(*key))).ok_or_else(|| wrong_length(bytes))?,
            other => {
                let text = format!("a tcp reply says {other} about encryption: the target is broken");
                return Err(Error::operation(ErrorKind::Protocol, text));
            }
        };
        let count = usize::from(header.count);
        if !(1..=MAX_ADDRESSES).contains(&count) || rest.len() != count * size_of::<Address>() {
            return Err(wrong_length(bytes));
        }
        let addresses = <[Address]>::ref_from_bytes(rest).map_err(|_| wrong_length(bytes))?;
        Ok(Reply { token: header.token, addresses: addresses.iter().map(Address::socket).collect(), key })
    }
}

fn wrong_length(reply: &[u8]) -> Error {
    MESSAGES.length("reply", reply)
}

impl From<&SocketAddr> for Address {
    fn from(socket: &SocketAddr) -> Address {
        let (ip, scope) = match socket {
            SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
            SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
        };
        Address { ip: ip.octets(), scope: scope.into(), port: socket.port().into(), reserved: 0.into() }
    }
}

impl Address {
    fn socket(&self) -> SocketAddr {
        let ip = Ipv6Addr::from(self.ip);
        match ip.to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), self.port.get()),
            None => SocketAddrV6::new(ip, self.port.get(), 0, self.scope.get()).into(),
        }
    }
}

impl Head {
    /// A head of a kind, everything else zero.
    pub fn new(kind: u8) -> Head {
        Head { mark: MARK, kind, flags: 0, grant: 0, len: 0.into(), value: 0.into() }
    }

    /// The same with a place and a length.
    #[must_use]
    pub fn at(mut self, grant: u8, len: u32, offset: u64) -> Head {
        (self.grant, self.len, self.value) = (grant, len.into(), offset.into());
        self
    }

    /// The same with a value.
    #[must_use]
    pub fn valued(mut self, value: u64) -> Head {
        self.value = value.into();
        self
    }

    /// Whether a target answers `DONE` after it.
    pub fn is_last(&self) -> bool {
        self.flags & LAST != 0
    }

    /// Checks a request: mark, kind, flags and length. Whether place and right are granted is to be seen.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_request(&self) -> std::result::Result<(), Fault> {
        if self.mark != MARK {
            return Err(Fault::Mark { got: self.mark });
        }
        let len = self.len.get();
        let fits = match self.kind {
            kind::WRITE | kind::READ => (1..=MAX_PAYLOAD).contains(&len),
            kind::NOTIFY | kind::FLUSH => len == 0,
            kind::COMPARE_SWAP => len as usize == SWAP,
            other => return Err(Fault::Kind { got: other }),
        };
        if !fits {
            return Err(Fault::Length { kind: self.kind, got: len });
        }
        if self.flags & !LAST != 0 {
            return Err(Fault::Flags { kind: self.kind, got: self.flags });
        }
        Ok(())
    }
}

/// The payload of a welcome.
pub fn encode_grants(grants: impl Iterator<Item = (u64, Rights)>) -> Vec<u8> {
    let pack = |(len, rights): (u64, Rights)| WelcomeGrant { len: len.into(), rights: rights.bits(), reserved: [0; 7] };
    grants.flat_map(|grant| pack(grant).as_bytes().to_vec()).collect()
}

/// Checks the payload of a welcome.
///
/// # Errors
/// `Protocol`.
pub fn parse_grants(bytes: &[u8]) -> Result<Vec<(u64, Rights)>> {
    let grants = <[WelcomeGrant]>::ref_from_bytes(bytes).map_err(|_| MESSAGES.length("welcome", bytes))?;
    if !(1..=MAX_GRANTS).contains(&grants.len()) {
        return Err(MESSAGES.length("welcome", bytes));
    }
    let check = |grant: &WelcomeGrant| match Rights::from_bits(grant.rights) {
        Some(rights) if grant.len.get() > 0 && i64::try_from(grant.len.get()).is_ok() => Ok((grant.len.get(), rights)),
        _ => Err(Error::operation(
            ErrorKind::Protocol,
            format!("a welcome grants {} bytes with rights {:#x}: the target is broken", grant.len, grant.rights),
        )),
    };
    grants.iter().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_bytes() {
        assert_eq!(Hello::new().as_bytes(), b"TCPh\x01\0\0\0");
        let mut yields = Hello::new();
        yields.set_yields();
        assert_eq!(yields.as_bytes(), b"TCPh\x01\0\x01\0");
        assert!(Hello::parse(yields.as_bytes()).unwrap().yields() && !Hello::new().yields());
        let mut knock = b"TCPk\x01\0\0\0".to_vec();
        knock.extend([9; 16]);
        assert_eq!(Knock::new([9; 16]).as_bytes(), knock);
        let mut reply = b"TCPr\x01\0\x02\0".to_vec();
        reply.extend([9; 16]);
        reply.extend(b"\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\x01\0\0\0\0\x39\x05\0\0");
        reply.extend(b"\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\x03\0\0\0\x01\x02\0\0");
        let scoped = SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2), 0x0201, 0, 3);
        let addresses = vec![SocketAddr::from(([127, 0, 0, 1], 1337)), scoped.into()];
        let plain = Reply { token: [9; 16], addresses, key: None };
        assert_eq!(plain.encode(), reply);
        reply[7] = 1;
        reply.extend([5; 32]);
        let encrypted = Reply { key: Some([5; 32]), ..plain };
        assert_eq!(encrypted.encode(), reply);
        assert_eq!(Reply::parse(&reply).unwrap(), encrypted);
        assert!(Reply::parse(&reply[..72]).is_err(), "a reply cannot lose its key");
        reply[7] = 2;
        assert_eq!(Reply::parse(&reply).unwrap_err().kind(), ErrorKind::Protocol);
        let write = Head { flags: LAST, ..Head::new(kind::WRITE).at(2, 0x0102, 0x0304) };
        assert_eq!(write.as_bytes(), b"\x7c\x01\x01\x02\x02\x01\0\0\x04\x03\0\0\0\0\0\0");
        let swap = Swap { expected: 1.into(), new: 2.into() };
        assert_eq!(swap.as_bytes(), b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
        let grants = encode_grants([(0x0102, Rights::WRITE)].into_iter());
        assert_eq!(grants, b"\x02\x01\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
        assert_eq!(Head::new(kind::DONE).at(0, 7, 9).as_bytes(), b"\x7c\x13\0\0\x07\0\0\0\x09\0\0\0\0\0\0\0");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..4usize) {
            let mut bytes = bytes;
            // Half of the way in, so that more than the magic is tried.
            let starts: [&[u8]; 4] = [b"", b"TCPh\x01\0", b"TCPr\x01\0", b"TCPk\x01\0"];
            bytes.splice(0..0, starts[kind].iter().copied());
            let _ = Hello::parse(&bytes);
            if let Some(knock) = bytes.first_chunk() {
                let _ = Knock::parse(knock);
            }
            if let Ok(grants) = parse_grants(&bytes) {
                prop_assert!(grants.iter().all(|(len, _)| *len > 0));
            }
            if let Ok(reply) = Reply::parse(&bytes) {
                prop_assert_eq!(Reply::parse(&reply.encode()).unwrap(), reply);
            }
        }

        #[test]
        fn any_head_is_a_request_or_a_fault(mut bytes in any::<[u8; HEAD]>(), marked: bool, kind in 0..8u8, near: bool) {
            if marked {
                bytes[0] = MARK;
            }
            if near {
                (bytes[1], bytes[2]) = (kind, bytes[2] & LAST);
            }
            let head: Head = zerocopy::transmute!(bytes);
            match head.check_request() {
                Ok(()) => prop_assert!(head.mark == MARK && (1..=5).contains(&head.kind) && head.flags <= LAST),
                Err(fault) => prop_assert_eq!(Fault::from_head(&fault.to_head()), Some(fault)),
            }
        }
    }
}
