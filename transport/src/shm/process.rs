//! The proof that a process is dead.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    getsockopt,
    sockopt::{PeerCredentials, PeerPidfd},
};

/// The process that connected a socket, by a descriptor: a number could name another process by now.
pub(super) struct Process {
    fd: OwnedFd,
}

impl Process {
    /// The process at the other end. `None` where that cannot be said for certain: it is then never proven dead, which
    /// costs a copy and nothing else.
    pub(super) fn connected_to(socket: &impl AsFd) -> Option<Process> {
        getsockopt(socket, PeerPidfd).ok().map(|fd| Process { fd }).or_else(|| Process::by_number(socket))
    }

    /// For Linux before 6.5. The number that connected may name another process by now. But while the connection
    /// stands, the process that made it has not ended; so if it still stands after the number was opened, the number
    /// meant that one.
    fn by_number(socket: &impl AsFd) -> Option<Process> {
        let number = getsockopt(socket, PeerCredentials).ok()?.pid();
        // SAFETY: the call takes a number and flags, and touches no memory.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, number, 0) }).ok()?;
        // SAFETY: the system has just given this descriptor to this process, and nobody else here knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).ok()?) };
        let mut ask = [PollFd::new(socket.as_fd(), PollFlags::POLLHUP)];
        let asked = poll(&mut ask, PollTimeout::ZERO).ok()?;
        let process = Process { fd };
        (asked == 0 && !process.is_dead()).then_some(process)
    }

    /// Whether it has ended, with every thread, and its memory is unmapped. `false` when that is not known.
    pub(super) fn is_dead(&self) -> bool {
        let mut ask = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        let ended = poll(&mut ask, PollTimeout::ZERO);
        ended == Ok(1) && ask[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_number_counts_only_while_its_connection_stands() {
        let path = std::env::temp_dir().join(format!("segstore-process-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let theirs = UnixStream::connect(&path).unwrap();
        let ours = listener.accept().unwrap().0;
        std::fs::remove_file(&path).unwrap();
        let process = Process::by_number(&ours).unwrap();
        assert!(!process.is_dead());
        drop(theirs);
        assert!(Process::by_number(&ours).is_none());
    }
}
