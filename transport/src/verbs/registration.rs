//! Protection domains, and memory that a device may use in one.

use std::ptr::NonNull;
use std::sync::Arc;

use ibverbs_sys as ib;

use super::device::Device;
use super::sys::made;
use crate::memory::Memory;
use crate::{Error, ErrorKind, Result, Rights};

/// What belongs together: a key of one protection domain is worth nothing in another.
pub(super) struct ProtectionDomain {
    pd: NonNull<ib::ibv_pd>,
    pub(super) device: Arc<Device>,
}

// SAFETY: verbs may be called from any thread; the pointer is only given to them.
unsafe impl Send for ProtectionDomain {}
// SAFETY: as above.
unsafe impl Sync for ProtectionDomain {}

impl ProtectionDomain {
    pub(super) fn new(device: Arc<Device>) -> Result<ProtectionDomain> {
        // SAFETY: the device keeps the context open.
        let pd = made("making a protection domain", unsafe { ib::ibv_alloc_pd(device.context.as_ptr()) })?;
        Ok(ProtectionDomain { pd, device })
    }

    pub(super) fn as_ptr(&self) -> NonNull<ib::ibv_pd> {
        self.pd
    }
}

impl Drop for ProtectionDomain {
    fn drop(&mut self) {
        // SAFETY: it was made by `ibv_alloc_pd`; what was made in it held it, so is gone.
        let _ = unsafe { ib::ibv_dealloc_pd(self.pd.as_ptr()) };
    }
}

/// What a device may do with memory.
pub(super) type Access = u32;

/// Registered memory: its pages stay where they are while this lives.
pub(super) struct Registration {
    mr: NonNull<ib::ibv_mr>,
    keys: (u32, u32),
    pub(super) domain: Arc<ProtectionDomain>,
    pub(super) memory: Memory,
}

// SAFETY: verbs may be called from any thread; the pointer is only given to them.
unsafe impl Send for Registration {}
// SAFETY: as above.
unsafe impl Sync for Registration {}

impl Registration {
    pub(super) fn new(domain: &Arc<ProtectionDomain>, memory: &Memory, access: Access) -> Result<Registration> {
        let flags = access.cast_signed();
        // SAFETY: the range is mapped, and stays so as long as `memory` is kept. What a device writes there is only
        // ever read by pointers and atomics.
        let mr = unsafe { ib::ibv_reg_mr(domain.pd.as_ptr(), memory.as_ptr().cast(), memory.len(), flags) };
        let mr = made(&format!("registering {} bytes with the device", memory.len()), mr).map_err(explain)?;
        // SAFETY: the registration lives; the fields were set before it was given out.
        let local = unsafe { (*mr.as_ptr()).lkey };
        // SAFETY: as above.
        let remote = unsafe { (*mr.as_ptr()).rkey };
        Ok(Registration { mr, keys: (local, remote), domain: domain.clone(), memory: memory.clone() })
    }

    pub(super) fn as_ptr(&self) -> NonNull<ib::ibv_mr> {
        self.mr
    }

    /// The key for this side's operations.
    pub(super) fn local_key(&self) -> u32 {
        self.keys.0
    }

    /// The key for peers' operations.
    pub(super) fn remote_key(&self) -> u32 {
        self.keys.1
    }

    /// The address of the first byte, as the device knows it.
    pub(super) fn base(&self) -> u64 {
        self.memory.as_ptr().addr() as u64
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: it was made by `ibv_reg_mr`; windows that were bound to it held it, so are gone.
        let _ = unsafe { ib::ibv_dereg_mr(self.mr.as_ptr()) };
    }
}

/// What this side's own operations need.
pub(super) fn local_access(memory: &Memory) -> Access {
    if memory.is_writable() { ib::ibv_access_flags::IBV_ACCESS_LOCAL_WRITE.0 } else { 0 }
}

/// What a peer with these rights may do.
pub(super) fn remote_access(rights: Rights) -> Access {
    let flags = [
        (Rights::READ, ib::ibv_access_flags::IBV_ACCESS_REMOTE_READ),
        (Rights::WRITE, ib::ibv_access_flags::IBV_ACCESS_REMOTE_WRITE),
        (Rights::ATOMIC, ib::ibv_access_flags::IBV_ACCESS_REMOTE_ATOMIC),
    ];
    flags.iter().filter(|(right, _)| rights.has(*right)).fold(0, |access, (_, flag)| access | flag.0)
}

/// Registered memory is locked, and how much a process may lock is limited.
fn explain(error: Error) -> Error {
    if error.kind() != ErrorKind::Exhausted {
        return error;
    }
    let text =
        format!("{error}: registered memory is locked; raise the limit (ulimit -l, or LimitMEMLOCK= of the unit)");
    Error::operation(ErrorKind::Exhausted, text).with_code(error.code())
}
