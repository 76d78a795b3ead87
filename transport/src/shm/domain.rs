//! The domain: registers, dials, admits.

use std::path::Path;
use std::sync::{Arc, Mutex, Weak};

use super::agent::Agent;
use super::dial::ShmDial;
use super::directory::Directory;
use super::peer::{Admission, ShmPeer};
use super::region::ShmRegion;
use super::wire::{Hello, Reply};
use crate::contract::driver::{DialDriver, DomainDriver, PeerDriver, RegionDriver};
use crate::memory::Memory;
use crate::random::random;
use crate::{Capabilities, Error, ErrorKind, Grant, Result, Rights};

pub(super) struct ShmDomain {
    directory: Option<Directory>,
    boot: [u8; 16],
    outlives_targets: bool,
    /// Runs while an endpoint or a peer needs it.
    agent: Mutex<Weak<Agent>>,
}

impl ShmDomain {
    pub(super) fn new(directory: Option<&Path>, outlives_targets: bool) -> Result<ShmDomain> {
        let boot = boot_id()?;
        let directory = directory.map(|path| Directory::open(path, &boot)).transpose()?;
        Ok(ShmDomain { directory, boot, outlives_targets, agent: Mutex::new(Weak::new()) })
    }

    fn agent(&self) -> Result<Arc<Agent>> {
        let mut agent = self.agent.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(running) = agent.upgrade() {
            return Ok(running);
        }
        let started = Arc::new(Agent::start(self.directory.as_ref().map(Directory::path))?);
        *agent = Arc::downgrade(&started);
        Ok(started)
    }
}

impl DomainDriver for ShmDomain {
    fn capabilities(&self) -> Capabilities {
        super::capabilities()
    }

    fn register(&self, memory: &Memory, rights: Rights) -> Result<Box<dyn RegionDriver>> {
        let region = ShmRegion::new(memory, rights)?;
        self.directory.as_ref().map_or(Ok(()), |directory| directory.part_from_former_peers(memory))?;
        Ok(Box::new(region))
    }

    fn dial(&self) -> Result<Box<dyn DialDriver>> {
        Ok(Box::new(ShmDial::new(Hello::new(self.boot), self.agent()?, self.outlives_targets)))
    }

    fn admit(&self, hello: &[u8], grants: &[Grant<'_>]) -> Result<(Box<dyn PeerDriver>, Vec<u8>)> {
        if Hello::parse(hello)?.boot != self.boot {
            let text =
                "the peer runs under another kernel, where this machine's shared memory is not: use another provider";
            return Err(Error::operation(ErrorKind::Incompatible, text));
        }
        let agent = self.agent()?;
        let admission = Arc::new(Admission::new(random()?, grants, self.directory.as_ref())?);
        agent.expect(&admission);
        let reply = Reply { token: admission.token, address: agent.address().to_vec() };
        Ok((Box::new(ShmPeer::new(admission, agent)), reply.encode()))
    }
}

/// What tells one boot of one kernel from every other.
fn boot_id() -> Result<[u8; 16]> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).map_err(|error| Error::system(&format!("reading {path}"), error))?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&digits, 16);
    let number =
        number.map_err(|_| Error::operation(ErrorKind::System, format!("{path} holds {text:?}, not an id")))?;
    Ok(number.to_be_bytes())
}
