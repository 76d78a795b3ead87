//! Why a target ends a connection: the same sentence at both sides, from one head on the wire.

use super::wire::{Head, MAX_PAYLOAD, VERSION, kind};
use crate::{Error, ErrorKind};

/// What was wrong, with the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The target revoked this peer.
    Revoked,
    /// The token opens nothing: wrong, used before, expired, or its peer revoked.
    Token,
    /// A knock with another magic.
    Magic {
        /// Its first four bytes, little-endian.
        got: u32,
    },
    /// A knock of another version.
    Version {
        /// Its version.
        got: u16,
    },
    /// No knock came in time.
    Silent,
    /// A frame that does not start with the mark.
    Mark {
        /// Its first byte.
        got: u8,
    },
    /// A request of unknown kind.
    Kind {
        /// Its kind.
        got: u8,
    },
    /// A request with unknown flags.
    Flags {
        /// Its kind.
        kind: u8,
        /// Its flags.
        got: u8,
    },
    /// A request with a length that its kind cannot have.
    Length {
        /// Its kind.
        kind: u8,
        /// Its length.
        got: u32,
    },
    /// A request for a region that was not granted.
    Grant {
        /// Which.
        got: u8,
    },
    /// A request that needs a right that was not granted.
    Rights {
        /// Its kind.
        kind: u8,
        /// For which region.
        grant: u8,
    },
    /// A request for bytes outside the region.
    Range {
        /// Which region.
        grant: u8,
        /// From here.
        offset: u64,
        /// So many.
        len: u32,
    },
    /// A compare and swap at a place that is not a multiple of 8.
    Alignment {
        /// Which region.
        grant: u8,
        /// The place.
        offset: u64,
    },
    /// More notifications than the peer was told there is room for.
    Notifications,
    /// The target's region stands on other memory now.
    Moved,
    /// The target's region is gone.
    Lost,
    /// Something else than TLS came to a target that is encrypted.
    Plain,
    /// A TLS handshake came to a target that is not encrypted.
    Encrypted,
}

impl Fault {
    /// The `REFUSED` frame that tells the initiator.
    pub fn to_head(self) -> Head {
        let (reason, grant, len, value) = match self {
            Fault::Revoked => (1, 0, 0, 0),
            Fault::Token => (2, 0, 0, 0),
            Fault::Magic { got } => (3, 0, 0, got.into()),
            Fault::Version { got } => (4, 0, 0, got.into()),
            Fault::Silent => (5, 0, 0, 0),
            Fault::Mark { got } => (6, 0, 0, got.into()),
            Fault::Kind { got } => (7, 0, 0, got.into()),
            Fault::Flags { kind, got } => (8, 0, kind.into(), got.into()),
            Fault::Length { kind, got } => (9, 0, got, kind.into()),
            Fault::Grant { got } => (10, got, 0, 0),
            Fault::Rights { kind, grant } => (11, grant, 0, kind.into()),
            Fault::Range { grant, offset, len } => (12, grant, len, offset),
            Fault::Alignment { grant, offset } => (13, grant, 0, offset),
            Fault::Notifications => (14, 0, 0, 0),
            Fault::Moved => (15, 0, 0, 0),
            Fault::Lost => (16, 0, 0, 0),
            Fault::Plain => (17, 0, 0, 0),
            Fault::Encrypted => (18, 0, 0, 0),
        };
        Head { flags: reason, ..Head::new(kind::REFUSED).at(grant, len, value) }
    }

    /// Reads a `REFUSED` frame; `None` for a reason that this version does not know, or values that make no sense.
    pub fn from_head(head: &Head) -> Option<Fault> {
        let (grant, len, value) = (head.grant, head.len.get(), head.value.get());
        Some(match head.flags {
            1 => Fault::Revoked,
            2 => Fault::Token,
            3 => Fault::Magic { got: value.try_into().ok()? },
            4 => Fault::Version { got: value.try_into().ok()? },
            5 => Fault::Silent,
            6 => Fault::Mark { got: value.try_into().ok()? },
            7 => Fault::Kind { got: value.try_into().ok()? },
            8 => Fault::Flags { kind: len.try_into().ok()?, got: value.try_into().ok()? },
            9 => Fault::Length { kind: value.try_into().ok()?, got: len },
            10 => Fault::Grant { got: grant },
            11 => Fault::Rights { kind: value.try_into().ok()?, grant },
            12 => Fault::Range { grant, offset: value, len },
            13 => Fault::Alignment { grant, offset: value },
            14 => Fault::Notifications,
            15 => Fault::Moved,
            16 => Fault::Lost,
            17 => Fault::Plain,
            18 => Fault::Encrypted,
            _ => return None,
        })
    }

    /// What a caller can do about it.
    pub fn kind(self) -> ErrorKind {
        match self {
            Fault::Revoked | Fault::Token => ErrorKind::Revoked,
            Fault::Version { .. } | Fault::Plain | Fault::Encrypted => ErrorKind::Incompatible,
            Fault::Silent => ErrorKind::TimedOut,
            Fault::Moved => ErrorKind::Moved,
            Fault::Lost => ErrorKind::Lost,
            Fault::Grant { .. } | Fault::Rights { .. } | Fault::Range { .. } => ErrorKind::Denied,
            _ => ErrorKind::Protocol,
        }
    }

    /// The error at this side; it breaks the connection.
    pub fn error(self) -> Error {
        Error::endpoint(self.kind(), self.to_string()).with_code(self.to_head().flags.into())
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Fault::Revoked => write!(f, "the target has revoked this endpoint"),
            Fault::Token => {
                write!(
                    f,
                    "the target does not expect this connection: its token is wrong, was used, expired or revoked"
                )
            }
            Fault::Magic { got } => {
                write!(f, "a knock starts with {:?}, not \"TCPk\"", got.to_le_bytes().escape_ascii().to_string())
            }
            Fault::Version { got } => {
                write!(f, "a knock of version {got}; the target speaks version {VERSION}: upgrade the older")
            }
            Fault::Silent => write!(f, "a connection was closed, or its time was up, before it knocked"),
            Fault::Mark { got } => write!(f, "a frame starts with {got:#04x}: the stream is out of step"),
            Fault::Kind { got } => write!(f, "a request of unknown kind {got}"),
            Fault::Flags { kind, got } => write!(f, "a {} with unknown flags {got:#04x}", name(kind)),
            Fault::Length { kind, got } => {
                write!(f, "a {} of {got} bytes: that is not a length of its kind (at most {MAX_PAYLOAD})", name(kind))
            }
            Fault::Grant { got } => write!(f, "a request for grant {got}, which there is not"),
            Fault::Rights { kind, grant } => {
                write!(f, "a {} on grant {grant}, which does not have that right", name(kind))
            }
            Fault::Range { grant, offset, len } => {
                write!(f, "a request for {len} bytes at offset {offset}, which are not inside grant {grant}")
            }
            Fault::Alignment { grant, offset } => {
                write!(f, "a compare and swap at offset {offset} of grant {grant}: it must be a multiple of 8")
            }
            Fault::Notifications => write!(f, "more notifications than there is room for"),
            Fault::Moved => write!(f, "the target's region stands on other memory now: connect again"),
            Fault::Plain => {
                write!(f, "the target is encrypted, and what came is not TLS: use the reply as the target gave it")
            }
            Fault::Encrypted => {
                write!(f, "a TLS handshake came to a target that is not encrypted: use the reply as the target gave it")
            }
            Fault::Lost => write!(
                f,
                "the target's region is gone: somebody cut its file short, or the target's file system is full"
            ),
        }
    }
}

fn name(request: u8) -> String {
    match request {
        kind::WRITE => "write".into(),
        kind::READ => "read".into(),
        kind::NOTIFY => "notification".into(),
        kind::COMPARE_SWAP => "compare and swap".into(),
        kind::FLUSH => "flush".into(),
        other => format!("request of kind {other}"),
    }
}
