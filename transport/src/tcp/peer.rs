//! The target's side: admits one initiator once, and revokes it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::connection::{Connection, End, Turn};
use super::fault::Fault;
use super::hub::Hub;
use super::notifications::Notifications;
use super::queue::Listing;
use super::socket::Span;
use super::wire::{Head, Swap, Token, encode_grants};
use crate::contract::driver::PeerDriver;
use crate::memory::{Memory, Tenant, loss};
use crate::sync::{AtomicBool, AtomicU64, Ordering, fence as barrier};
use crate::{Error, ErrorKind, Grant, Keep, PeerStatistics, Result, Revocation, Rights};

/// What one peer was admitted to.
pub(super) struct Admission {
    pub(super) token: Token,
    /// The token opens nothing any more from here on.
    until: Instant,
    grants: Vec<Admitted>,
    /// What is sent to it goes behind all else.
    yields: bool,
    /// Whoever touches a region for this peer holds it.
    link: Mutex<Link>,
    /// A revoke has begun: turns end early, and none begins.
    revoking: AtomicBool,
    /// The stream's end is among what is still to be received: no event of its own will tell.
    ending: AtomicBool,
    over: AtomicBool,
    failure: OnceLock<Error>,
    pub(super) notifications: Notifications,
    operations: AtomicU64,
    bytes: AtomicU64,
    /// The connection's number at the hub; 0 before.
    pub(super) number: AtomicU64,
    pub(super) listing: Listing,
}

struct Admitted {
    memory: Memory,
    rights: Rights,
}

enum Link {
    /// The token was not presented yet.
    Expected,
    Connected(Box<Connection>),
    Over,
}

impl Admission {
    pub(super) fn new(token: Token, grants: &[Grant<'_>], valid: Duration, yields: bool) -> Admission {
        let admitted = |grant: &Grant<'_>| Admitted { memory: grant.region.memory().clone(), rights: grant.rights };
        Admission {
            token,
            until: Instant::now() + valid,
            grants: grants.iter().map(admitted).collect(),
            yields,
            link: Mutex::new(Link::Expected),
            revoking: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            over: AtomicBool::new(false),
            failure: OnceLock::new(),
            notifications: Notifications::new(),
            operations: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            number: AtomicU64::new(0),
            listing: Listing::default(),
        }
    }

    /// Takes the connection of whom presented the token, the first time and in time; else ends it.
    pub(super) fn connect(self: &Arc<Admission>, mut connection: Box<Connection>) -> Result<()> {
        // Before the link is locked: `leave` comes with the memory's lock held.
        let told = self.ask_to_be_told();
        let mut link = self.link();
        let moved = self.failure.get().is_some_and(|error| error.kind() == ErrorKind::Moved);
        let refused = match (&*link, told) {
            (Link::Expected, Err(error)) => Some((None, error)),
            (Link::Expected, Ok(())) if Instant::now() <= self.until && !self.is_revoking() => None,
            _ if moved => Some((Some(Fault::Moved), Fault::Moved.error())),
            _ => Some((Some(Fault::Token), Fault::Token.error())),
        };
        if let Some((fault, error)) = refused {
            // Another's attempt with a used token does not end the one that stands.
            if matches!(*link, Link::Expected) {
                *link = Link::Over;
                self.fail(error.clone());
            }
            connection.end(fault);
            return Err(error);
        }
        if self.yields {
            connection.yield_to_others();
        }
        let grants = self.grants.iter().map(|grant| (grant.memory.len() as u64, grant.rights));
        connection.welcome(&encode_grants(grants));
        *link = Link::Connected(connection);
        Ok(())
    }

    /// Memory that is also shared between processes may move: what is received meanwhile would be lost.
    fn ask_to_be_told(self: &Arc<Admission>) -> Result<()> {
        let tenant: Arc<dyn Tenant> = self.clone();
        let mut changeable = self.grants.iter().filter(|grant| grant.rights.can_change());
        changeable.try_for_each(|grant| grant.memory.mapping().share(&tenant).map(drop))
    }

    /// Lets the connection do its work. `Err`: it is over; with the reason if it ended by this turn.
    pub(super) fn turn(&self) -> std::result::Result<Turn, Option<(std::net::SocketAddr, Error)>> {
        if self.is_revoking() {
            return Err(None);
        }
        let mut link = self.link();
        let Link::Connected(connection) = &mut *link else { return Err(None) };
        let end = match connection.turn(self) {
            Ok(turn) => return Ok(turn),
            Err(end) => end,
        };
        let from = connection.from;
        let (error, fault) = match end {
            End::Fault(fault) => (fault.error(), Some(fault)),
            End::Lost(error) => (error, None),
        };
        // Known here before the initiator can know it.
        self.fail(error.clone());
        if let Link::Connected(connection) = std::mem::replace(&mut *link, Link::Over) {
            connection.end(fault);
        }
        Err(Some((from, error)))
    }

    /// Whether nobody is connected, nor can be any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_revoking() || self.over.load(Ordering::Acquire)
    }

    pub(super) fn is_revoking(&self) -> bool {
        self.revoking.load(Ordering::Acquire)
    }

    /// The system says that the peer sends no more than what has arrived.
    pub(super) fn ends(&self) {
        self.ending.store(true, Ordering::Release);
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// The place of a request, if it is inside a region that was granted with the right.
    pub(super) fn place(&self, head: &Head, len: u32, needed: Rights) -> std::result::Result<Span, Fault> {
        let (memory, offset) = self.find(head, len, needed)?;
        Ok(Span::new(memory.as_ptr().wrapping_add(offset), len as usize))
    }

    pub(super) fn compare_swap(&self, head: &Head, swap: &Swap) -> std::result::Result<u64, Fault> {
        let (memory, offset) = self.find(head, 8, Rights::ATOMIC)?;
        let was = memory.compare_swap_u64(offset, swap.expected.get(), swap.new.get());
        was.map_err(|error| match error.kind() {
            ErrorKind::Lost => Fault::Lost,
            _ => Fault::Alignment { grant: head.grant, offset: head.value.get() },
        })
    }

    /// Whether what a request touched is memory still.
    pub(super) fn check_whole(&self) -> std::result::Result<(), Fault> {
        if !loss::any() {
            return Ok(());
        }
        self.grants.iter().try_for_each(|grant| grant.memory.check_whole()).map_err(|_| Fault::Lost)
    }

    fn find(&self, head: &Head, len: u32, needed: Rights) -> std::result::Result<(&Memory, usize), Fault> {
        let (grant, offset) = (head.grant, head.value.get());
        let admitted = self.grants.get(usize::from(grant)).ok_or(Fault::Grant { got: grant })?;
        if !admitted.rights.has(needed) {
            return Err(Fault::Rights { kind: head.kind, grant });
        }
        let inside = offset.checked_add(len.into()).is_some_and(|end| end <= admitted.memory.len() as u64);
        match usize::try_from(offset) {
            Ok(at) if inside => Ok((&admitted.memory, at)),
            _ => Err(Fault::Range { grant, offset, len }),
        }
    }

    /// What was counted so far.
    pub(super) fn count(&self, operations: u64, bytes: u64) {
        self.operations.store(operations, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    fn fail(&self, error: Error) {
        let _ = self.failure.set(error); // The first reason counts.
        self.over.store(true, Ordering::Release);
        self.notifications.ring();
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn revoke(&self) -> Revocation {
        self.revoking.store(true, Ordering::Release);
        // A turn under way ends with the bytes that it is receiving; none begins any more.
        let mut link = self.link();
        let revocation = match std::mem::replace(&mut *link, Link::Over) {
            Link::Expected => Revocation::NeverConnected,
            Link::Connected(connection) => {
                connection.end(Some(Fault::Revoked));
                Revocation::AccessRemoved
            }
            Link::Over => Revocation::AccessRemoved,
        };
        self.over.store(true, Ordering::Release);
        self.notifications.ring();
        barrier(Ordering::SeqCst);
        revocation
    }
}

impl Tenant for Admission {
    /// When it returns, nothing is received into the memory; what was acknowledged before is in it.
    fn leave(&self) {
        let mut link = self.link();
        let was = std::mem::replace(&mut *link, Link::Over);
        if !matches!(was, Link::Over) {
            self.fail(Fault::Moved.error());
        }
        if let Link::Connected(connection) = was {
            connection.end(Some(Fault::Moved));
        }
    }
}

pub(super) struct TcpPeer {
    admission: Arc<Admission>,
    hub: Arc<Hub>,
}

impl TcpPeer {
    pub(super) fn new(admission: Arc<Admission>, hub: Arc<Hub>) -> TcpPeer {
        TcpPeer { admission, hub }
    }
}

impl PeerDriver for TcpPeer {
    fn revoke(&self, _keep: Keep<'_>) -> Result<Revocation> {
        let revocation = self.admission.revoke();
        self.hub.forget(&self.admission);
        Ok(revocation)
    }

    fn is_alive(&self) -> bool {
        let may_come = || Instant::now() <= self.admission.until;
        let has_come = self.admission.number.load(Ordering::Acquire) != 0;
        !self.admission.over.load(Ordering::Acquire) && (has_come || may_come())
    }

    fn failure(&self) -> Option<Error> {
        self.admission.failure.get().cloned()
    }

    fn poll_notification(&self) -> Option<u64> {
        let value = self.admission.notifications.take()?;
        if self.admission.notifications.is_owed() {
            self.hub.call(&self.admission);
        }
        Some(value)
    }

    fn sleep(&self, limit: Duration) {
        self.admission.notifications.sleep(limit);
    }

    fn statistics(&self) -> PeerStatistics {
        PeerStatistics {
            notifications: self.admission.notifications.taken(),
            operations: Some(self.admission.operations.load(Ordering::Relaxed)),
            bytes: Some(self.admission.bytes.load(Ordering::Relaxed)),
        }
    }
}
