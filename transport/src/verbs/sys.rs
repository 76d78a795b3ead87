//! The verbs that C has as inline functions: they call the device's driver through a table of its context, and so does this.
//! And what the verbs say by return codes, as errors.

use std::ffi::c_int;
use std::io;
use std::ptr::{self, NonNull};

use ibverbs_sys::{ibv_context, ibv_cq, ibv_mw, ibv_mw_type, ibv_pd, ibv_qp, ibv_recv_wr, ibv_send_wr, ibv_wc};

use crate::{Error, ErrorKind, Result};

/// The functions of one device's driver.
#[derive(Clone, Copy)]
pub(super) struct Driver {
    post_send: unsafe extern "C" fn(*mut ibv_qp, *mut ibv_send_wr, *mut *mut ibv_send_wr) -> c_int,
    post_recv: unsafe extern "C" fn(*mut ibv_qp, *mut ibv_recv_wr, *mut *mut ibv_recv_wr) -> c_int,
    poll_cq: unsafe extern "C" fn(*mut ibv_cq, c_int, *mut ibv_wc) -> c_int,
    req_notify_cq: unsafe extern "C" fn(*mut ibv_cq, c_int) -> c_int,
    windows: Option<Windows>,
}

type AllocMw = unsafe extern "C" fn(*mut ibv_pd, ibv_mw_type) -> *mut ibv_mw;
type DeallocMw = unsafe extern "C" fn(*mut ibv_mw) -> c_int;
type Windows = (AllocMw, DeallocMw);

impl Driver {
    /// # Errors
    /// `Unsupported` when the driver lacks one that nothing goes without.
    ///
    /// # Safety
    /// `context` is an open device's; the functions may be called while it is.
    pub(super) unsafe fn of(context: NonNull<ibv_context>) -> Result<Driver> {
        // SAFETY: the caller says that it is a context, whose table is filled once, before it is given out.
        let ops = unsafe { &raw const (*context.as_ptr()).ops };
        // SAFETY: as above; the table is plain data.
        let ops = unsafe { ops.read() };
        let lacks = || Error::operation(ErrorKind::Unsupported, "the device's driver lacks a verb for queue pairs");
        Ok(Driver {
            post_send: ops.post_send.ok_or_else(lacks)?,
            post_recv: ops.post_recv.ok_or_else(lacks)?,
            poll_cq: ops.poll_cq.ok_or_else(lacks)?,
            req_notify_cq: ops.req_notify_cq.ok_or_else(lacks)?,
            windows: ops.alloc_mw.zip(ops.dealloc_mw),
        })
    }

    /// Whether it has memory windows.
    pub(super) fn has_windows(&self) -> bool {
        self.windows.is_some()
    }

    /// # Safety
    /// `qp` is a queue pair of this device; the list starts at `first`, and every place that it names stays as the
    /// requests need it until they are done.
    pub(super) unsafe fn post_send(&self, qp: NonNull<ibv_qp>, first: *mut ibv_send_wr) -> Result<()> {
        let mut refused = ptr::null_mut();
        // SAFETY: the caller's promise; the last pointer is to a local.
        check("posting work to the device", unsafe { (self.post_send)(qp.as_ptr(), first, &raw mut refused) })
    }

    /// # Safety
    /// As [`Driver::post_send`], for places to receive into.
    pub(super) unsafe fn post_recv(&self, qp: NonNull<ibv_qp>, first: *mut ibv_recv_wr) -> Result<()> {
        let mut refused = ptr::null_mut();
        // SAFETY: the caller's promise; the last pointer is to a local.
        check("posting room for messages to the device", unsafe {
            (self.post_recv)(qp.as_ptr(), first, &raw mut refused)
        })
    }

    /// How many completions it put into `into`.
    ///
    /// # Safety
    /// `cq` is a completion queue of this device.
    pub(super) unsafe fn poll_cq(
        &self,
        cq: NonNull<ibv_cq>,
        into: &mut [std::mem::MaybeUninit<ibv_wc>],
    ) -> Result<usize> {
        let room = c_int::try_from(into.len()).unwrap_or(c_int::MAX);
        // SAFETY: the caller's promise; `into` has room for so many.
        let found = unsafe { (self.poll_cq)(cq.as_ptr(), room, into.as_mut_ptr().cast()) };
        usize::try_from(found).map_err(|_| Error::system("looking for completions", last(found)))
    }

    /// The next completion makes an event.
    ///
    /// # Safety
    /// `cq` is a completion queue of this device.
    pub(super) unsafe fn arm(&self, cq: NonNull<ibv_cq>) -> Result<()> {
        // SAFETY: the caller's promise.
        check("asking for an event of a completion queue", unsafe { (self.req_notify_cq)(cq.as_ptr(), 0) })
    }

    /// # Safety
    /// `pd` is a protection domain of this device.
    pub(super) unsafe fn alloc_mw(&self, pd: NonNull<ibv_pd>, kind: ibv_mw_type) -> Result<NonNull<ibv_mw>> {
        let Some((alloc, _)) = self.windows else {
            return Err(Error::operation(ErrorKind::Unsupported, "the device has no memory windows"));
        };
        // SAFETY: the caller's promise.
        made("making a memory window", unsafe { alloc(pd.as_ptr(), kind) })
    }

    /// # Safety
    /// `mw` is a memory window of this device, and is not used any more.
    pub(super) unsafe fn dealloc_mw(&self, mw: NonNull<ibv_mw>) -> Result<()> {
        // SAFETY: the caller's promise.
        self.windows.map_or(Ok(()), |(_, dealloc)| check("freeing a memory window", unsafe { dealloc(mw.as_ptr()) }))
    }
}

/// The key that a type 2 window gets with its next binding (`ibv_inc_rkey`).
pub(super) fn next_key(key: u32) -> u32 {
    key & !0xff | (key.wrapping_add(1) & 0xff)
}

/// Verbs return 0, an errno, or -1 with it in its usual place.
pub(super) fn check(doing: &str, code: c_int) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(Error::system(doing, last(code))) }
}

/// Verbs that make something return null with errno set.
pub(super) fn made<T>(doing: &str, pointer: *mut T) -> Result<NonNull<T>> {
    NonNull::new(pointer).ok_or_else(|| Error::system(doing, io::Error::last_os_error()))
}

fn last(code: c_int) -> io::Error {
    if code == -1 { io::Error::last_os_error() } else { io::Error::from_raw_os_error(code.abs()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tag_of_a_key_is_counted() {
        assert_eq!(next_key(0x1234_5600), 0x1234_5601);
        assert_eq!(next_key(0x1234_56ff), 0x1234_5600);
    }
}
