//! One-sided access over TCP: the target's processor moves the bytes, straight between socket and region.
//!
//! The target listens; a reply carries its addresses and a random token that opens one connection, once. A batch is one
//! vectored write of heads and local memory; small payloads come through a small buffer, long ones go straight to
//! their place; a batch is acknowledged once. Whoever calls `progress` (a [`Server`](crate::Server)) does the target's
//! part, for any number of peers, in bounded turns.
//!
//! Revoking waits for the turn under way, then nothing is received from that connection any more, whatever stands in
//! its buffers.
//!
//! A domain that is [encrypted](Tcp::encrypted) speaks TLS 1.3: its replies carry its public key, and initiators accept
//! no other. Without that the token keeps strangers out, not eavesdroppers.

mod connection;
mod dial;
mod domain;
mod door;
mod endpoint;
pub mod fault;
mod hub;
mod inbox;
mod notifications;
mod options;
mod outbox;
mod peer;
mod queue;
mod region;
mod socket;
mod stream;
mod tls;
pub mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::{Capabilities, Domain, Provider, Result};
pub use options::Ended;
use options::Options;

/// The TCP provider.
#[derive(Clone)]
pub struct Tcp {
    options: Options,
}

impl Tcp {
    /// A domain that admits peers, and dials. Port 0 takes a free one. When the address is unspecified (0.0.0.0), say
    /// with [`Tcp::advertising`] where peers find it.
    pub fn listening_on(address: impl Into<SocketAddr>) -> Tcp {
        Tcp { options: Options::new(Some(address.into())) }
    }

    /// A domain that only dials.
    pub fn dialing_only() -> Tcp {
        Tcp { options: Options::new(None) }
    }

    /// The addresses that replies carry, in the order to be tried (at most 8; port 0: the one that is listened on).
    #[must_use]
    pub fn advertising(mut self, addresses: &[SocketAddr]) -> Tcp {
        self.options.advertised = addresses.to_vec();
        self
    }

    /// Connections to this domain are TLS 1.3. It makes a key pair when it opens; its replies carry the public key, so
    /// initiators need no setting and trust what the control channel trusts. Connections that this domain dials are as
    /// the other side's replies say, with or without this.
    #[must_use]
    pub fn encrypted(mut self) -> Tcp {
        self.options.encrypted = true;
        self
    }

    /// After how long a peer that has vanished without a word, or takes nothing, counts as gone (10 s unless set; at
    /// least a second). One whose process died is noticed at once.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Tcp {
        self.options.patience = patience.max(Duration::from_secs(1));
        self
    }

    /// How long `complete` may take (5 s unless set).
    #[must_use]
    pub fn connect_within(mut self, limit: Duration) -> Tcp {
        self.options.connect_within = limit;
        self
    }

    /// How long after `admit` the reply opens a connection (10 s unless set).
    #[must_use]
    pub fn token_valid_for(mut self, limit: Duration) -> Tcp {
        self.options.token_valid = limit;
        self
    }

    /// Tells `sink` of every connection that this side as a target ended or lost, and why, on the thread that calls
    /// `progress`; also of strangers', of which no handle tells.
    #[must_use]
    pub fn telling(mut self, sink: impl Fn(&Ended<'_>) + Send + Sync + 'static) -> Tcp {
        self.options.sink = Some(Arc::new(sink));
        self
    }
}

impl std::fmt::Debug for Tcp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tcp(listening on {:?})", self.options.listen)
    }
}

impl Provider for Tcp {
    fn name(&self) -> &'static str {
        NAME
    }

    fn open(&self) -> Result<Domain> {
        Ok(Domain::new(domain::TcpDomain::new(self.options.clone())?))
    }
}

const NAME: &str = "tcp";

fn capabilities() -> Capabilities {
    Capabilities {
        max_batch: 1 << 15,
        max_message: wire::MAX_PAYLOAD as usize,
        max_grants: wire::MAX_GRANTS,
        max_notifications: notifications::MAX_IN_BATCH,
        needs_target_cpu: true,
        ..Capabilities::full(NAME)
    }
}
