//! What travels: two messages over the control channel, and one over the queue pair. `docs/wire.md` draws them byte by byte.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::setup::Messages;
use crate::{Error, ErrorKind, Result, Rights};

/// The version of all of it.
pub const VERSION: u16 = 2;
const MESSAGES: Messages = Messages { provider: "verbs", version: VERSION };
/// The most regions of one peer.
pub const MAX_GRANTS: u32 = 64;
/// Queue pairs and packets are numbered with so many bits.
const NUMBER: u32 = 0x00ff_ffff;

/// Where a queue pair is reached, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Address {
    /// The port's global address.
    pub gid: [u8; 16],
    /// Its address in an InfiniBand subnet; 0 on Ethernet.
    pub lid: U16,
    /// 1: InfiniBand. 2: Ethernet.
    pub link: u8,
    /// The longest packet that its side takes: 1 is 256 bytes, each number more doubles.
    pub mtu: u8,
    /// The queue pair's number.
    pub number: U32,
    /// The number of the first packet that comes from it.
    pub first_packet: U32,
}

/// Initiator to target, over the control channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Hello {
    magic: [u8; 4],
    version: U16,
    reserved: U16,
    /// The initiator's queue pair.
    pub address: Address,
    /// How many reads its side has in flight at most.
    pub reads: u8,
    reserved_too: [u8; 3],
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ReplyHeader {
    magic: [u8; 4],
    version: U16,
    count: U16,
    address: Address,
    reads: u8,
    reserved: [u8; 3],
    answers: U32,
    taken_key: U32,
    taken: U64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ReplyGrant {
    base: U64,
    len: U64,
    key: U32,
    rights: u8,
    reserved: [u8; 3],
}

/// One region of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The address of its first byte, as the device knows it.
    pub base: u64,
    /// Its length in bytes.
    pub len: u64,
    /// The device's key to it.
    pub key: u32,
    /// What may be done with it.
    pub rights: Rights,
}

/// Target to initiator, over the control channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The target's queue pair.
    pub address: Address,
    /// How many reads of the initiator it serves at a time.
    pub reads: u8,
    /// The first packet of the hello that it answers: a reply connects nobody else.
    pub answers: u32,
    /// Where the target counts the notifications that it has taken, and the key to it.
    pub taken: (u64, u32),
    /// What is granted.
    pub grants: Vec<Opened>,
}

/// What is sent over the queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Message {
    magic: [u8; 4],
    /// One of [`kind`].
    pub kind: u8,
    reserved: [u8; 3],
    /// Its meaning is the kind's.
    pub value: U64,
}

/// The kinds of messages.
pub mod kind {
    /// The initiator is connected; its first message, and the only one that is as long as the longest packet between the two.
    pub const KNOCK: u8 = 1;
    /// Initiator to target: a value for whoever takes notifications.
    pub const NOTIFY: u8 = 2;
    /// Target to initiator: why this is the end.
    pub const GOODBYE: u8 = 3;
}

/// The length of a message.
pub const MESSAGE: u32 = 16;
/// The longest packet that any port takes.
pub const MAX_PACKET: u32 = packet(5);

/// The bytes of a packet of that code.
pub(super) const fn packet(mtu: u8) -> u32 {
    128 << mtu
}

const _: () = assert!(size_of::<Address>() == 28, "a message's size is part of the format");
const _: () = assert!(size_of::<Hello>() == 40, "a message's size is part of the format");
const _: () = assert!(size_of::<ReplyHeader>() == 56, "a message's size is part of the format");
const _: () = assert!(size_of::<ReplyGrant>() == 24, "a message's size is part of the format");
const _: () = assert!(size_of::<Message>() == MESSAGE as usize, "a message's size is part of the format");

impl Address {
    /// The bytes of the longest packet that both sides take.
    pub fn packet(&self, other: &Address) -> u32 {
        packet(self.mtu.min(other.mtu))
    }

    fn check(&self) -> Result<()> {
        let numbers = self.number.get() <= NUMBER && self.first_packet.get() <= NUMBER;
        if numbers && (1..=2).contains(&self.link) && (1..=5).contains(&self.mtu) {
            return Ok(());
        }
        Err(broken(&format!("an address {self:?} that no device has")))
    }
}

impl Hello {
    const MAGIC: [u8; 4] = *b"IBVh";

    /// A hello of this version.
    pub fn new(address: Address, reads: u8) -> Hello {
        let (magic, version, reserved, reserved_too) = (Hello::MAGIC, VERSION.into(), 0.into(), [0; 3]);
        Hello { magic, version, reserved, address, reads, reserved_too }
    }

    /// Checks a peer's bytes.
    ///
    /// # Errors
    /// `Protocol` or `Incompatible`.
    pub fn parse(bytes: &[u8]) -> Result<Hello> {
        let hello = Hello::read_from_bytes(bytes).map_err(|_| MESSAGES.length("hello", bytes))?;
        MESSAGES.check("hello", (hello.magic, Hello::MAGIC), hello.version.get())?;
        hello.address.check()?;
        check_reads(hello.reads)?;
        Ok(hello)
    }
}

impl Reply {
    const MAGIC: [u8; 4] = *b"IBVr";

    /// The bytes of a reply of this version.
    pub fn encode(&self) -> Vec<u8> {
        let header = ReplyHeader {
            magic: Reply::MAGIC,
            version: VERSION.into(),
            count: u16::try_from(self.grants.len()).unwrap_or(u16::MAX).into(),
            address: self.address,
            reads: self.reads,
            reserved: [0; 3],
            answers: self.answers.into(),
            taken_key: self.taken.1.into(),
            taken: self.taken.0.into(),
        };
        let mut bytes = header.as_bytes().to_vec();
        for grant in &self.grants {
            let (base, len, key) = (grant.base.into(), grant.len.into(), grant.key.into());
            let packed = ReplyGrant { base, len, key, rights: grant.rights.bits(), reserved: [0; 3] };
            bytes.extend_from_slice(packed.as_bytes());
        }
        bytes
    }

    /// Checks a peer's bytes.
    ///
    /// # Errors
    /// `Protocol` or `Incompatible`.
    pub fn parse(bytes: &[u8]) -> Result<Reply> {
        let (header, rest) = ReplyHeader::read_from_prefix(bytes).map_err(|_| MESSAGES.length("reply", bytes))?;
        MESSAGES.check("reply", (header.magic, Reply::MAGIC), header.version.get())?;
        let count = usize::from(header.count.get());
        if !(1..=MAX_GRANTS as usize).contains(&count) || rest.len() != count * size_of::<ReplyGrant>() {
            return Err(MESSAGES.length("reply", bytes));
        }
        header.address.check()?;
        check_reads(header.reads)?;
        let grants = <[ReplyGrant]>::ref_from_bytes(rest).map_err(|_| MESSAGES.length("reply", bytes))?;
        Ok(Reply {
            address: header.address,
            reads: header.reads,
            answers: header.answers.get(),
            taken: (header.taken.get(), header.taken_key.get()),
            grants: grants.iter().map(check_grant).collect::<Result<_>>()?,
        })
    }
}

/// Without reads nothing could be flushed.
fn check_reads(reads: u8) -> Result<()> {
    if reads > 0 { Ok(()) } else { Err(broken("no reads at a time")) }
}

fn check_grant(grant: &ReplyGrant) -> Result<Opened> {
    let (base, len, key) = (grant.base.get(), grant.len.get(), grant.key.get());
    match (Rights::from_bits(grant.rights), base.checked_add(len)) {
        (Some(rights), Some(_)) if len > 0 && i64::try_from(len).is_ok() => Ok(Opened { base, len, key, rights }),
        _ => Err(broken(&format!("a grant of {len} bytes at {base:#x} with rights {:#x}", grant.rights))),
    }
}

impl Message {
    const MAGIC: [u8; 4] = *b"IBVm";

    /// A message of a kind.
    pub fn new(kind: u8, value: u64) -> Message {
        Message { magic: Message::MAGIC, kind, reserved: [0; 3], value: value.into() }
    }

    /// Checks the bytes that a peer sent.
    ///
    /// # Errors
    /// `Protocol`.
    pub fn parse(bytes: &[u8]) -> Result<Message> {
        let message = Message::read_from_bytes(bytes).map_err(|_| MESSAGES.length("message", bytes))?;
        let known = matches!(message.kind, kind::KNOCK | kind::NOTIFY | kind::GOODBYE);
        if message.magic == Message::MAGIC && known {
            return Ok(message);
        }
        Err(broken(&format!("a message of kind {} that starts with {:?}", message.kind, message.magic)))
    }
}

fn broken(what: &str) -> Error {
    Error::operation(ErrorKind::Protocol, format!("{what}: the other side is broken"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address() -> Address {
        Address { gid: [7; 16], lid: 3.into(), link: 2, mtu: 5, number: 0x0102.into(), first_packet: 0x0304.into() }
    }

    fn reply() -> Reply {
        let grants = vec![Opened { base: 0x1000, len: 0x0102, key: 9, rights: Rights::WRITE }];
        Reply { address: address(), reads: 16, answers: 0x0506, taken: (0x2000, 8), grants }
    }

    #[test]
    fn golden_bytes() {
        let mut there = [7; 16].to_vec();
        there.extend(b"\x03\0\x02\x05\x02\x01\0\0\x04\x03\0\0");
        let hello = [b"IBVh\x02\0\0\0".to_vec(), there.clone(), b"\x10\0\0\0".to_vec()].concat();
        assert_eq!(Hello::new(address(), 16).as_bytes(), hello);
        let mut bytes = [b"IBVr\x02\0\x01\0".to_vec(), there].concat();
        bytes.extend(b"\x10\0\0\0\x06\x05\0\0\x08\0\0\0\0\x20\0\0\0\0\0\0");
        bytes.extend(b"\0\x10\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0\x09\0\0\0\x02\0\0\0");
        assert_eq!(reply().encode(), bytes);
        assert_eq!(Reply::parse(&bytes).unwrap(), reply());
        let message = b"IBVm\x02\0\0\0\x02\x01\0\0\0\0\0\0";
        assert_eq!(Message::new(kind::NOTIFY, 0x0102).as_bytes(), message);
        assert_eq!(Message::parse(message).unwrap().value.get(), 0x0102);
    }

    #[test]
    fn what_no_device_has_is_refused() {
        let odd: [fn(&mut Address); 4] = [
            |address| address.number = (NUMBER + 1).into(),
            |address| address.first_packet = u32::MAX.into(),
            |address| address.link = 0,
            |address| address.mtu = 6,
        ];
        for change in odd {
            let mut wrong = address();
            change(&mut wrong);
            assert_eq!(Hello::parse(Hello::new(wrong, 1).as_bytes()).unwrap_err().kind(), ErrorKind::Protocol);
            let reply = Reply { address: wrong, ..reply() };
            assert_eq!(Reply::parse(&reply.encode()).unwrap_err().kind(), ErrorKind::Protocol);
        }
        for (base, len) in [(u64::MAX, 1), (0, 0), (0, 1 << 63)] {
            let mut wrong = reply();
            (wrong.grants[0].base, wrong.grants[0].len) = (base, len);
            assert_eq!(Reply::parse(&wrong.encode()).unwrap_err().kind(), ErrorKind::Protocol);
        }
        let none = Reply { reads: 0, ..reply() };
        assert_eq!(Reply::parse(&none.encode()).unwrap_err().kind(), ErrorKind::Protocol);
        assert_eq!(Hello::parse(Hello::new(address(), 0).as_bytes()).unwrap_err().kind(), ErrorKind::Protocol);
        let unknown = Message::new(4, 0);
        assert_eq!(Message::parse(unknown.as_bytes()).unwrap_err().kind(), ErrorKind::Protocol);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..4usize) {
            let mut bytes = bytes;
            // Half of the way in, so that more than the magic is tried.
            let starts: [&[u8]; 4] = [b"", b"IBVh\x02\0", b"IBVr\x02\0\x01\0", b"IBVm"];
            bytes.splice(0..0, starts[kind].iter().copied());
            let _ = Hello::parse(&bytes);
            let _ = Message::parse(&bytes);
            if let Ok(reply) = Reply::parse(&bytes) {
                prop_assert_eq!(Reply::parse(&reply.encode()).unwrap(), reply);
            }
        }

        #[test]
        fn any_change_of_a_reply_is_a_reply_or_an_error(at in 0..80usize, byte: u8) {
            let mut bytes = reply().encode();
            bytes[at] = byte;
            if let Ok(changed) = Reply::parse(&bytes) {
                prop_assert!(changed.grants.iter().all(|grant| grant.base.checked_add(grant.len).is_some()));
            }
        }
    }
}
