//! The domain: registers, dials, admits.

use std::any::Any;
use std::sync::Arc;

use super::device::Device;
use super::dial::VerbsDial;
use super::endpoint::VerbsEndpoint;
use super::options::Options;
use super::peer::{Admission, VerbsPeer};
use super::region::VerbsRegion;
use super::registration::ProtectionDomain;
use super::wire::Hello;
use crate::contract::driver::{DialDriver, DomainDriver, PeerDriver, RegionDriver};
use crate::memory::Memory;
use crate::{Capabilities, Error, Grant, Result, Rights};

pub(super) struct VerbsDomain {
    device: Arc<Device>,
    /// Of this side's own operations. Nothing in it is open to peers.
    local: Arc<ProtectionDomain>,
    options: Options,
}

impl VerbsDomain {
    pub(super) fn new(options: Options) -> Result<VerbsDomain> {
        let device = Arc::new(Device::open(&options)?);
        let local = Arc::new(ProtectionDomain::new(device.clone())?);
        Ok(VerbsDomain { device, local, options })
    }
}

impl DomainDriver for VerbsDomain {
    fn capabilities(&self) -> Capabilities {
        super::capabilities(&self.device)
    }

    fn register(&self, memory: &Memory, rights: Rights) -> Result<Box<dyn RegionDriver>> {
        self.device.health.check()?;
        Ok(Box::new(VerbsRegion::new(&self.device, &self.local, memory, rights, &self.options)?))
    }

    fn dial(&self) -> Result<Box<dyn DialDriver>> {
        self.device.health.check_port()?;
        let endpoint = VerbsEndpoint::new(&self.local)?;
        Ok(Box::new(VerbsDial::new(endpoint, self.device.limits.reads.0, self.options.clone())))
    }

    fn admit(&self, hello: &[u8], grants: &[Grant<'_>]) -> Result<(Box<dyn PeerDriver>, Vec<u8>)> {
        let hello = Hello::parse(hello)?;
        self.device.health.check_port()?;
        let regions = grants.iter().map(|grant| Ok((registered(grant)?, grant.rights))).collect::<Result<Vec<_>>>()?;
        let (first, _) = regions.first().ok_or_else(|| Error::invalid("no grants: a peer is admitted to a region"))?;
        let domain = first.granted();
        let admission = Arc::new(Admission::new(domain, self.options.clone())?);
        let mut opened = Vec::with_capacity(regions.len());
        for (region, rights) in &regions {
            // First attached: a move from here on ends the admission, whatever it has by then.
            region.attach(&admission);
            opened.push((region.registered(domain, *rights)?, *rights));
        }
        let reply = admission.open(&hello, opened)?;
        Ok((Box::new(VerbsPeer { admission }), reply.encode()))
    }
}

/// The provider's side of a granted region; the contract checked that it is this domain's.
fn registered<'g>(grant: &Grant<'g>) -> Result<&'g VerbsRegion> {
    let driver: &dyn Any = grant.region.driver();
    driver.downcast_ref().ok_or_else(|| Error::invalid("a grant of a region that another provider registered"))
}
