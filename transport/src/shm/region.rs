//! Memory that peers may be admitted to.

use crate::contract::driver::RegionDriver;
use crate::memory::Memory;
use crate::{Error, ErrorKind, Result, RevokeKind, Rights};

pub(super) struct ShmRegion {
    revoke: RevokeKind,
}

impl ShmRegion {
    pub(super) fn new(memory: &Memory, rights: Rights) -> Result<ShmRegion> {
        let mapping = memory.mapping();
        if rights != Rights::LOCAL && !mapping.is_shared() {
            let text =
                "memory mapped privately cannot be granted to a peer: map it shared, or register it without rights";
            return Err(Error::operation(ErrorKind::Unsupported, text));
        }
        if rights.can_change() && !memory.is_writable() {
            return Err(Error::invalid("memory mapped for reading only cannot be granted for writing"));
        }
        let revoke = if mapping.can_move() { RevokeKind::FreshBacking } else { RevokeKind::DeathOnly };
        Ok(ShmRegion { revoke })
    }
}

impl RegionDriver for ShmRegion {
    fn revoke_kind(&self) -> RevokeKind {
        self.revoke
    }
}
