//! The domain: listens, registers, dials, admits.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use super::dial::TcpDial;
use super::hub::Hub;
use super::options::Options;
use super::peer::{Admission, TcpPeer};
use super::region::TcpRegion;
use super::tls::Identity;
use super::wire::{Hello, MAX_ADDRESSES, PublicKey, Reply};
use crate::contract::driver::{DialDriver, DomainDriver, PeerDriver, RegionDriver};
use crate::memory::Memory;
use crate::random::random;
use crate::{Capabilities, Error, ErrorKind, Grant, Result, Rights};

pub(super) struct TcpDomain {
    hub: Arc<Hub>,
    /// Where peers are told to connect; none: this domain only dials.
    addresses: Vec<SocketAddr>,
    /// Peers are to speak TLS, and this is whom they are to find.
    key: Option<PublicKey>,
    options: Options,
}

impl TcpDomain {
    pub(super) fn new(options: Options) -> Result<TcpDomain> {
        let listener = options.listen.map(listen).transpose()?;
        let identity = options.encrypted.then(Identity::new).transpose()?;
        let key = identity.as_ref().map(|identity| identity.key);
        let hub = Hub::new(listener, identity, options.clone())?;
        let addresses = match hub.address() {
            Some(bound) => advertised(&options, bound)?,
            None => Vec::new(),
        };
        Ok(TcpDomain { hub: Arc::new(hub), addresses, key, options })
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let saying = |error| Error::system(&format!("listening on {address}"), error);
    let listener = TcpListener::bind(address).map_err(saying)?;
    listener.set_nonblocking(true).map_err(saying)?;
    Ok(listener)
}

/// What replies say. A port of 0 means the one that was bound.
fn advertised(options: &Options, bound: SocketAddr) -> Result<Vec<SocketAddr>> {
    let mut addresses = options.advertised.clone();
    if addresses.is_empty() {
        addresses.push(bound);
    }
    if addresses.len() > MAX_ADDRESSES {
        let text = format!("{} addresses to advertise: at most {MAX_ADDRESSES} fit into a reply", addresses.len());
        return Err(Error::invalid(text));
    }
    for address in &mut addresses {
        if address.ip().is_unspecified() {
            return Err(Error::invalid(format!(
                "{address} is no address that a peer could connect to: say which to advertise"
            )));
        }
        if address.port() == 0 {
            address.set_port(bound.port());
        }
    }
    Ok(addresses)
}

impl DomainDriver for TcpDomain {
    fn capabilities(&self) -> Capabilities {
        super::capabilities()
    }

    fn register(&self, memory: &Memory, rights: Rights) -> Result<Box<dyn RegionDriver>> {
        Ok(Box::new(TcpRegion::new(memory, rights)?))
    }

    fn dial(&self) -> Result<Box<dyn DialDriver>> {
        Ok(Box::new(TcpDial::new(self.options.clone())))
    }

    fn admit(&self, hello: &[u8], grants: &[Grant<'_>]) -> Result<(Box<dyn PeerDriver>, Vec<u8>)> {
        let hello = Hello::parse(hello)?;
        if self.addresses.is_empty() {
            let text = "this tcp domain only dials: open it with an address to listen on";
            return Err(Error::operation(ErrorKind::Unsupported, text));
        }
        let admission = Arc::new(Admission::new(random()?, grants, self.options.token_valid, hello.yields()));
        self.hub.expect(&admission);
        let reply = Reply { token: admission.token, addresses: self.addresses.clone(), key: self.key };
        Ok((Box::new(TcpPeer::new(admission, self.hub.clone())), reply.encode()))
    }

    fn progress(&self) -> Result<usize> {
        Ok(self.hub.progress())
    }

    fn sleep(&self, limit: Duration) {
        self.hub.sleep(limit);
    }

    fn wake(&self) {
        self.hub.wake();
    }
}
