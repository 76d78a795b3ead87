//! The domain: registers, dials, admits, and applies what arrived.

use std::sync::Arc;

use super::NAME;
use super::dial::SimDial;
use super::peer::SimPeer;
use super::region::SimRegion;
use super::wire::{Hello, MAX_GRANTS, MAX_PAYLOAD, Reply};
use super::world::World;
use crate::contract::driver::{DialDriver, DomainDriver, PeerDriver, RegionDriver};
use crate::memory::Memory;
use crate::{Capabilities, Error, ErrorKind, Grant, Result, Rights};

pub(super) struct SimDomain {
    world: Arc<World>,
    node: u64,
}

impl SimDomain {
    pub(super) fn new(world: Arc<World>, node: u64) -> SimDomain {
        SimDomain { world, node }
    }
}

impl DomainDriver for SimDomain {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            max_message: MAX_PAYLOAD,
            max_outstanding: 16,
            max_grants: MAX_GRANTS,
            needs_target_cpu: true,
            event_waiting: false,
            ..Capabilities::full(NAME)
        }
    }

    fn register(&self, memory: &Memory, rights: Rights) -> Result<Box<dyn RegionDriver>> {
        if rights.can_change() && !memory.is_writable() {
            return Err(Error::invalid("memory mapped for reading only cannot be granted for writing"));
        }
        Ok(Box::new(SimRegion))
    }

    fn dial(&self) -> Result<Box<dyn DialDriver>> {
        let seed = self.world.with(|state| state.seed);
        Ok(Box::new(SimDial::new(Hello::new(seed, self.node), self.world.clone(), self.node)))
    }

    fn admit(&self, hello: &[u8], grants: &[Grant<'_>]) -> Result<(Box<dyn PeerDriver>, Vec<u8>)> {
        let (seed, initiator) = Hello::parse(hello)?;
        if seed != self.world.with(|state| state.seed) {
            return Err(Error::operation(ErrorKind::Incompatible, "the peer lives in another simulation"));
        }
        let granted = grants.iter().map(|grant| (grant.region.memory().clone(), grant.rights)).collect();
        let link = self.world.with(|state| state.add_link(initiator, self.node, granted));
        let lens = grants.iter().map(|grant| (grant.region.len() as u64, grant.rights)).collect();
        Ok((Box::new(SimPeer::new(self.world.clone(), link)), Reply { link, grants: lens }.encode()))
    }

    fn progress(&self) -> Result<usize> {
        Ok(self.world.with(|state| state.serve(self.node)))
    }
}
