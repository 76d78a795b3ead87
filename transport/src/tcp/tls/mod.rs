//! TLS around a socket that does not block. What is sent goes through one buffer, because memory that others write
//! cannot be encrypted where it stands; what is received goes from its record straight to its place.
//!
//! Memory is bounded: nothing is encrypted before the system has taken all records before it, and nothing is received
//! before the plaintext at hand has gone to its place.

mod keys;

use std::io::{self, BufRead, Write};

use nix::errno::Errno;
use rustls::{Connection, InvalidMessage};

use super::socket::{Socket, Span};
use super::stream::Received;
use crate::memory::{copy, loss};
use crate::{Error, ErrorKind};
pub(super) use keys::{Identity, client};

/// The most plaintext that is encrypted at a time.
const AHEAD: usize = 64 << 10;
/// So many reads before it is another's turn: a record may come in the smallest parts, and while it does nothing of it
/// counts. (Of empty records rustls takes few.)
const READS: usize = 64;
/// What receiving and sending give when TLS has ended the connection; the other side got an alert.
pub(super) const BROKEN: Errno = Errno::EBADMSG;

pub(super) struct Tls {
    session: Connection,
    /// Where plaintext stands before it is encrypted; nothing before the first.
    clear: Vec<u8>,
    /// So much plaintext was encrypted whose records the system has not all taken. It is not counted as sent before.
    unsent: usize,
}

/// Why TLS does not go on.
#[derive(Debug)]
pub(super) enum Broken {
    /// The other side has closed.
    Closed,
    /// The other side does not speak TLS.
    NotTls,
    /// What it said is wrong, or it refuses what this side said.
    Tls(rustls::Error),
    /// The system says so. `EAGAIN`: nothing is broken.
    System(Errno),
}

impl Tls {
    pub(super) fn new(session: impl Into<Connection>) -> Tls {
        let mut session = session.into();
        session.set_buffer_limit(Some(AHEAD));
        Tls { session, clear: Vec::new(), unsent: 0 }
    }

    /// Goes on with the handshake as far as the socket lets it. True: it is done.
    pub(super) fn shake(&mut self, socket: &Socket) -> Result<bool, Broken> {
        loop {
            let step = match (self.session.wants_write(), self.session.is_handshaking()) {
                (true, _) => self.push(socket).map_err(Broken::System),
                (false, true) => self.pull(socket),
                (false, false) => return Ok(true),
            };
            match step {
                Ok(()) => {}
                Err(Broken::System(Errno::EAGAIN)) => return Ok(false),
                Err(broken) => return Err(broken),
            }
        }
    }

    /// As [`Stream::send`](super::stream::Stream::send). Bytes count as sent when the system has taken all of their
    /// records: until then the caller keeps them, and calls again.
    ///
    /// # Safety
    /// Every part is readable for its length.
    pub(super) unsafe fn send(&mut self, socket: &Socket, parts: &[Span]) -> nix::Result<usize> {
        if self.session.is_handshaking() {
            return Err(Errno::EAGAIN);
        }
        if self.unsent == 0 {
            // SAFETY: the caller's promise is the callee's condition.
            let len = unsafe { self.gather(parts)? };
            self.unsent = self.session.writer().write(&self.clear[..len]).map_err(|_| BROKEN)?;
        }
        self.push(socket)?;
        Ok(std::mem::take(&mut self.unsent))
    }

    /// As [`Stream::receive`](super::stream::Stream::receive).
    ///
    /// # Safety
    /// Every part is writable for its length, and no reference into it is used meanwhile.
    pub(super) unsafe fn receive(&mut self, socket: &Socket, parts: &[Span]) -> nix::Result<Received> {
        let (mut parts, mut bytes) = (Parts::new(parts), 0);
        for _ in 0..READS {
            // SAFETY: the caller's promise is the callee's condition.
            bytes += unsafe { self.place(&mut parts) };
            if self.holds_plaintext() {
                break;
            }
            match self.pull(socket) {
                Ok(()) => {}
                Err(Broken::Tls(_) | Broken::NotTls) => return Err(BROKEN),
                // What came before the end counts first; the end will be met again.
                Err(Broken::System(error)) if bytes > 0 => {
                    return Ok(Received { bytes, drained: error == Errno::EAGAIN, closed: false });
                }
                Err(Broken::System(error)) => return Err(error),
                Err(Broken::Closed) => return Ok(Received { bytes, drained: false, closed: bytes == 0 }),
            }
        }
        Ok(Received { bytes, drained: false, closed: false })
    }

    /// Whether bytes are half sent that `send` has not counted.
    pub(super) fn is_sending(&self) -> bool {
        self.unsent > 0
    }

    /// Whether records wait for the system to take them.
    pub(super) fn wants_write(&self) -> bool {
        self.session.wants_write()
    }

    /// Whether something has arrived of which the system knows nothing any more.
    pub(super) fn holds_plaintext(&mut self) -> bool {
        self.session.reader().fill_buf().is_ok_and(|bytes| !bytes.is_empty())
    }

    /// Copies what is to be encrypted next; gives how much. `EFAULT`: memory of a part is gone.
    ///
    /// # Safety
    /// Every part is readable for its length.
    unsafe fn gather(&mut self, parts: &[Span]) -> nix::Result<usize> {
        self.clear.resize(AHEAD, 0);
        let mut len = 0;
        for part in parts {
            let part = part.first(AHEAD - len);
            let to = self.clear[len..][..part.len()].as_mut_ptr();
            // SAFETY: the part is readable (caller), and there is room for it in a buffer of this side's own.
            unsafe { copy(part.at(), to, part.len()) };
            // The system would say so of its own copy.
            if loss::any() && loss::check_at(part.at(), part.len()).is_err() {
                return Err(Errno::EFAULT);
            }
            len += part.len();
        }
        Ok(len)
    }

    /// Moves plaintext to its place, as far as there is some and there is room; gives how much.
    ///
    /// # Safety
    /// Every part is writable for its length, and no reference into it is used meanwhile.
    unsafe fn place(&mut self, parts: &mut Parts<'_>) -> usize {
        let (mut reader, mut bytes) = (self.session.reader(), 0);
        while let Ok(chunk) = reader.fill_buf() {
            let to = parts.next(chunk.len());
            if to.len() == 0 {
                break;
            }
            // SAFETY: the part is writable (caller), and at most as long as the chunk, which is this side's own.
            unsafe { copy(chunk.as_ptr(), to.at(), to.len()) };
            reader.consume(to.len());
            bytes += to.len();
        }
        bytes
    }

    /// Takes records from the socket, and decrypts those that are whole.
    fn pull(&mut self, mut socket: &Socket) -> Result<(), Broken> {
        match self.session.read_tls(&mut socket) {
            Ok(0) => return Err(Broken::Closed),
            Ok(_) => {}
            Err(error) => return Err(Broken::System(errno(&error))),
        }
        match self.session.process_new_packets() {
            Ok(_) => Ok(()),
            Err(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Err(Broken::NotTls),
            Err(error) => {
                let _ = self.push(socket); // The alert.
                Err(Broken::Tls(error))
            }
        }
    }

    /// Has the system take every record. `EAGAIN`: not now.
    fn push(&mut self, mut socket: &Socket) -> nix::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut socket).map_err(|error| errno(&error))?;
        }
        Ok(())
    }
}

/// Parts that are filled in order.
struct Parts<'p> {
    part: Span,
    rest: std::slice::Iter<'p, Span>,
}

impl<'p> Parts<'p> {
    fn new(parts: &'p [Span]) -> Parts<'p> {
        Parts { part: Span::NONE, rest: parts.iter() }
    }

    /// Where the next bytes go, at most `len`. Empty: there is no room, or `len` is 0.
    fn next(&mut self, len: usize) -> Span {
        while self.part.len() == 0 {
            let Some(next) = self.rest.next() else { return Span::NONE };
            self.part = *next;
        }
        let next = self.part.first(len);
        self.part = self.part.skip(next.len());
        next
    }
}

/// [`BROKEN`] for people.
pub(super) fn broken() -> Error {
    Error::endpoint(ErrorKind::Protocol, "TLS ended the connection: what came was changed on the way, or an alert")
}

/// What the socket said through rustls; what rustls said itself is none of the system's errors.
fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(BROKEN, Errno::from_raw)
}
