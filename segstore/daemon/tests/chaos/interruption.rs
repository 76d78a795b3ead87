//! Whoever interrupts a run finds nothing of it left behind.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupt(_: i32) {
    IS_INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From now on a run that is told to end does so by itself. What it starts is not concerned.
pub(crate) fn expect() {
    let action = SigAction::new(SigHandler::Handler(interrupt), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler stores to an atomic, and does nothing else.
        unsafe { sigaction(signal, &action) }.unwrap();
    }
}

pub(crate) fn is_interrupted() -> bool {
    IS_INTERRUPTED.load(Ordering::Relaxed)
}
