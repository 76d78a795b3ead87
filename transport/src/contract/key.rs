//! Rights, and the opaque proof of having them.

use std::fmt;

/// What a peer may do with a region. The default is nothing.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Rights(u8);

impl Rights {
    /// Nothing: a region that only this side's operations use.
    pub const LOCAL: Rights = Rights(0);
    /// One-sided reads.
    pub const READ: Rights = Rights(1);
    /// One-sided writes.
    pub const WRITE: Rights = Rights(2);
    /// `compare_swap`.
    pub const ATOMIC: Rights = Rights(4);
    /// All of them.
    pub const ALL: Rights = Rights(7);

    /// The union.
    #[must_use]
    pub const fn and(self, more: Rights) -> Rights {
        Rights(self.0 | more.0)
    }

    /// Whether all of `needed` is there.
    pub const fn has(self, needed: Rights) -> bool {
        self.0 & needed.0 == needed.0
    }

    /// Whether the peer may change anything.
    pub const fn can_change(self) -> bool {
        self.0 & (Rights::WRITE.0 | Rights::ATOMIC.0) != 0
    }

    /// The bits as they travel: 1 read, 2 write, 4 atomic.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Bits from a peer; `None` when unknown ones are set.
    pub const fn from_bits(bits: u8) -> Option<Rights> {
        if bits & !Rights::ALL.0 == 0 { Some(Rights(bits)) } else { None }
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = |right, letter| if self.has(right) { letter } else { '-' };
        write!(f, "{}{}{}", flag(Rights::READ, 'r'), flag(Rights::WRITE, 'w'), flag(Rights::ATOMIC, 'a'))
    }
}

/// The packed right to a granted region, as the provider made it. Opaque to everybody else.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    bytes: [u8; Key::MAX],
    len: u8,
}

impl Key {
    /// The longest key in bytes.
    pub const MAX: usize = 32;

    /// Packs a provider's bytes; `None` when there are more than [`Key::MAX`].
    pub fn new(packed: &[u8]) -> Option<Key> {
        let len = u8::try_from(packed.len()).ok()?;
        let mut bytes = [0; Key::MAX];
        bytes.get_mut(..packed.len())?.copy_from_slice(packed);
        Some(Key { bytes, len })
    }

    /// The packed bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Only the length is shown: a key opens memory.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.len)
    }
}

/// One region that the target granted to this endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The provider's key to it.
    pub key: Key,
    /// Its length in bytes.
    pub len: u64,
    /// What may be done with it.
    pub rights: Rights,
}
