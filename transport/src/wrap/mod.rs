//! Wrappers around any domain, that ship with the product: [`count`], [`fault`] and [`trace`].
//!
//! A wrapped domain is a domain like any other. Only its initiator's endpoints are wrapped; regions and peers are the
//! wrapped provider's own.

pub mod count;
pub mod fault;
pub mod trace;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::contract::driver::{DialDriver, DomainDriver, EndpointDriver, PeerDriver, RegionDriver};
use crate::memory::Memory;
use crate::{Capabilities, Domain, Grant, Granted, Result, Rights};

/// What a wrapper does: put something around an endpoint.
trait Layer: Send + Sync {
    fn around(&self, endpoint: Box<dyn EndpointDriver>) -> Box<dyn EndpointDriver>;
}

/// The domain with every new endpoint inside the layer.
fn wrap(domain: &Domain, layer: impl Layer + 'static) -> Domain {
    Domain::new(WrappedDomain { inner: domain.driver().clone(), layer: Arc::new(layer) })
}

struct WrappedDomain {
    inner: Arc<dyn DomainDriver>,
    layer: Arc<dyn Layer>,
}

struct WrappedDial {
    inner: Box<dyn DialDriver>,
    layer: Arc<dyn Layer>,
}

impl DomainDriver for WrappedDomain {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn register(&self, memory: &Memory, rights: Rights) -> Result<Box<dyn RegionDriver>> {
        self.inner.register(memory, rights)
    }

    fn dial(&self) -> Result<Box<dyn DialDriver>> {
        Ok(Box::new(WrappedDial { inner: self.inner.dial()?, layer: self.layer.clone() }))
    }

    fn admit(&self, hello: &[u8], grants: &[Grant<'_>]) -> Result<(Box<dyn PeerDriver>, Vec<u8>)> {
        self.inner.admit(hello, grants)
    }

    fn progress(&self) -> Result<usize> {
        self.inner.progress()
    }

    fn sleep(&self, limit: Duration) {
        self.inner.sleep(limit);
    }
}

impl DialDriver for WrappedDial {
    fn hello(&self) -> &[u8] {
        self.inner.hello()
    }

    fn yields(&mut self) {
        self.inner.yields();
    }

    fn complete(
        self: Box<Self>,
        reply: &[u8],
        until: Option<Instant>,
    ) -> Result<(Box<dyn EndpointDriver>, Vec<Granted>)> {
        let (endpoint, granted) = self.inner.complete(reply, until)?;
        Ok((self.layer.around(endpoint), granted))
    }
}
