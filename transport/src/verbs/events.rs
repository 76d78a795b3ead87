//! What a device says of itself, on a thread that listens to it: its end, and its port's state.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use ibverbs_sys::{
    IBV_EVENT_DEVICE_FATAL, IBV_EVENT_PORT_ACTIVE, IBV_EVENT_PORT_ERR, ibv_ack_async_event, ibv_async_event,
    ibv_get_async_event,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::device::Context;
use crate::sync::{AtomicBool, Ordering};
use crate::{Error, ErrorKind, Result, Scope};

/// What is known of a device, and of the port that is used.
pub(super) struct Health {
    port: u8,
    /// Port, device and machine, in words: other machines' people read them too.
    which: String,
    gone: OnceLock<Error>,
    port_down: AtomicBool,
}

impl Health {
    /// Of a device of that name, whose port of this number is used.
    pub(super) fn new(device: &str, port: u8) -> Health {
        let host = nix::unistd::gethostname().unwrap_or_default();
        let which = format!("port {port} of {device} on host {}", host.to_string_lossy());
        Health { port, which, gone: OnceLock::new(), port_down: AtomicBool::new(false) }
    }

    /// Whether there is no device any more, after an attempt to take something away from it failed like this: the kernel has
    /// taken everything away itself before it says that the device is gone.
    pub(super) fn has_taken(&self, error: &Error) -> bool {
        error.code() == i64::from(Errno::EIO as i32) && self.check().is_err()
    }

    /// # Errors
    /// `System`, for the whole domain, when the device is gone.
    pub(super) fn check(&self) -> Result<()> {
        self.gone.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// The same, and `PeerGone`, for the whole domain, while the port is down: nobody can be reached.
    pub(super) fn check_port(&self) -> Result<()> {
        self.check()?;
        if self.port_down.load(Ordering::Acquire) {
            let text = format!("{} is down: look at its cable and at the other end", self.which);
            return Err(Error::new(ErrorKind::PeerGone, Scope::Domain, text));
        }
        Ok(())
    }

    fn hear(&self, event: &ibv_async_event) {
        // SAFETY: it is a number of those that every event has.
        let number = || unsafe { event.element.port_num };
        match event.event_type {
            IBV_EVENT_PORT_ERR if number() == i32::from(self.port) => self.port_down.store(true, Ordering::Release),
            IBV_EVENT_PORT_ACTIVE if number() == i32::from(self.port) => self.port_down.store(false, Ordering::Release),
            IBV_EVENT_DEVICE_FATAL => self.lose("the device has failed or was removed", 0),
            // Those of queue pairs and completion queues show in their completions.
            _ => {}
        }
    }

    fn lose(&self, what: &str, code: i32) {
        let text = format!("{}: {what}: open it again when it is back", self.which);
        let _ = self.gone.set(Error::new(ErrorKind::System, Scope::Domain, text).with_code(code.into()));
    }
}

/// The thread; it ends with this.
pub(super) struct Events {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Events {
    pub(super) fn start(context: Arc<Context>, health: Arc<Health>) -> Result<Events> {
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let stop = Arc::new(stop.map_err(|error| Error::system("making an eventfd", error))?);
        let stopped = stop.clone();
        let named = std::thread::Builder::new().name("verbs-events".into());
        let thread = named.spawn(move || listen(&context, &health, &stopped));
        let thread = thread.map_err(|error| Error::system("starting a thread for a device's events", error))?;
        Ok(Events { stop, thread: Some(thread) })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(context: &Context, health: &Health, stop: &EventFd) {
    loop {
        let mut ready = [readable(context.events()), readable(stop.as_fd())];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
        if ready[1].any() == Some(true) {
            return;
        }
        if ready[0].any() == Some(true)
            && let Err(code) = take(context, health)
        {
            // Nothing more will be heard of it.
            return health.lose("the device says no more", code);
        }
    }
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}

fn take(context: &Context, health: &Health) -> std::result::Result<(), i32> {
    let mut event = ibv_async_event::default();
    // SAFETY: the context is open as long as the reference to it lives; the event is a local.
    let code = unsafe { ibv_get_async_event(context.as_ptr(), &raw mut event) };
    match Errno::result(code) {
        Ok(_) => {}
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
        Err(error) => return Err(error as i32),
    }
    health.hear(&event);
    // SAFETY: it was got just now, and is acknowledged once: who destroys what it is about waits for that.
    unsafe { ibv_ack_async_event(&raw mut event) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use ibverbs_sys::ibv_async_event__bindgen_ty_1;

    use super::*;

    #[test]
    fn a_port_comes_back_and_a_device_does_not() {
        let health = Health::new("rxe0", 2);
        let hear = |event_type, port_num| {
            let element = ibv_async_event__bindgen_ty_1 { port_num };
            health.hear(&ibv_async_event { element, event_type });
        };
        hear(IBV_EVENT_PORT_ERR, 1);
        assert!(health.check_port().is_ok(), "it is another port's");
        hear(IBV_EVENT_PORT_ERR, 2);
        let error = health.check_port().unwrap_err();
        assert_eq!((error.kind(), error.scope()), (ErrorKind::PeerGone, Scope::Domain));
        assert!(health.check().is_ok(), "what is under way may ride it through");
        hear(IBV_EVENT_PORT_ACTIVE, 1);
        assert!(health.check_port().is_err());
        hear(IBV_EVENT_PORT_ACTIVE, 2);
        assert!(health.check_port().is_ok());
        let failed = |errno| Error::system("destroying a queue pair", std::io::Error::from_raw_os_error(errno as i32));
        assert!(!health.has_taken(&failed(Errno::EIO)), "the device is there");
        hear(IBV_EVENT_DEVICE_FATAL, 0);
        hear(IBV_EVENT_PORT_ACTIVE, 2);
        assert!(health.has_taken(&failed(Errno::EIO)));
        assert!(!health.has_taken(&failed(Errno::EBUSY)), "something holds it still");
        let error = health.check().unwrap_err();
        assert_eq!((error.kind(), error.scope()), (ErrorKind::System, Scope::Domain));
    }
}
