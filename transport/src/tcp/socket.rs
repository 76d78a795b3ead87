//! One connected socket: the system calls, by address and length.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeSpec;

use crate::{Error, Result};

/// Memory for a socket to read from or fill: an address and a length, and no promise about either.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Span(libc::iovec);

// SAFETY: it is an address and a number; whoever follows the address has made a promise of its own.
unsafe impl Send for Span {}

impl Span {
    pub(super) const NONE: Span = Span::new(std::ptr::null_mut(), 0);

    pub(super) const fn new(at: *mut u8, len: usize) -> Span {
        Span(libc::iovec { iov_base: at.cast(), iov_len: len })
    }

    /// Bytes to be read only.
    pub(super) fn of(bytes: &[u8]) -> Span {
        Span::new(bytes.as_ptr().cast_mut(), bytes.len())
    }

    pub(super) fn at(&self) -> *mut u8 {
        self.0.iov_base.cast()
    }

    pub(super) fn len(&self) -> usize {
        self.0.iov_len
    }

    /// Without the first `count` bytes, of which there are at least so many.
    pub(super) fn skip(&self, count: usize) -> Span {
        Span::new(self.at().wrapping_add(count), self.len() - count)
    }

    /// At most the first `count` bytes.
    pub(super) fn first(&self, count: usize) -> Span {
        Span::new(self.at(), self.len().min(count))
    }
}

/// The kernel's `TC_PRIO_BULK`: its queues send what has it last, or when it is its turn among others.
const BULK: i32 = 2;

pub(super) struct Socket {
    socket: TcpStream,
}

impl Socket {
    /// A connected socket from here on: it does not block, sends at once, and notices within `patience` when the other
    /// side has vanished without a word.
    pub(super) fn new(socket: TcpStream, patience: Duration) -> Result<Socket> {
        let setting = |error: nix::Error| Error::system("setting a TCP socket's options", error);
        // The system counts keepalive in whole seconds.
        let part = |count: u64| u32::try_from((patience.as_secs() / count).max(1)).unwrap_or(u32::MAX);
        let whole = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        setsockopt(&socket, sockopt::TcpNoDelay, &true).map_err(setting)?;
        setsockopt(&socket, sockopt::KeepAlive, &true).map_err(setting)?;
        setsockopt(&socket, sockopt::TcpKeepIdle, &part(2)).map_err(setting)?;
        setsockopt(&socket, sockopt::TcpKeepInterval, &part(6)).map_err(setting)?;
        setsockopt(&socket, sockopt::TcpUserTimeout, &whole).map_err(setting)?;
        socket.set_nonblocking(true).map_err(|error| Error::system("making a socket non-blocking", error))?;
        Ok(Socket { socket })
    }

    /// What is sent here goes behind what this host sends elsewhere, where the network interface's queue knows priorities.
    pub(super) fn yield_to_others(&self) {
        // Where the system does not want it, it is sent as everything else.
        let _ = setsockopt(&self.socket, sockopt::Priority, &BULK);
    }

    /// Sends from these parts what the socket takes now; gives how many bytes. `EAGAIN`: none.
    ///
    /// # Safety
    /// Every part is readable for its length. (Who writes them meanwhile gets them torn.)
    pub(super) unsafe fn send(&self, parts: &[Span]) -> nix::Result<usize> {
        let fd = self.socket.as_raw_fd();
        again(|| match parts {
            // SAFETY: the caller promised that the part is readable.
            [one] => unsafe { libc::send(fd, one.at().cast(), one.len(), libc::MSG_NOSIGNAL) },
            _ => {
                // SAFETY: all zero is a message without name, parts and control data.
                let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
                message.msg_iov = parts.as_ptr().cast_mut().cast();
                #[expect(clippy::useless_conversion, reason = "the field's type is the platform's affair")]
                {
                    message.msg_iovlen = parts.len().into();
                }
                // SAFETY: a span is an iovec; the caller promised what they say; the call changes none of them.
                unsafe { libc::sendmsg(fd, &raw const message, libc::MSG_NOSIGNAL) }
            }
        })
    }

    /// Fills these parts, in order, with what has arrived; gives how many bytes. 0: the other side has closed.
    /// `EAGAIN`: nothing has arrived.
    ///
    /// # Safety
    /// Every part is writable for its length, and no reference into it is used meanwhile.
    pub(super) unsafe fn receive(&self, parts: &[Span]) -> nix::Result<usize> {
        let fd = self.socket.as_raw_fd();
        let count = i32::try_from(parts.len()).map_err(|_| Errno::EINVAL)?;
        again(|| match parts {
            // SAFETY: the caller promised that the part is writable.
            [one] => unsafe { libc::recv(fd, one.at().cast(), one.len(), 0) },
            // SAFETY: a span is an iovec, and the caller promised what they say.
            _ => unsafe { libc::readv(fd, parts.as_ptr().cast(), count) },
        })
    }

    /// Sleeps until something has arrived, or, if `sending`, more can be sent; at most `limit`.
    pub(super) fn sleep(&self, sending: bool, limit: Duration) {
        let events = if sending { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        // An error is a short sleep, which every caller's loop expects.
        let _ = ppoll(&mut [PollFd::new(self.as_fd(), events)], Some(TimeSpec::from_duration(limit)), None);
    }

    /// Both directions end here: what the other side still sends is of no interest.
    pub(super) fn shut_down(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// For who has buffers of its own.
impl Read for &Socket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the buffer is the caller's, for this call alone.
        unsafe { self.receive(&[Span::new(bytes.as_mut_ptr(), bytes.len())]) }.map_err(io::Error::from)
    }
}

impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut parts = [Span::NONE; 8];
        let count = parts.iter_mut().zip(slices).map(|(part, slice)| *part = Span::of(slice)).count();
        // SAFETY: the parts are slices that live.
        unsafe { self.send(&parts[..count]) }.map_err(io::Error::from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes the call until no signal interrupts it.
fn again(mut call: impl FnMut() -> isize) -> nix::Result<usize> {
    loop {
        match Errno::result(call()) {
            Err(Errno::EINTR) => {}
            result => return result.map(isize::unsigned_abs),
        }
    }
}
