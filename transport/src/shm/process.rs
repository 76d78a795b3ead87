//! The proof that a process is dead.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

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

    /// Whatever the number means now.
    fn open(number: i32) -> nix::Result<Process> {
        // SAFETY: the call takes a number and flags, and touches no memory.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, number, 0) })?;
        // SAFETY: the system has just given this descriptor to this process, and nobody else here knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).map_err(|_| Errno::EBADF)?) };
        Ok(Process { fd })
    }

    /// For Linux before 6.5. The number that connected may name another process by now. But while the connection
    /// stands, the process that made it has not ended; so if it still stands after the number was opened, the number
    /// meant that one.
    fn by_number(socket: &impl AsFd) -> Option<Process> {
        let process = Process::open(getsockopt(socket, PeerCredentials).ok()?.pid()).ok()?;
        let mut ask = [PollFd::new(socket.as_fd(), PollFlags::POLLHUP)];
        let asked = poll(&mut ask, PollTimeout::ZERO).ok()?;
        (asked == 0 && !process.is_dead()).then_some(process)
    }

    /// What can be written down of it; `None` where that is not certain.
    pub(super) fn identity(&self, socket: &impl AsFd) -> Option<Identity> {
        let identity = Identity::of(getsockopt(socket, PeerCredentials).ok()?.pid())?;
        // Until it has ended, its number means no other process.
        (!self.is_dead()).then_some(identity)
    }

    /// Whether it has ended, with every thread, and its memory is unmapped. `false` when that is not known.
    pub(super) fn is_dead(&self) -> bool {
        let mut ask = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        let ended = poll(&mut ask, PollTimeout::ZERO);
        ended == Ok(1) && ask[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN))
    }
}

/// A process by numbers that can be written down. The number alone may name another by the time that it is read; with
/// the time of its start it names one process of one boot. What numbers and times mean is a matter of namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) number: i32,
    /// In the system's ticks since it booted.
    pub(super) started: u64,
    /// In which process numbers and clocks the above count.
    pub(super) namespaces: [u64; 2],
}

impl Identity {
    /// Of the process that has the number now.
    fn of(number: i32) -> Option<Identity> {
        Some(Identity { number, started: started(number)?, namespaces: namespaces()? })
    }

    /// Whether that process has ended. `false` when that is not known.
    pub(super) fn is_dead(&self) -> bool {
        // Should these namespaces be later ones with the same numbers, the former have ended, and all who had a number
        // in them.
        if namespaces() != Some(self.namespaces) {
            return false;
        }
        match Process::open(self.number) {
            Ok(process) => started(self.number).is_some_and(|started| started != self.started) || process.is_dead(),
            Err(error) => error == Errno::ESRCH,
        }
    }
}

/// When the process that has the number now was started.
fn started(number: i32) -> Option<u64> {
    let about = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    // The second field is a name in brackets, of any bytes; this is the twenty-second.
    about.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// Those of this process; `None` where /proc does not show its own.
fn namespaces() -> Option<[u64; 2]> {
    let own = std::fs::read_link("/proc/self").ok()?;
    let number = |name: &str| std::fs::metadata(format!("/proc/self/ns/{name}")).ok().map(|about| about.ino());
    (own.as_os_str() == std::process::id().to_string().as_str()).then_some(())?;
    Some([number("pid")?, number("time")?])
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
    #[test]
    fn a_recycled_number_is_another_process() {
        let own = Identity::of(std::process::id().try_into().unwrap()).unwrap();
        assert!(!own.is_dead());
        assert!(Identity { started: own.started + 1, ..own.clone() }.is_dead());
        let elsewhere = Identity { started: own.started + 1, namespaces: [1, 1], ..own.clone() };
        assert!(!elsewhere.is_dead(), "what is not known is not proven");
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let theirs = Identity::of(child.id().try_into().unwrap()).unwrap();
        assert!(!theirs.is_dead());
        child.kill().unwrap();
        while !theirs.is_dead() {
            std::thread::yield_now(); // It ends before it is waited for.
        }
        child.wait().unwrap();
        assert!(theirs.is_dead());
    }
}
