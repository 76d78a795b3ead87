//! Memory windows (type 2): a key to a region that only one queue pair can use, and that is taken back at once, however long
//! the region.

use std::ptr::NonNull;
use std::sync::Arc;

use ibverbs_sys as ib;

use super::registration::{Access, Registration};
use super::sys::next_key;
use crate::Result;

/// A bound window. Dropping it takes its key back; it has to go before its queue pair, which a device may keep as long as a
/// window is bound to it.
pub(super) struct Window {
    mw: NonNull<ib::ibv_mw>,
    /// The key that it has once it is bound.
    pub(super) key: u32,
    pub(super) access: Access,
    pub(super) registration: Arc<Registration>,
}

// SAFETY: verbs may be called from any thread; the pointer is only given to them.
unsafe impl Send for Window {}

impl Window {
    /// A window that is not bound yet.
    pub(super) fn new(registration: Arc<Registration>, access: Access) -> Result<Window> {
        let domain = &registration.domain;
        // SAFETY: the protection domain is of that device, and lives as long as the registration.
        let mw = unsafe { domain.device.driver.alloc_mw(domain.as_ptr(), ib::IBV_MW_TYPE_2) }?;
        // SAFETY: the window lives; the field was set before it was given out.
        let key = next_key(unsafe { (*mw.as_ptr()).rkey });
        Ok(Window { mw, key, access, registration })
    }

    /// What the device has to know to bind it to the whole region.
    pub(super) fn binding(&self) -> ib::ibv_send_wr__bindgen_ty_4__bindgen_ty_1 {
        let bind_info = ib::ibv_mw_bind_info {
            mr: self.registration.as_ptr().as_ptr(),
            addr: self.registration.base(),
            length: self.registration.memory.len() as u64,
            mw_access_flags: self.access,
        };
        ib::ibv_send_wr__bindgen_ty_4__bindgen_ty_1 { mw: self.mw.as_ptr(), rkey: self.key, bind_info }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: it was made by `alloc_mw`, and is freed once; a device takes the key of a bound one back.
        let _ = unsafe { self.registration.domain.device.driver.dealloc_mw(self.mw) };
    }
}
