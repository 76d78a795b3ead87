//! Opening a device, registering memory, and connecting.

use std::sync::Arc;
use std::time::Instant;

use super::driver::{DialDriver, DomainDriver};
use super::{Capabilities, Endpoint, Error, Grant, Peer, Region, Result, Rights};
use crate::memory::Memory;

/// A way to reach peers' memory.
pub trait Provider {
    /// Its name, as in capabilities and messages.
    fn name(&self) -> &'static str;

    /// Opens the device.
    ///
    /// # Errors
    /// What the provider said.
    fn open(&self) -> Result<Domain>;
}

/// An open device. Cheap to clone; regions, endpoints and peers hold it open.
#[derive(Clone)]
pub struct Domain {
    driver: Arc<dyn DomainDriver>,
}

/// A connection that waits for the target's reply: send `hello` over any control channel, give the answer to
/// `complete`.
#[must_use = "a connection comes about by complete()"]
pub struct Dialing {
    driver: Box<dyn DialDriver>,
    domain: Domain,
}

impl Domain {
    /// A domain over a driver: what providers and wrappers call.
    pub fn new(driver: impl DomainDriver + 'static) -> Domain {
        Domain { driver: Arc::new(driver) }
    }

    /// What it can do.
    pub fn capabilities(&self) -> Capabilities {
        self.driver.capabilities()
    }

    /// Makes memory usable by operations, and, with rights, by peers that are admitted to it.
    ///
    /// # Errors
    /// `Unsupported` when the provider cannot use this kind of memory so, `Exhausted` at a limit.
    pub fn register(&self, memory: &Memory, rights: Rights) -> Result<Region> {
        let driver = self.driver.register(memory, rights)?;
        Ok(Region::new(driver, memory.clone(), rights, self))
    }

    /// Starts a connection as the initiator.
    ///
    /// # Errors
    /// What the provider said.
    pub fn dial(&self) -> Result<Dialing> {
        Ok(Dialing { driver: self.driver.dial()?, domain: self.clone() })
    }

    /// Admits, as the target, the peer that sent `hello` to these regions and no others. The reply goes back to it.
    /// From here on the peer may connect, until the handle is revoked or dropped.
    ///
    /// # Errors
    /// `InvalidInput` for wrong grants; `Protocol` or `Incompatible` for a wrong hello.
    pub fn admit(&self, hello: &[u8], grants: &[Grant<'_>]) -> Result<(Peer, Vec<u8>)> {
        self.check_grants(grants)?;
        let (driver, reply) = self.driver.admit(hello, grants)?;
        let regions = grants.iter().map(|grant| grant.region.clone()).collect();
        Ok((Peer::new(driver, regions), reply))
    }

    /// Does what the target's processor has to do, where the provider needs it (`needs_target_cpu`); gives how much.
    ///
    /// # Errors
    /// Only those that break the domain.
    pub fn progress(&self) -> Result<usize> {
        self.driver.progress()
    }

    /// The driver below: what wrappers delegate to.
    pub fn driver(&self) -> &Arc<dyn DomainDriver> {
        &self.driver
    }

    pub(super) fn same(&self, other: &Domain) -> bool {
        Arc::ptr_eq(&self.driver, &other.driver)
    }

    fn check_grants(&self, grants: &[Grant<'_>]) -> Result<()> {
        let max = self.capabilities().max_grants;
        if grants.is_empty() || grants.len() > max {
            return Err(Error::invalid(format!("{} grants: a peer is admitted to 1 to {max} regions", grants.len())));
        }
        for (index, grant) in grants.iter().enumerate() {
            if !grant.region.is_of(self) {
                return Err(Error::invalid(format!("grant {index} is a region of another domain: register it here")));
            }
            if !grant.region.rights().has(grant.rights) {
                return Err(Error::invalid(format!(
                    "grant {index} asks for {:?}, but its region was registered with {:?}",
                    grant.rights,
                    grant.region.rights()
                )));
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Domain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Domain({})", self.capabilities().provider)
    }
}

impl Dialing {
    /// What is read over this connection may come behind all else that the target sends, where the provider and the network know priorities:
    /// nobody waits for it who would wait longer for something small behind much.
    pub fn yielding(mut self) -> Dialing {
        self.driver.yields();
        self
    }

    /// What the target's `admit` needs.
    pub fn hello(&self) -> &[u8] {
        self.driver.hello()
    }

    /// Connects with the target's reply.
    ///
    /// # Errors
    /// `Protocol` or `Incompatible` for a wrong reply, `PeerGone` or `Revoked` when the target does not answer or has
    /// changed its mind.
    pub fn complete(self, reply: &[u8]) -> Result<Endpoint> {
        self.complete_within(reply, None)
    }

    /// The same, waiting for the target no longer than until `until`, if that comes before what the provider allows by itself.
    ///
    /// # Errors
    /// As [`Dialing::complete`].
    pub fn complete_within(self, reply: &[u8], until: Option<Instant>) -> Result<Endpoint> {
        let (driver, granted) = self.driver.complete(reply, until)?;
        Ok(Endpoint::new(driver, self.domain, granted))
    }
}
