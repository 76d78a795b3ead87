//! The proof that a process is dead.

use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerPidfd};

/// The process that connected a socket, by a descriptor: a number could name another process by now.
pub(super) struct Process {
    fd: OwnedFd,
}

impl Process {
    /// The process at the other end. `None` where the kernel cannot say (Linux before 6.5): it is then never proven
    /// dead, which costs a copy and nothing else.
    pub(super) fn connected_to(socket: &impl AsFd) -> Option<Process> {
        getsockopt(socket, PeerPidfd).ok().map(|fd| Process { fd })
    }

    /// Whether it has ended, with every thread, and its memory is unmapped. `false` when that is not known.
    pub(super) fn is_dead(&self) -> bool {
        let mut ask = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        let ended = poll(&mut ask, PollTimeout::ZERO);
        ended == Ok(1) && ask[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN))
    }
}
