//! One connection, plain or TLS: everything above sends and receives through [`Stream`] only.

use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::socket::{Socket, Span};
use super::tls::{Broken, Tls};
use crate::Result;

pub(super) struct Stream {
    socket: Socket,
    tls: Option<Box<Tls>>,
}

/// What one call brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub(super) bytes: usize,
    /// There is nothing more for now.
    pub(super) drained: bool,
    /// Nor will there be: the other side has closed. Without that 0 bytes mean that a record is not whole.
    pub(super) closed: bool,
}

impl Stream {
    /// A connected socket from here on, without TLS until it is [encrypted](Stream::encrypt).
    pub(super) fn new(socket: TcpStream, patience: Duration) -> Result<Stream> {
        Ok(Stream { socket: Socket::new(socket, patience)?, tls: None })
    }

    /// What is sent here goes behind what this host sends elsewhere.
    pub(super) fn yield_to_others(&self) {
        self.socket.yield_to_others();
    }

    /// Everything from here on is TLS.
    pub(super) fn encrypt(&mut self, tls: Tls) {
        self.tls = Some(Box::new(tls));
    }

    /// The other side does not speak TLS: what is said to it from here on is plain.
    pub(super) fn speak_plainly(&mut self) {
        self.tls = None;
    }

    /// Goes on with the handshake, if there is one. True: it is done.
    pub(super) fn shake(&mut self) -> std::result::Result<bool, Broken> {
        self.tls.as_mut().map_or(Ok(true), |tls| tls.shake(&self.socket))
    }

    /// Sends from these parts what the socket takes now; gives how many bytes. `EAGAIN`: none, or none yet: the next
    /// call begins with the same bytes.
    ///
    /// # Safety
    /// Every part is readable for its length. (Who writes them meanwhile gets them torn.)
    pub(super) unsafe fn send(&mut self, parts: &[Span]) -> nix::Result<usize> {
        match &mut self.tls {
            // SAFETY: the caller's promise is the callee's condition.
            None => unsafe { self.socket.send(parts) },
            // SAFETY: the caller's promise is the callee's condition.
            Some(tls) => unsafe { tls.send(&self.socket, parts) },
        }
    }

    /// Fills these parts, in order, with what has arrived. `EAGAIN`: nothing has.
    ///
    /// # Safety
    /// Every part is writable for its length, and no reference into it is used meanwhile.
    pub(super) unsafe fn receive(&mut self, parts: &[Span]) -> nix::Result<Received> {
        match &mut self.tls {
            None => {
                let room: usize = parts.iter().map(Span::len).sum();
                // SAFETY: the caller's promise is the callee's condition.
                let bytes = unsafe { self.socket.receive(parts)? };
                Ok(Received { bytes, drained: bytes < room, closed: bytes == 0 })
            }
            // SAFETY: the caller's promise is the callee's condition.
            Some(tls) => unsafe { tls.receive(&self.socket, parts) },
        }
    }

    /// [`Stream::send`] from one buffer.
    pub(super) fn write(&mut self, bytes: &[u8]) -> nix::Result<usize> {
        // SAFETY: the part is a slice that lives.
        unsafe { self.send(&[Span::of(bytes)]) }
    }

    /// [`Stream::receive`] into one buffer.
    pub(super) fn read(&mut self, bytes: &mut [u8]) -> nix::Result<Received> {
        // SAFETY: the buffer is the caller's, for this call alone.
        unsafe { self.receive(&[Span::new(bytes.as_mut_ptr(), bytes.len())]) }
    }

    /// Whether bytes are half sent that `send` has not counted.
    pub(super) fn is_sending(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_sending())
    }

    /// Sleeps until something has arrived, or, if `sending`, more can be sent; at most `limit`.
    pub(super) fn sleep(&mut self, mut sending: bool, limit: Duration) {
        if let Some(tls) = &mut self.tls {
            if tls.holds_plaintext() {
                return;
            }
            sending |= tls.wants_write();
        }
        self.socket.sleep(sending, limit);
    }

    /// Both directions end here: what the other side still sends is of no interest.
    pub(super) fn shut_down(&self) {
        self.socket.shut_down();
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
