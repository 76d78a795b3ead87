//! A completion queue and its channel: looking, and sleeping until there is something to see.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use ibverbs_sys as ib;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, ppoll};

use super::device::Device;
use super::sys::made;
use crate::{Error, Result};

/// So many completions are looked at in one call.
pub(super) const BATCH: usize = 16;

/// The end of one request, or a message that came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    /// The number that it was posted with.
    pub(super) id: u64,
    pub(super) status: ib::ibv_wc_status::Type,
    /// The bytes received, if it was a message.
    pub(super) len: usize,
}

pub(super) struct Completions {
    cq: NonNull<ib::ibv_cq>,
    channel: Channel,
    pub(super) device: Arc<Device>,
}

struct Channel(NonNull<ib::ibv_comp_channel>);

// SAFETY: these verbs may be called from any thread, and the device's driver locks its queue.
unsafe impl Send for Completions {}
// SAFETY: as above.
unsafe impl Sync for Completions {}

impl Completions {
    pub(super) fn new(device: Arc<Device>, len: u32) -> Result<Completions> {
        let context = device.context.as_ptr();
        // SAFETY: the device keeps the context open.
        let channel = made("making a completion channel", unsafe { ib::ibv_create_comp_channel(context) })?;
        let channel = Channel(channel);
        let flags = fcntl(channel.fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
        flags.map_err(|error| Error::system("making a completion channel that does not block", error))?;
        let len = i32::try_from(len).unwrap_or(i32::MAX);
        // SAFETY: the context is open, and the channel is its own.
        let cq = unsafe { ib::ibv_create_cq(context, len, ptr::null_mut(), channel.0.as_ptr(), 0) };
        let cq = made(&format!("making a completion queue for {len}"), cq)?;
        Ok(Completions { cq, channel, device })
    }

    pub(super) fn as_ptr(&self) -> *mut ib::ibv_cq {
        self.cq.as_ptr()
    }

    /// What there is, at most [`BATCH`].
    pub(super) fn poll(&self) -> Result<impl Iterator<Item = Done> + use<>> {
        let mut found = [const { MaybeUninit::uninit() }; BATCH];
        // SAFETY: the queue is of this device, and lives as long as `self`.
        let count = unsafe { self.device.driver.poll_cq(self.cq, &mut found) }?;
        // SAFETY: the driver filled so many.
        Ok(found.into_iter().take(count).map(|one| read(&unsafe { one.assume_init() })))
    }

    /// From here on a completion ends a `sleep`. Look once more before sleeping.
    pub(super) fn arm(&self) -> Result<()> {
        // SAFETY: the queue is of this device, and lives as long as `self`.
        unsafe { self.device.driver.arm(self.cq) }
    }

    /// Sleeps until a completion comes after `arm`, at most `limit`.
    pub(super) fn sleep(&self, limit: Duration) {
        let mut ready = [PollFd::new(self.channel.fd(), PollFlags::POLLIN)];
        // An interruption is looked into as a completion would be.
        if ppoll(&mut ready, Some(limit.into()), None).is_ok_and(|ready| ready > 0) {
            self.channel.take();
        }
    }
}

impl Channel {
    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel lives; the field was set before it was given out.
        let fd = unsafe { (*self.0.as_ptr()).fd };
        // SAFETY: the descriptor is open as long as the channel.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    /// Takes the events that are there.
    fn take(&self) {
        loop {
            let (mut cq, mut context) = (ptr::null_mut(), ptr::null_mut());
            // SAFETY: the channel lives, and does not block; the pointers are to locals.
            if unsafe { ib::ibv_get_cq_event(self.0.as_ptr(), &raw mut cq, &raw mut context) } != 0 {
                return;
            }
            // SAFETY: the event's queue cannot be destroyed before this.
            unsafe { ib::ibv_ack_cq_events(cq, 1) };
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: it was made by `ibv_create_comp_channel`; its queue is gone.
        let _ = unsafe { ib::ibv_destroy_comp_channel(self.0.as_ptr()) };
    }
}

impl Drop for Completions {
    fn drop(&mut self) {
        // SAFETY: it was made by `ibv_create_cq`; queue pairs hold it, so none uses it any more.
        let _ = unsafe { ib::ibv_destroy_cq(self.cq.as_ptr()) };
    }
}

fn read(found: &ib::ibv_wc) -> Done {
    let status = found.error().map_or(ib::ibv_wc_status::IBV_WC_SUCCESS, |(status, _)| status);
    Done { id: found.wr_id(), status, len: found.len() }
}
