//! Signals that come as events.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{getpid, getsid};

use super::supervisor::END;
use crate::exit::Failure;

/// Signals that are passed on to the program.
const PASSED_ON: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];
/// `si_code` of what the kernel sends by itself, as for a key on the terminal.
const SI_KERNEL: i32 = 0x80;

/// Whether it means that the program is to end: what else is passed on may mean anything to it.
pub(super) fn is_end(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTERM | Signal::SIGINT)
}

/// A signal that has come.
pub(super) struct Come {
    pub(super) signal: Signal,
    /// Then everything in this process group got it.
    pub(super) is_of_terminal: bool,
}

pub(super) struct Signals(SignalFd);

impl Signals {
    /// From now on they wait; a process that is started by this one inherits that.
    pub(super) fn new() -> Result<Self, Failure> {
        let saying = |error: nix::errno::Errno| Failure::File(format!("waiting for signals: {error}"));
        let mut set = SigSet::empty();
        PASSED_ON.into_iter().chain([END, Signal::SIGCHLD]).for_each(|signal| set.add(signal));
        set.thread_block().map_err(saying)?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self).map_err(saying)
    }

    /// Waits for one, or the end of a child.
    pub(super) fn wait(&self, limit: Duration) {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        // A wait that is cut short is one more look.
        let _ = poll(&mut fds, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
    }

    /// The next that has come.
    pub(super) fn next(&self) -> Option<Come> {
        while let Ok(Some(info)) = self.0.read_signal() {
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            if let Some(signal) = signal.filter(|signal| *signal != Signal::SIGCHLD) {
                // A terminal that hangs up tells the leader of its session, and nobody else.
                let is_told_alone = signal == Signal::SIGHUP && getsid(None) == Ok(getpid());
                return Some(Come { signal, is_of_terminal: info.ssi_code == SI_KERNEL && !is_told_alone });
            }
        }
        None
    }
}
