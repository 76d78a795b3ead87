//! Memory that peers may be admitted to: whatever is mapped will do, because this process's kernel fills it.

use crate::contract::driver::RegionDriver;
use crate::memory::Memory;
use crate::{Error, ErrorKind, Result, RevokeKind, Rights};

pub(super) struct TcpRegion;

impl TcpRegion {
    pub(super) fn new(memory: &Memory, rights: Rights) -> Result<TcpRegion> {
        if rights != Rights::LOCAL && !memory.mapping().is_shared() {
            let text = "private memory can only be used by this side's operations: map it shared to grant it";
            return Err(Error::operation(ErrorKind::Unsupported, text));
        }
        if rights.can_change() && !memory.is_writable() {
            return Err(Error::invalid("memory mapped for reading only cannot be granted for writing"));
        }
        Ok(TcpRegion)
    }
}

impl RegionDriver for TcpRegion {
    fn revoke_kind(&self) -> RevokeKind {
        RevokeKind::Access
    }
}
