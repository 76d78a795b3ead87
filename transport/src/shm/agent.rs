//! One thread per domain: answers knocks, and notices closed sockets. No data passes through it, and it sleeps unless
//! somebody connects or goes.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::directory::SOCKET;
use super::peer::Admission;
use super::socket::{self, Listener};
use super::wire::{Knock, Token};
use crate::random::random;
use crate::sync::{AtomicBool, Ordering};
use crate::{Error, Result};

/// The most connections that have not knocked yet: more are closed at once, the oldest first.
const MAX_STRANGERS: usize = 64;
/// How long a connection may take to knock.
const PATIENCE: Duration = Duration::from_secs(2);

/// The running thread. Dropping it ends the thread.
pub(super) struct Agent {
    shared: Arc<Shared>,
    address: Vec<u8>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    wake: EventFd,
    stop: AtomicBool,
    /// Who may knock, by token.
    expected: Mutex<HashMap<Token, Weak<Admission>>>,
    /// Sockets of endpoints, on their way to the thread.
    new: Mutex<Vec<Watched>>,
}

/// A socket whose end is of interest.
struct Watched {
    socket: OwnedFd,
    whom: Whom,
}

enum Whom {
    /// The target of an endpoint here.
    Target(Weak<AtomicBool>),
    /// The initiator of a peer here.
    Initiator(Weak<Admission>),
}

/// A connection that has not presented a token.
struct Stranger {
    socket: OwnedFd,
    until: Instant,
}

/// An endpoint's view of its target.
pub(super) struct Watch {
    gone: Arc<AtomicBool>,
    agent: Arc<Agent>,
}

impl Watch {
    pub(super) fn new(agent: Arc<Agent>, socket: OwnedFd) -> Watch {
        let gone = Arc::new(AtomicBool::new(false));
        lock(&agent.shared.new).push(Watched { socket, whom: Whom::Target(Arc::downgrade(&gone)) });
        agent.shared.wake();
        Watch { gone, agent }
    }

    /// Whether the target's socket was closed.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The thread closes the socket when it finds that nobody holds the flag.
        self.gone = Arc::new(AtomicBool::new(true));
        self.agent.shared.wake();
    }
}

impl Agent {
    pub(super) fn start(directory: Option<&Path>) -> Result<Agent> {
        let name = format!("{SOCKET}{:032x}", u128::from_ne_bytes(random()?));
        let listener = Listener::bind(directory, &name)?;
        let address = listener.address.clone();
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = EventFd::from_flags(flags).map_err(|error| Error::system("making an eventfd", error))?;
        let shared =
            Arc::new(Shared { wake, stop: AtomicBool::new(false), expected: Mutex::default(), new: Mutex::default() });
        let body = Loop { shared: shared.clone(), listener, strangers: Vec::new(), watched: Vec::new() };
        let thread = std::thread::Builder::new().name("segstore-shm".into()).spawn(move || body.run());
        let thread = thread.map_err(|error| Error::system("starting the shm agent's thread", error))?;
        Ok(Agent { shared, address, thread: Some(thread) })
    }

    /// Where the thread listens.
    pub(super) fn address(&self) -> &[u8] {
        &self.address
    }

    /// Lets the admitted peer knock.
    pub(super) fn expect(&self, admission: &Arc<Admission>) {
        lock(&self.shared.expected).insert(admission.token, Arc::downgrade(admission));
    }

    /// Forgets a peer: its token opens nothing, and its socket is closed.
    pub(super) fn forget(&self, admission: &Admission) {
        lock(&self.shared.expected).remove(&admission.token);
        admission.is_gone();
        self.shared.wake();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn wake(&self) {
        let _ = self.wake.write(1); // Full means that it is awake.
    }
}

/// What the thread holds.
struct Loop {
    shared: Arc<Shared>,
    listener: Listener,
    strangers: Vec<Stranger>,
    watched: Vec<Watched>,
}

impl Loop {
    fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            let ready = self.wait();
            let _ = self.shared.wake.read();
            // Ready flags are in the order of `wait`: listener and eventfd, strangers, watched.
            let (strangers, watched) = ready.split_at(self.strangers.len());
            self.drop_watched(watched);
            self.hear_strangers(strangers);
            self.accept();
            self.watched.append(&mut lock(&self.shared.new));
        }
    }

    /// Sleeps until something happens; tells which strangers and which watched sockets have news.
    fn wait(&self) -> Vec<bool> {
        let mut fds = vec![
            PollFd::new(self.listener.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.shared.wake.as_fd(), PollFlags::POLLIN),
        ];
        let sockets = self.strangers.iter().map(|s| &s.socket).chain(self.watched.iter().map(|w| &w.socket));
        fds.extend(sockets.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
        let left = self.strangers.first().map(|first| first.until.saturating_duration_since(Instant::now()));
        // Rounded up, so that a time-out does not become a spin.
        let left = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        if poll(&mut fds, left).is_err() {
            return vec![false; fds.len() - 2];
        }
        fds[2..].iter().map(|fd| fd.any().unwrap_or(true)).collect()
    }

    /// A watched socket carries nothing after the welcome: news is its end.
    fn drop_watched(&mut self, ready: &[bool]) {
        let mut ready = ready.iter();
        self.watched.retain(|watched| {
            let ended = ready.next().is_some_and(|&news| news);
            match &watched.whom {
                Whom::Target(gone) => gone.upgrade().is_some_and(|gone| {
                    gone.fetch_or(ended, Ordering::AcqRel);
                    !ended
                }),
                Whom::Initiator(admission) => admission.upgrade().is_some_and(|admission| {
                    if ended {
                        admission.is_gone();
                    }
                    !ended && admission.is_welcome()
                }),
            }
        });
    }

    fn hear_strangers(&mut self, ready: &[bool]) {
        let now = Instant::now();
        let heard = std::mem::take(&mut self.strangers).into_iter().zip(ready);
        for (stranger, &news) in heard {
            if news {
                self.answer(stranger.socket);
            } else if stranger.until > now {
                self.strangers.push(stranger);
            }
        }
    }

    /// A right token gets the descriptors; anything else gets the socket closed.
    fn answer(&mut self, socket: OwnedFd) {
        let mut bytes = [0; size_of::<Knock>()];
        let Ok((len, _)) = socket::receive(&socket, &mut bytes) else { return };
        let Ok(knock) = Knock::parse(&bytes[..len]) else { return };
        let expected = lock(&self.shared.expected).remove(&knock.token);
        if let Some(admission) = expected.and_then(|admission| admission.upgrade()) {
            if admission.welcome(&socket).is_ok() {
                self.watched.push(Watched { socket, whom: Whom::Initiator(Arc::downgrade(&admission)) });
            } else {
                admission.is_gone();
            }
        }
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok(socket) => {
                    if self.strangers.len() == MAX_STRANGERS {
                        self.strangers.remove(0);
                    }
                    self.strangers.push(Stranger { socket, until: Instant::now() + PATIENCE });
                }
                Err(nix::Error::EAGAIN) => return,
                // Out of descriptors, or the like: the connection still waits, so do not come back at once.
                Err(_) => return std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
