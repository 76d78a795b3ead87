//! Shared memory between processes of one machine.
//!
//! A peer maps the granted regions and copies; the target's processor does nothing for it. Descriptors travel over a
//! Unix socket whose address and token the reply carries, so no common parent process is needed.
//!
//! Revoking raises a *fence word* that every write checks after a full barrier (`fence.rs` has the model), and then, unless the
//! peer's process is proven dead, moves each region that it could change to fresh backing at the same address.
//!
//! A target that hosts memory with a name ([`Memory::named`](crate::Memory::named)) and may be killed is given a directory
//! ([`Shm::in_directory`]), so that its next life can do the same for the peers of this one.

mod agent;
mod control;
mod dial;
mod directory;
mod domain;
mod endpoint;
mod fence;
mod peer;
mod process;
mod record;
mod region;
mod socket;
pub mod wire;

use std::path::PathBuf;

use crate::{Capabilities, Domain, Provider, Result, RevokeKind};

/// The shared-memory provider.
#[derive(Clone, Debug, Default)]
pub struct Shm {
    directory: Option<PathBuf>,
    outlives_targets: bool,
}

impl Shm {
    /// Peers of this machine find each other by abstract Unix socket addresses, which reach as far as the network
    /// namespace.
    pub fn new() -> Shm {
        Shm::default()
    }

    /// The domain has this directory for its own (made if it is missing; best on a tmpfs), and its peers find it by a socket
    /// there: also from containers that mount it. A second living domain in it is refused by `open`.
    ///
    /// When a process died with peers and the directory is opened again, no operation of those peers completes from then
    /// on (`PeerGone`). What they had under way may still land in a file until it is *registered*: then it moves to fresh
    /// backing, unless they are proven dead. So register named memory before reading it.
    pub fn in_directory(directory: impl Into<PathBuf>) -> Shm {
        Shm { directory: Some(directory.into()), outlives_targets: false }
    }

    /// Endpoints of the domain do not break because their target's process has died: they go on writing into its memory for as
    /// long as nobody raises the fence. For an initiator to whom memory that survives its process is as good, and who connects
    /// again when the target is back: if it came back without that memory, nothing else would tell.
    #[must_use]
    pub fn outliving_targets(mut self) -> Shm {
        self.outlives_targets = true;
        self
    }
}

impl Provider for Shm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn open(&self) -> Result<Domain> {
        Ok(Domain::new(domain::ShmDomain::new(self.directory.as_deref(), self.outlives_targets)?))
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
