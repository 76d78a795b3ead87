//! The target's processor work of a domain: any number of threads call `progress`, and sleep in one epoll.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::connection::Connection;
use super::door::{Door, Knocked};
use super::fault::Fault;
use super::options::Options;
use super::peer::Admission;
use super::queue::Queue;
use super::tls::Identity;
use super::wire::Token;
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::{Error, Result};

/// What events call the listening socket.
pub(super) const LISTENER: u64 = 0;
/// What events call the eventfd that ends a sleep.
const WAKE: u64 = 1;
/// The first number of a connection. Numbers are not used again, so a late event harms nobody.
pub(super) const FIRST: u64 = 2;
/// After so much work (turns, and KiB) the system is asked for others, however busy the ones at hand are.
const ASK: u64 = 64;
/// How often to look whether somebody at the door has been silent for too long.
const TICK: Duration = Duration::from_millis(10);

pub(super) struct Hub {
    epoll: Epoll,
    wake: EventFd,
    sleepers: AtomicU64,
    /// A connection was added to the queue from outside.
    called: AtomicBool,
    queue: Queue,
    unasked: AtomicU64,
    door: Option<Door>,
    expected: Mutex<HashMap<Token, Weak<Admission>>>,
    peers: Mutex<HashMap<u64, Arc<Admission>>>,
    options: Options,
}

impl Hub {
    pub(super) fn new(listener: Option<TcpListener>, identity: Option<Identity>, options: Options) -> Result<Hub> {
        let saying = |error: nix::Error| Error::system("making an epoll", error);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(saying)?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = EventFd::from_flags(flags).map_err(saying)?;
        let edge = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(&wake, EpollEvent::new(edge, WAKE)).map_err(saying)?;
        if let Some(listener) = &listener {
            epoll.add(listener, EpollEvent::new(edge, LISTENER)).map_err(saying)?;
        }
        Ok(Hub {
            epoll,
            wake,
            sleepers: AtomicU64::new(0),
            called: AtomicBool::new(false),
            queue: Queue::default(),
            unasked: AtomicU64::new(0),
            door: listener.map(|listener| Door::new(listener, identity, options.patience)),
            expected: Mutex::default(),
            peers: Mutex::default(),
            options,
        })
    }

    /// Lets the admitted peer knock.
    pub(super) fn expect(&self, admission: &Arc<Admission>) {
        lock(&self.expected).insert(admission.token, Arc::downgrade(admission));
    }

    /// Forgets a peer: its token opens nothing, and its connection has no number.
    pub(super) fn forget(&self, admission: &Admission) {
        lock(&self.expected).remove(&admission.token);
        let mut peers = lock(&self.peers);
        peers.remove(&admission.number.load(Ordering::Acquire));
    }

    /// Serves a connection soon, although its socket has no news; ends a sleep if need be.
    pub(super) fn call(&self, admission: &Arc<Admission>) {
        self.queue.add(admission);
        self.called.store(true, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.wake();
        }
    }

    /// Ends a sleep, or the next one.
    pub(super) fn wake(&self) {
        let _ = self.wake.write(1); // Full means that it is awake.
    }

    /// One turn for every connection in the queue; gives how much was done.
    pub(super) fn progress(&self) -> usize {
        let mut work = 0;
        for _ in 0..self.queue.len() {
            let Some(next) = self.queue.take() else { break };
            work += self.serve(next);
        }
        let unasked = self.unasked.fetch_add(1 + work as u64, Ordering::Relaxed);
        if work == 0 || unasked >= ASK {
            work += self.ask(EpollTimeout::ZERO);
        }
        work
    }

    /// Sleeps until something happens, at most `limit`.
    pub(super) fn sleep(&self, limit: Duration) {
        let limit = if self.door.as_ref().is_some_and(Door::is_busy) { limit.min(TICK) } else { limit };
        // Rounded up, so that a short limit does not become a spin.
        let limit = EpollTimeout::try_from(limit + Duration::from_micros(999)).unwrap_or(EpollTimeout::MAX);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let called = self.called.swap(false, Ordering::SeqCst);
        self.ask(if called { EpollTimeout::ZERO } else { limit });
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    fn serve(&self, next: Arc<Admission>) -> usize {
        match next.turn() {
            Ok(turn) => {
                self.queue.put_back(next, turn);
                turn.bytes.div_ceil(1024) + usize::from(!turn.drained)
            }
            Err(ended) => {
                self.forget(&next);
                if let Some((from, error)) = ended {
                    self.options.tell(from, &error);
                }
                1
            }
        }
    }

    /// Takes the system's events. They tell of changes, so each is acted on now.
    fn ask(&self, limit: EpollTimeout) -> usize {
        self.unasked.store(0, Ordering::Relaxed);
        let mut events = [EpollEvent::empty(); 32];
        // An error is a short sleep, which every caller's loop expects.
        let count = self.epoll.wait(&mut events, limit).unwrap_or(0);
        for event in &events[..count] {
            match event.data() {
                LISTENER => self.door.iter().for_each(|door| door.accept(&self.epoll)),
                WAKE => drop(self.wake.read()),
                number => self.news(number, event.events()),
            }
        }
        if let Some(door) = &self.door {
            door.tick(&self.epoll, |from| self.options.tell(from, &Fault::Silent.error()));
        }
        count
    }

    fn news(&self, number: u64, what: EpollFlags) {
        let known = lock(&self.peers).get(&number).cloned();
        match (known, &self.door) {
            (Some(admission), _) => {
                if what.intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
                    admission.ends();
                }
                self.queue.add(&admission);
            }
            (None, Some(door)) => match door.hear(number) {
                Some(Ok(knocked)) => self.open(knocked),
                Some(Err((from, error))) => self.options.tell(from, &error),
                None => {}
            },
            (None, None) => {}
        }
    }

    /// A right token opens the connection, once.
    fn open(&self, knocked: Knocked) {
        let from = knocked.from;
        let expected = lock(&self.expected).remove(&knocked.token);
        let connection = Box::new(Connection::new(knocked.stream, from));
        let opened = match expected.and_then(|admission| admission.upgrade()) {
            Some(admission) => admission.connect(connection).map(|()| self.know(knocked.number, &admission)),
            None => {
                connection.end(Some(Fault::Token));
                Err(Fault::Token.error())
            }
        };
        if let Err(error) = opened {
            self.options.tell(from, &error);
        }
    }

    /// From here on events of this number are this peer's; those that came before are made up for by a first turn.
    fn know(&self, number: u64, admission: &Arc<Admission>) {
        let mut peers = lock(&self.peers);
        admission.number.store(number, Ordering::Release);
        peers.insert(number, admission.clone());
        drop(peers);
        // Whoever ended it before has found no number to forget.
        if admission.is_over() {
            self.forget(admission);
        }
        self.queue.add(admission);
    }

    /// Where peers connect, as this side knows it.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.door.as_ref().and_then(Door::address)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
