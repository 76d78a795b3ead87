//! Registered memory, and slices of it that operations may use.

use std::sync::Arc;

use super::driver::RegionDriver;
use super::{Domain, Error, Result, RevokeKind, Rights};
use crate::memory::Memory;

/// Memory that a domain may use: as the local side of operations, and, with rights, as the target of a peer's.
///
/// Cheap to clone. The memory stays mapped and registered while a clone, an operation in flight, or an admitted peer
/// holds it: dropping this handle never takes memory away from a transfer.
#[derive(Clone)]
pub struct Region {
    inner: Arc<Inner>,
}

struct Inner {
    // Field order is drop order: the registration goes before the mapping it stands on.
    driver: Box<dyn RegionDriver>,
    memory: Memory,
    rights: Rights,
    domain: Domain,
}

/// A region granted to a peer, with at most the rights that the region was registered with.
#[derive(Clone, Copy)]
pub struct Grant<'r> {
    /// The region.
    pub region: &'r Region,
    /// What the peer may do.
    pub rights: Rights,
}

/// Part of a region, checked against its bounds. It borrows the region until it is posted; from then on the
/// operation holds the region itself.
#[derive(Clone, Copy)]
pub struct Slice<'r> {
    region: &'r Region,
    offset: usize,
    len: usize,
}

impl Region {
    pub(super) fn new(driver: Box<dyn RegionDriver>, memory: Memory, rights: Rights, domain: &Domain) -> Region {
        Region { inner: Arc::new(Inner { driver, memory, rights, domain: domain.clone() }) }
    }

    /// `len` bytes from `offset`.
    ///
    /// # Errors
    /// `InvalidInput` when they are not all inside the region.
    pub fn slice(&self, offset: usize, len: usize) -> Result<Slice<'_>> {
        self.memory().check(offset, len)?;
        Ok(Slice { region: self, offset, len })
    }

    /// The whole region.
    pub fn all(&self) -> Slice<'_> {
        Slice { region: self, offset: 0, len: self.len() }
    }

    /// What a peer may be granted.
    pub fn rights(&self) -> Rights {
        self.inner.rights
    }

    /// The memory that is registered.
    pub fn memory(&self) -> &Memory {
        &self.inner.memory
    }

    /// The length in bytes; never 0.
    #[expect(clippy::len_without_is_empty, reason = "memory of length 0 cannot be mapped")]
    pub fn len(&self) -> usize {
        self.memory().len()
    }

    /// What `revoke` can do for a peer that may change this region.
    pub fn revoke_kind(&self) -> RevokeKind {
        self.inner.driver.revoke_kind()
    }

    /// The provider's side of this registration.
    pub fn driver(&self) -> &dyn RegionDriver {
        &*self.inner.driver
    }

    pub(super) fn is_of(&self, domain: &Domain) -> bool {
        self.inner.domain.same(domain)
    }

    pub(super) fn same(&self, other: &Region) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Region({} bytes, {:?})", self.len(), self.rights())
    }
}

impl<'r> Slice<'r> {
    /// The region it is part of.
    pub fn region(&self) -> &'r Region {
        self.region
    }

    /// Its length in bytes; may be 0.
    #[expect(clippy::len_without_is_empty, reason = "a slice is a range, not a collection")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Where it starts in the region.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// `len` bytes from `offset` inside this slice.
    ///
    /// # Errors
    /// `InvalidInput` when they are not all inside the slice.
    pub fn part(&self, offset: usize, len: usize) -> Result<Slice<'r>> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(Slice { region: self.region, offset: self.offset + offset, len }),
            _ => Err(Error::invalid(format!(
                "offset {offset} and length {len} are not inside the slice of {} bytes",
                self.len
            ))),
        }
    }

    pub(super) fn address(&self) -> *mut u8 {
        self.region.memory().as_ptr().wrapping_add(self.offset)
    }
}
