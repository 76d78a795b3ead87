//! The target's handle of one admitted peer.

use std::ops::Range;
use std::time::Instant;

use super::driver::PeerDriver;
use super::{Error, Region, Result, Wait};

/// One admitted peer. Dropping it revokes it; call [`Peer::revoke`] to know that it worked.
pub struct Peer {
    // Field order is drop order: the driver goes before the regions that it may still have to move.
    driver: Box<dyn PeerDriver>,
    regions: Vec<Region>,
}

/// What of the granted regions must survive a revoke that has to replace their backing. The rest becomes zero.
#[derive(Clone, Copy, Debug)]
pub enum Keep<'k> {
    /// Every byte.
    All,
    /// These ranges: (which grant, bytes in it). A torn range need not be moved.
    Ranges(&'k [(usize, Range<usize>)]),
}

/// How it was made sure that nothing lands any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The peer never connected, and cannot any more.
    NeverConnected,
    /// The fabric, or this process, refuses its access.
    AccessRemoved,
    /// Its process is proven dead, or it could only read.
    Proven,
    /// What it can write into is no longer ours.
    FreshBacking {
        /// The bytes that were copied, in this call.
        copied: u64,
    },
}

/// What a target knows about a peer. What no processor of the target sees is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStatistics {
    /// Notifications taken.
    pub notifications: u64,
    /// Operations that took effect.
    pub operations: Option<u64>,
    /// Bytes written and read.
    pub bytes: Option<u64>,
}

impl Peer {
    pub(super) fn new(driver: Box<dyn PeerDriver>, regions: Vec<Region>) -> Peer {
        Peer { driver, regions }
    }

    /// After it has returned `Ok` nothing of this peer lands, ever, and everything that landed is visible to this
    /// processor. Again, or from several threads: the same. The target itself must not write to the regions
    /// meanwhile, because their backing may be replaced.
    ///
    /// # Errors
    /// When it cannot be made sure (no memory for fresh backing; a region that has none and a peer not proven dead).
    /// The peer is told to stop all the same; try again.
    pub fn revoke(&self) -> Result<Revocation> {
        self.revoke_keeping(Keep::All)
    }

    /// The same, when not every byte is worth keeping.
    ///
    /// # Errors
    /// As [`Peer::revoke`], and `InvalidInput` for a range outside its region.
    pub fn revoke_keeping(&self, keep: Keep<'_>) -> Result<Revocation> {
        if let Keep::Ranges(ranges) = keep {
            for (grant, range) in ranges {
                let region = self.regions.get(*grant).ok_or_else(|| {
                    Error::invalid(format!("grant {grant} of a range to keep: there are {}", self.regions.len()))
                })?;
                let len = range
                    .end
                    .checked_sub(range.start)
                    .ok_or_else(|| Error::invalid(format!("the range {range:?} to keep ends before it starts")))?;
                region.memory().check(range.start, len)?;
            }
        }
        self.driver.revoke(keep)
    }

    /// Whether the peer is connected, or may still connect, as far as is known. Detection only: what is promised
    /// rests on `revoke`.
    pub fn is_alive(&self) -> bool {
        self.driver.is_alive()
    }

    /// Why the connection ended, if it did so by itself: what was wrong with what the peer sent, or how it was lost.
    /// `None` where the provider cannot know.
    pub fn failure(&self) -> Option<Error> {
        self.driver.failure()
    }

    /// The oldest notification not taken yet. Any thread may take; each value is given once.
    pub fn poll_notification(&self) -> Option<u64> {
        self.driver.poll_notification()
    }

    /// Waits for a notification, at most until `deadline` (`None`: for ever).
    pub fn wait_notification(&self, wait: Wait, deadline: Option<Instant>) -> Option<u64> {
        wait.until(deadline, || self.driver.poll_notification(), |limit| self.driver.sleep(limit))
    }

    /// What was counted.
    pub fn statistics(&self) -> PeerStatistics {
        self.driver.statistics()
    }

    /// The granted regions, in order.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // A failure cannot be told here; the peer was told to stop, and the documentation says to call revoke.
        let _ = self.driver.revoke(Keep::All);
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peer({} regions, alive: {})", self.regions.len(), self.is_alive())
    }
}
