//! Shared memory between processes of one machine.
//!
//! A peer maps the granted regions and copies; the target's processor does nothing for it. Descriptors travel over a
//! Unix socket whose address and token the reply carries, so no common parent process is needed.
//!
//! Revoking raises a *fence word* that every write checks after a full barrier (`fence.rs` has the model), and then, unless the
//! peer's process is proven dead, moves each region that it could change to fresh backing at the same address.

mod agent;
mod control;
mod dial;
mod domain;
mod endpoint;
mod fence;
mod peer;
mod process;
mod region;
mod socket;
pub mod wire;

use std::path::PathBuf;

use crate::{Capabilities, Domain, Provider, Result, RevokeKind};

/// The shared-memory provider.
#[derive(Clone, Debug, Default)]
pub struct Shm {
    directory: Option<PathBuf>,
}

impl Shm {
    /// Peers of this machine find each other by abstract Unix socket addresses, which reach as far as the network
    /// namespace.
    pub fn new() -> Shm {
        Shm::default()
    }

    /// Peers find each other by sockets in a directory, for instance one that several containers mount.
    pub fn in_directory(directory: impl Into<PathBuf>) -> Shm {
        Shm { directory: Some(directory.into()) }
    }
}

impl Provider for Shm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn open(&self) -> Result<Domain> {
        Ok(Domain::new(domain::ShmDomain::new(self.directory.clone())?))
    }
}

const NAME: &str = "shm";

fn capabilities() -> Capabilities {
    Capabilities {
        max_batch: 1 << 16,
        max_grants: wire::MAX_GRANTS,
        max_notifications: control::SLOT_COUNT,
        revoke: RevokeKind::FreshBacking,
        ..Capabilities::full(NAME)
    }
}
