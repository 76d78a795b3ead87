//! What a provider implements: five small traits. Everything common (bounds, rights, alignment, splitting, leases,
//! latching of errors, waiting) is done once by the types above them, so that a driver may trust what it is given by
//! this side, and has to check only what a peer sent.

use std::any::Any;
use std::time::{Duration, Instant};

use super::{Capabilities, Error, Grant, Granted, Keep, PeerStatistics, Post, Result, Revocation, RevokeKind, Rights};
use crate::memory::Memory;

/// A provider's device.
pub trait DomainDriver: Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Makes memory usable.
    ///
    /// # Errors
    /// `Unsupported` or `Exhausted`, with what the provider said.
    fn register(&self, memory: &Memory, rights: Rights) -> Result<Box<dyn RegionDriver>>;

    /// Starts a connection as the initiator.
    ///
    /// # Errors
    /// What the provider said.
    fn dial(&self) -> Result<Box<dyn DialDriver>>;

    /// Admits the peer that sent `hello` (hostile bytes) to these regions of this domain; gives the reply for it.
    ///
    /// # Errors
    /// `Protocol` or `Incompatible` for the peer's bytes, otherwise what the provider said.
    fn admit(&self, hello: &[u8], grants: &[Grant<'_>]) -> Result<(Box<dyn PeerDriver>, Vec<u8>)>;

    /// Does what the target's processor has to do; gives how much was done. Providers without such work do nothing.
    ///
    /// # Errors
    /// Only those that break the domain: a peer's misbehaviour ends that peer.
    fn progress(&self) -> Result<usize> {
        Ok(0)
    }

    /// Sleeps until `progress` may have something to do, at most `limit`.
    fn sleep(&self, limit: Duration) {
        std::thread::sleep(limit.min(Duration::from_micros(100)));
    }

    /// Ends a sleep that lasts, and keeps the next one short.
    fn wake(&self) {}
}

/// A registration. Dropping it ends it.
pub trait RegionDriver: Any + Send + Sync {
    /// What local operations name it by.
    fn local_key(&self) -> u64 {
        0
    }

    /// What `revoke` can do for it.
    fn revoke_kind(&self) -> RevokeKind;
}

/// A connection that waits for the target's reply.
pub trait DialDriver: Send {
    /// What the target needs to know.
    fn hello(&self) -> &[u8];

    /// What the target sends over this connection is to go behind all else that it sends. A wish, which is in the hello from here on.
    fn yields(&mut self) {}

    /// Connects, if it waits for the target at most until then; gives the endpoint and what was granted, in order.
    ///
    /// # Errors
    /// `Protocol` or `Incompatible` for the reply (hostile bytes), `PeerGone`, `Revoked`, or what the provider said.
    fn complete(
        self: Box<Self>,
        reply: &[u8],
        until: Option<Instant>,
    ) -> Result<(Box<dyn EndpointDriver>, Vec<Granted>)>;
}

/// The initiator's side of a connection.
///
/// # Safety
/// An implementation must not touch local memory of a batch after it has reported that batch by `poll`, nor any local
/// memory after `abort` has returned or after it was dropped.
pub unsafe trait EndpointDriver: Send {
    /// Posts the whole batch, or nothing. The batch is not empty, within the limits of the capabilities, with places
    /// inside the grants; the driver copies what it needs of it.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room. Anything else breaks the endpoint.
    ///
    /// # Safety
    /// Every local range is valid for reads and writes until the batch was reported by `poll`, `abort` has returned, or
    /// the driver was dropped.
    unsafe fn post(&mut self, batch: &[Work]) -> std::result::Result<(), Post>;

    /// How the oldest batch that was not reported yet ended, if it has. An error breaks the endpoint.
    fn poll(&mut self) -> Option<std::result::Result<(), Error>>;

    /// Gives everything up: when it returns, no local memory is touched any more.
    fn abort(&mut self);

    /// Sleeps until `poll` may have something, at most `limit`.
    fn sleep(&mut self, limit: Duration) {
        std::thread::sleep(limit.min(Duration::from_micros(100)));
    }
}

/// The target's side of a connection.
pub trait PeerDriver: Send + Sync {
    /// Makes sure that nothing of this peer lands any more, and that what did land is visible to this processor. `keep`
    /// was checked against the grants. Called again after success, it does nothing.
    ///
    /// # Errors
    /// When it could not be made sure; it may be tried again.
    fn revoke(&self, keep: Keep<'_>) -> Result<Revocation>;

    /// Whether the peer is connected, or may still connect, as far as is known.
    fn is_alive(&self) -> bool;

    /// Why the connection ended, if it did so by itself and that is known.
    fn failure(&self) -> Option<Error> {
        None
    }

    /// The oldest notification not taken yet.
    fn poll_notification(&self) -> Option<u64>;

    /// Sleeps until there may be a notification, at most `limit`.
    fn sleep(&self, limit: Duration) {
        std::thread::sleep(limit.min(Duration::from_micros(100)));
    }

    /// What was counted.
    fn statistics(&self) -> PeerStatistics;
}

/// Local memory of an operation, checked and leased.
#[derive(Clone, Copy, Debug)]
pub struct Local {
    /// Where it is.
    pub address: *mut u8,
    /// Its length in bytes.
    pub len: usize,
    /// What its region's driver is known by.
    pub key: u64,
}

// SAFETY: it is an address and numbers; whoever follows the address has made a promise of its own.
unsafe impl Send for Local {}

/// A place in a granted region, checked.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Which granted region.
    pub grant: u32,
    /// The offset in it, in bytes.
    pub offset: u64,
}

/// One operation as a driver gets it: checked, split, plain data.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Local bytes to the target.
    Write {
        /// From here.
        local: Local,
        /// To there.
        remote: Place,
    },
    /// Bytes of the target to this side.
    Read {
        /// To here.
        local: Local,
        /// From there.
        remote: Place,
    },
    /// Delivers a value after everything before it.
    Notify {
        /// What the target is told.
        value: u64,
    },
    /// Replaces the target's word if it is as expected; the former value comes to `local`.
    CompareSwap {
        /// Eight aligned bytes.
        local: Local,
        /// Aligned to eight.
        remote: Place,
        /// What the target must hold.
        expected: u64,
        /// What it shall hold.
        new: u64,
    },
    /// Visible to the target's processor from here on.
    Flush,
}
