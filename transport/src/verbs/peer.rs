//! The target's side: a queue pair and windows for one initiator, and their end.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ibverbs_sys::ibv_access_flags;
use ibverbs_sys::ibv_wc_status::IBV_WC_SUCCESS;

use super::completions::{BATCH, Completions, Done};
use super::fault::{self, Goodbye};
use super::notifications::{Notifications, RECEIVED, ROOM};
use super::options::Options;
use super::queue_pair::{Depth, QueuePair, Terms};
use super::registration::{ProtectionDomain, Registration, remote_access};
use super::requests::Requests;
use super::window::Window;
use super::wire::{Hello, MAX_GRANTS, Message, Opened, Reply, kind};
use crate::contract::driver::PeerDriver;
use crate::setup::ADMITTED;
use crate::sync::{AtomicBool, AtomicU64, Ordering, fence as barrier};
use crate::{Error, ErrorKind, Keep, PeerStatistics, Result, Revocation, Rights, Scope};

/// One list of requests: a window of each grant, and a message.
const REQUESTS: u32 = MAX_GRANTS + 1;
/// How often it is looked at most whether a peer is still there.
const PROBES: Duration = Duration::from_millis(50);
/// How long the device may take to bind windows. It says so much sooner if it cannot.
const BINDING: Duration = Duration::from_secs(5);

/// What one peer was admitted to.
pub(super) struct Admission {
    link: Mutex<Link>,
    completions: Arc<Completions>,
    /// Nobody is connected, nor can be any more.
    over: AtomicBool,
    failure: OnceLock<Error>,
    taken: AtomicU64,
    options: Options,
}

/// Whoever works with the queue pair holds it.
struct Link {
    // Field order is drop order: windows go before the queue pair that they are bound to, and that before what it may still
    // use.
    windows: Vec<Window>,
    queue_pair: QueuePair,
    registrations: Vec<Arc<Registration>>,
    notifications: Notifications,
    requests: Requests,
    /// Requests posted, and done by the device's word.
    posted: u64,
    done: u64,
    /// The peer has knocked.
    connected: bool,
    /// Until when it may.
    until: Instant,
    /// When it was looked last whether the peer is there.
    probed: Option<Instant>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// The queue pair has still to go. What goes wrong from here on is no fault of the peer's.
    Ending,
    Over,
}

impl Admission {
    /// A queue pair in the protection domain of what is to be granted.
    pub(super) fn new(domain: &Arc<ProtectionDomain>, options: Options) -> Result<Admission> {
        let depth = Depth { requests: 2 * REQUESTS, messages: ROOM };
        let queue = Completions::new(domain.device.clone(), depth.requests + depth.messages)?;
        let completions = Arc::new(queue);
        let queue_pair = QueuePair::new(domain, &completions, depth)?;
        let notifications = Notifications::new(domain)?;
        notifications.make_room(&queue_pair)?;
        let link = Link {
            queue_pair,
            windows: Vec::new(),
            registrations: Vec::new(),
            notifications,
            requests: Requests::new(REQUESTS as usize),
            posted: 0,
            done: 0,
            connected: false,
            until: Instant::now() + ADMITTED,
            probed: None,
            stage: Stage::Open,
        };
        Ok(Admission {
            link: Mutex::new(link),
            completions,
            over: AtomicBool::new(false),
            failure: OnceLock::new(),
            taken: AtomicU64::new(0),
            options,
        })
    }

    /// From here on the peer that sent `hello` may connect, and use these registrations with these rights.
    ///
    /// # Errors
    /// `Moved` when the memory has moved meanwhile; what the device said.
    pub(super) fn open(&self, hello: &Hello, grants: Vec<(Arc<Registration>, Rights)>) -> Result<Reply> {
        let mut link = self.link();
        if link.stage != Stage::Open {
            return Err(Goodbye::Moved.error().with_scope(Scope::Operation));
        }
        let device = &self.completions.device;
        let access = grants.iter().fold(0, |access, (_, rights)| access | remote_access(*rights));
        let reads = device.limits.reads.1.min(hello.reads);
        // Its own count of notifications is for the peer to read.
        let access = access | ibv_access_flags::IBV_ACCESS_REMOTE_READ.0;
        let terms = Terms::new(access, (1, reads), &self.options);
        link.queue_pair.connect(&hello.address, terms)?;
        let opened: Vec<Opened> = grants
            .into_iter()
            .map(|(registration, rights)| link.grant(registration, rights, &self.options))
            .collect::<Result<_>>()?;
        if link.requests.len() > 0 {
            link.post()?;
            self.settle(&mut link, Instant::now() + BINDING);
            if link.done < link.posted {
                return Err(self.failure.get().cloned().unwrap_or_else(slow).with_scope(Scope::Operation));
            }
        }
        let (answers, taken) = (hello.address.first_packet.get(), link.notifications.word());
        Ok(Reply { address: link.queue_pair.address(), reads, answers, taken, grants: opened })
    }

    /// Makes sure that nothing of the peer lands any more, after telling it why if it listens.
    pub(super) fn end(&self, why: Goodbye) -> Result<Revocation> {
        let mut link = self.link();
        if link.stage == Stage::Open {
            self.hear(&mut link);
            let listens = link.connected && !self.is_over();
            link.stage = Stage::Ending;
            if why == Goodbye::Revoked {
                // Who writes from here on is told at once. (One that only moves may come again: it hears nothing but why.)
                link.windows.clear();
            }
            // Whether the peer hears it or not, its queue pair goes.
            if listens && link.say(why).is_ok() {
                self.settle(&mut link, Instant::now() + self.options.courtesy);
            }
            // Notifications that came are to be seen: taking a queue pair away may forget them.
            let _ = link.queue_pair.stop();
            self.hear(&mut link);
        }
        self.over.store(true, Ordering::Release);
        if link.stage == Stage::Ending {
            link.windows.clear();
            link.queue_pair.take_away()?;
            link.registrations.clear();
            link.stage = Stage::Over;
        }
        barrier(Ordering::SeqCst);
        Ok(if link.connected { Revocation::AccessRemoved } else { Revocation::NeverConnected })
    }

    /// The region leaves its memory: what the peer completed before is in it, and nothing is completed afterwards.
    pub(super) fn leave(&self) {
        let _ = self.failure.set(Goodbye::Moved.error());
        // Where it fails the device is gone, which completes nothing.
        let _ = self.end(Goodbye::Moved);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Waits until what was posted is done, something failed, or `end`.
    fn settle(&self, link: &mut Link, end: Instant) {
        loop {
            // An event of what is seen by the second look is one more round.
            let armed = self.completions.arm();
            self.hear(link);
            let left = end.saturating_duration_since(Instant::now());
            if link.done >= link.posted || self.is_over() || left.is_zero() || armed.is_err() {
                return;
            }
            self.completions.sleep(left);
        }
    }

    /// Takes what the device has to say.
    fn hear(&self, link: &mut Link) {
        loop {
            let found = match self.completions.poll() {
                Ok(found) => found,
                Err(error) => return self.fail(link, error),
            };
            let mut count = 0;
            for done in found {
                count += 1;
                if let Err(error) = link.take(done, &self.completions) {
                    self.fail(link, error);
                }
            }
            if count < BATCH {
                break;
            }
        }
        if let Err(error) = self.completions.device.health.check() {
            self.fail(link, error);
        }
        if !link.connected && Instant::now() > link.until {
            let text = format!("the peer was let in and has not connected within {} s", ADMITTED.as_secs());
            self.fail(link, Error::endpoint(ErrorKind::PeerGone, text));
        }
    }

    fn fail(&self, link: &Link, error: Error) {
        if self.is_over() {
            return; // The first reason counts.
        }
        if link.stage == Stage::Open {
            let scope = error.scope().max(Scope::Endpoint);
            let _ = self.failure.set(error.with_scope(scope));
        }
        self.over.store(true, Ordering::Release);
        let _ = link.queue_pair.stop();
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slow() -> Error {
    Error::operation(ErrorKind::TimedOut, "the device did not bind memory windows in time: it is overloaded or broken")
}

impl Link {
    /// The key to one region, and how the peer may use it.
    fn grant(&mut self, registration: Arc<Registration>, rights: Rights, options: &Options) -> Result<Opened> {
        let (base, len) = (registration.base(), registration.memory.len() as u64);
        let access = remote_access(rights);
        let key = if access == 0 {
            0
        } else if options.windows && registration.domain.device.limits.windows {
            let window = Window::new(registration.clone(), access)?;
            self.requests.bind(&window);
            self.windows.push(window);
            self.windows.last().map_or(0, |window| window.key)
        } else {
            registration.remote_key()
        };
        self.registrations.push(registration);
        Ok(Opened { base, len, key, rights })
    }

    fn say(&mut self, why: Goodbye) -> Result<()> {
        self.requests.clear();
        self.requests.message(why.to_message());
        self.post()
    }

    fn probe(&mut self) -> Result<()> {
        self.requests.clear();
        self.requests.probe();
        self.probed = Some(Instant::now());
        self.post()
    }

    fn post(&mut self) -> Result<()> {
        self.posted += self.requests.len() as u64;
        // SAFETY: messages travel in their requests, windows and their regions are kept by this link, and a probe names no
        // place.
        unsafe { self.queue_pair.post(&mut self.requests, self.posted) }
    }

    fn take(&mut self, done: Done, completions: &Completions) -> Result<()> {
        if done.status != IBV_WC_SUCCESS {
            return Err(fault::of_peer(done.status, &completions.device.health));
        }
        if done.id & RECEIVED == 0 {
            self.done = self.done.max(done.id);
            return Ok(());
        }
        let (message, slot) = self.notifications.message(done.id, done.len)?;
        match (message.kind, self.connected) {
            (kind::KNOCK, false) => self.connected = true,
            (kind::NOTIFY, true) => self.notifications.push(message.value.get(), slot),
            _ => return Err(out_of_turn(&message)),
        }
        Ok(())
    }
}

fn out_of_turn(message: &Message) -> Error {
    Error::operation(ErrorKind::Protocol, format!("a message of kind {} out of turn: the peer is broken", message.kind))
}

pub(super) struct VerbsPeer {
    pub(super) admission: Arc<Admission>,
}

impl PeerDriver for VerbsPeer {
    fn revoke(&self, _keep: Keep<'_>) -> Result<Revocation> {
        self.admission.end(Goodbye::Revoked)
    }

    fn is_alive(&self) -> bool {
        let mut link = self.admission.link();
        self.admission.hear(&mut link);
        let idle = link.done == link.posted && link.probed.is_none_or(|last| last.elapsed() >= PROBES);
        if link.connected
            && idle
            && !self.admission.is_over()
            && let Err(error) = link.probe()
        {
            self.admission.fail(&link, error);
        }
        !self.admission.is_over()
    }

    fn failure(&self) -> Option<Error> {
        self.admission.hear(&mut self.admission.link());
        self.admission.failure.get().cloned()
    }

    fn poll_notification(&self) -> Option<u64> {
        let mut guard = self.admission.link();
        let link = &mut *guard;
        if link.notifications.is_empty() {
            self.admission.hear(link);
        }
        let value = link.notifications.take(&link.queue_pair)?;
        self.admission.taken.fetch_add(1, Ordering::Relaxed);
        Some(value)
    }

    fn sleep(&self, limit: Duration) {
        if self.admission.completions.arm().is_err() {
            return std::thread::sleep(limit);
        }
        let mut link = self.admission.link();
        self.admission.hear(&mut link);
        let awake = !link.notifications.is_empty();
        drop(link);
        if !awake {
            self.admission.completions.sleep(limit);
        }
    }

    fn statistics(&self) -> PeerStatistics {
        let notifications = self.admission.taken.load(Ordering::Relaxed);
        PeerStatistics { notifications, operations: None, bytes: None }
    }
}
