//! One-sided access over RDMA: InfiniBand, RoCE, soft-RoCE. The devices move the bytes; the target's processor does nothing.
//!
//! Regions are registered where they are mapped. A peer gets a queue pair of its own, and a key to each region: a *memory
//! window* bound to that queue pair, where the device has them. A batch is one list of work of which only the last is
//! signalled. Connection data travels in hello and reply, over the caller's control channel: who does not have them cannot
//! guess a queue pair and its packet numbers.
//!
//! Revoking takes the windows back, says so to the peer, and destroys the queue pair: from then on the device drops
//! whatever arrives for it. The region stays registered, so this costs the same at any length.
//!
//! Every region that peers may be admitted to has a protection domain of its own: its keys are worth nothing on the queue
//! pairs of others.

mod completions;
mod device;
mod dial;
mod domain;
mod endpoint;
mod events;
mod fault;
mod gid;
mod notifications;
mod options;
mod peer;
mod queue_pair;
mod region;
mod registration;
mod requests;
mod sys;
mod window;
pub mod wire;

use std::net::IpAddr;
use std::time::Duration;

use crate::{Capabilities, Domain, Provider, Result};
use device::Device;
use gid::Wanted;
use options::Options;

/// The RDMA provider.
#[derive(Clone, Debug)]
pub struct Verbs {
    options: Options,
}

impl Verbs {
    /// The first device of this machine that has an active port.
    pub fn new() -> Verbs {
        Verbs { options: Options::new() }
    }

    /// The device of this name, as [`devices`] lists it; its first active port.
    #[must_use]
    pub fn device(mut self, name: impl Into<String>) -> Verbs {
        self.options.device = Some(name.into());
        self
    }

    /// The device's address that peers find it by. Unless it is set, the first IPv4 address of RoCE v2 is used, or an IPv6
    /// address, a routable one before a link-local one; on InfiniBand the port's own.
    #[must_use]
    pub fn address(mut self, address: IpAddr) -> Verbs {
        self.options.gid = Wanted::Address(address);
        self
    }

    /// The same by its index in the port's table of addresses (as `ibv_devinfo -v` and `show_gids` number them), of
    /// whatever kind it is.
    #[must_use]
    pub fn address_index(mut self, index: u8) -> Verbs {
        self.options.gid = Wanted::Index(index);
        self
    }

    /// After how long a peer that does not answer counts as gone (500 ms unless set; at least 7 ms, at most a minute). It
    /// is what the device is asked for, in steps of two; a device may take up to four times as long.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Verbs {
        self.options.patience = patience.clamp(Duration::from_millis(7), Duration::from_secs(60));
        self
    }

    /// What is sent carries this traffic class (0 unless set), by which switches choose what is lossless. On RoCE it is four times
    /// the DSCP, and its two lowest bits are ECN's.
    #[must_use]
    pub fn traffic_class(mut self, class: u8) -> Verbs {
        self.options.traffic_class = class;
        self
    }

    /// What is sent carries this service level: 0 (unless set) to 15 on InfiniBand, where it chooses a virtual lane; to 7 on RoCE,
    /// where it is the priority of a VLAN.
    #[must_use]
    pub fn service_level(mut self, level: u8) -> Verbs {
        self.options.service_level = level;
        self
    }

    /// How long a revoke waits at most for the peer's device to take the news (1 ms unless set). A peer that misses it
    /// finds nobody there (`PeerGone`) instead of knowing (`Revoked`); what is promised does not rest on it.
    #[must_use]
    pub fn courtesy(mut self, courtesy: Duration) -> Verbs {
        self.options.courtesy = courtesy;
        self
    }

    /// Peers get the regions' own keys, also where the device has memory windows.
    #[must_use]
    pub fn without_windows(mut self) -> Verbs {
        self.options.windows = false;
        self
    }
}

impl Verbs {
    /// What is opened, in words: device, port, address, and what matters of them.
    ///
    /// # Errors
    /// As opening it.
    pub fn describe(&self) -> Result<String> {
        Ok(Device::open(&self.options)?.to_string())
    }
}

impl Default for Verbs {
    fn default() -> Verbs {
        Verbs::new()
    }
}

impl Provider for Verbs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn open(&self) -> Result<Domain> {
        Ok(Domain::new(domain::VerbsDomain::new(self.options.clone())?))
    }
}

/// The names of this machine's RDMA devices.
///
/// # Errors
/// What the system said; `System` where its kernel has no RDMA.
pub fn devices() -> Result<Vec<String>> {
    device::names()
}

const NAME: &str = "verbs";

fn capabilities(device: &Device) -> Capabilities {
    Capabilities {
        max_batch: endpoint::MAX_BATCH as usize,
        max_message: device.port.max_message as usize,
        max_notifications: notifications::MAX_IN_BATCH,
        max_grants: wire::MAX_GRANTS as usize,
        atomics: device.limits.atomics != ibverbs_sys::IBV_ATOMIC_NONE,
        processor_atomics: device.limits.atomics == ibverbs_sys::IBV_ATOMIC_GLOB,
        ..Capabilities::full(NAME)
    }
}
