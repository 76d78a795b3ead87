//! Who has connected and not yet knocked. They are few, for a short time, and cost this side nothing that they choose:
//! with TLS one handshake, a part of it whenever a part has arrived.

use std::io::ErrorKind as Io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use zerocopy::IntoBytes;

use super::connection::End;
use super::fault::Fault;
use super::hub::FIRST;
use super::stream::Stream;
use super::tls::{Broken, Identity};
use super::wire::{Knock, Token};
use crate::sync::{AtomicBool, Ordering};
use crate::{Error, ErrorKind};

/// The most connections that have not knocked yet: for another, the oldest is closed.
const MAX_STRANGERS: usize = 64;
/// How long a connection may take to knock.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait when the system has no descriptor for a connection.
const REST: Duration = Duration::from_millis(10);

pub(super) struct Door {
    listener: TcpListener,
    /// Who this side is to those who knock by TLS.
    identity: Option<Identity>,
    patience: Duration,
    hall: Mutex<Hall>,
    /// Somebody is in the hall, or was not let in: there is something to do with time.
    busy: AtomicBool,
}

struct Hall {
    strangers: Vec<Stranger>,
    next: u64,
    /// Not all were accepted: try again from here on.
    retry: Option<Instant>,
}

struct Stranger {
    number: u64,
    stream: Stream,
    from: SocketAddr,
    until: Instant,
    bytes: [u8; size_of::<Knock>()],
    len: usize,
}

/// A connection that presented a token.
pub(super) struct Knocked {
    pub(super) number: u64,
    pub(super) stream: Stream,
    pub(super) from: SocketAddr,
    pub(super) token: Token,
}

impl Door {
    pub(super) fn new(listener: TcpListener, identity: Option<Identity>, patience: Duration) -> Door {
        let hall = Hall { strangers: Vec::with_capacity(MAX_STRANGERS), next: FIRST, retry: None };
        Door { listener, identity, patience, hall: Mutex::new(hall), busy: AtomicBool::new(false) }
    }

    /// Whether somebody stands at the door, or is to be let in later.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Lets in who waits outside; not more at a time than there is room for.
    pub(super) fn accept(&self, epoll: &Epoll) {
        let mut hall = self.hall();
        // What is not taken now gives no event of its own.
        hall.retry = Some(Instant::now());
        for _ in 0..MAX_STRANGERS {
            match self.listener.accept() {
                Ok((socket, from)) => {
                    if let Some(stream) = self.greet(socket) {
                        hall.enter(stream, from, epoll);
                    }
                }
                Err(error) if error.kind() == Io::WouldBlock => {
                    hall.retry = None;
                    break;
                }
                Err(error) if matches!(error.kind(), Io::ConnectionAborted | Io::Interrupted) => {}
                // Out of descriptors, or the like.
                Err(_) => {
                    hall.retry = Some(Instant::now() + REST);
                    break;
                }
            }
        }
        self.busy.store(true, Ordering::Release);
    }

    /// Closes who has been silent for too long, and tries again what did not work.
    pub(super) fn tick(&self, epoll: &Epoll, mut silent: impl FnMut(SocketAddr)) {
        if !self.busy.load(Ordering::Acquire) {
            return;
        }
        let now = Instant::now();
        let mut hall = self.hall();
        hall.strangers.retain_mut(|stranger| {
            let stays = now < stranger.until;
            if !stays {
                stranger.refuse(Fault::Silent);
                silent(stranger.from);
            }
            stays
        });
        let again = hall.retry.is_some_and(|at| now >= at);
        self.busy.store(!hall.strangers.is_empty() || hall.retry.is_some(), Ordering::Release);
        drop(hall);
        if again {
            self.accept(epoll);
        }
    }

    /// Reads what a stranger sent: a knock, why it is refused, or nothing that decides yet.
    pub(super) fn hear(&self, number: u64) -> Option<Result<Knocked, (SocketAddr, Error)>> {
        let mut hall = self.hall();
        let at = hall.strangers.iter().position(|stranger| stranger.number == number)?;
        let heard = hall.strangers[at].hear();
        if matches!(heard, Ok(None)) {
            return None;
        }
        let mut stranger = hall.strangers.remove(at);
        drop(hall);
        match heard {
            Ok(Some(knock)) => {
                let Stranger { number, stream, from, .. } = stranger;
                Some(Ok(Knocked { number, stream, from, token: knock.token }))
            }
            Ok(None) => None,
            Err(End::Fault(fault)) => {
                stranger.refuse(fault);
                Some(Err((stranger.from, fault.error())))
            }
            Err(End::Lost(error)) => {
                stranger.stream.shut_down();
                Some(Err((stranger.from, error)))
            }
        }
    }

    /// `None`: the system or TLS does not want it.
    fn greet(&self, socket: TcpStream) -> Option<Stream> {
        let mut stream = Stream::new(socket, self.patience).ok()?;
        if let Some(identity) = &self.identity {
            stream.encrypt(identity.serve().ok()?);
        }
        Some(stream)
    }

    fn hall(&self) -> MutexGuard<'_, Hall> {
        self.hall.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hall {
    fn enter(&mut self, stream: Stream, from: SocketAddr, epoll: &Epoll) {
        let number = self.next;
        self.next += 1;
        let edge = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        if epoll.add(&stream, EpollEvent::new(edge, number)).is_err() {
            return;
        }
        if self.strangers.len() == MAX_STRANGERS {
            self.strangers.remove(0).refuse(Fault::Silent);
        }
        let until = Instant::now() + PATIENCE;
        let bytes = [0; size_of::<Knock>()];
        self.strangers.push(Stranger { number, stream, from, until, bytes, len: 0 });
    }
}

impl Stranger {
    /// The knock when it is whole.
    fn hear(&mut self) -> Result<Option<Knock>, End> {
        if !self.shake()? {
            return Ok(None);
        }
        while self.len < self.bytes.len() {
            match self.stream.read(&mut self.bytes[self.len..]) {
                Ok(received) if received.bytes > 0 => self.len += received.bytes,
                Err(Errno::EAGAIN) => return Ok(None),
                Ok(_) | Err(_) => return Err(Fault::Silent.into()),
            }
        }
        Ok(Some(Knock::parse(&self.bytes)?))
    }

    /// A part of the handshake: what has arrived of it. True: it is done, or there is none.
    fn shake(&mut self) -> Result<bool, End> {
        self.stream.shake().map_err(|broken| match broken {
            Broken::Closed | Broken::System(_) => Fault::Silent.into(),
            Broken::NotTls => {
                self.stream.speak_plainly();
                Fault::Plain.into()
            }
            Broken::Tls(error) => {
                let text = format!("the TLS handshake of an initiator failed: {error}");
                End::Lost(Error::endpoint(ErrorKind::Protocol, text))
            }
        })
    }

    fn refuse(&mut self, fault: Fault) {
        // In the middle of a handshake nothing can be told.
        let _ = self.stream.write(fault.to_head().as_bytes());
        self.stream.shut_down();
    }
}
