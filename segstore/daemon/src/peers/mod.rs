//! What daemons ask of each other, over gRPC in TLS.

mod channel;
pub(crate) mod codec;
pub mod message;
mod repeats;
pub mod server;
pub mod tls;

use std::time::Duration;

use segstore::control::message::{Fault, FaultKind};
use segstore_core::id::NodeId;
use tonic::Request;

#[cfg(feature = "etcd")]
pub(crate) use channel::causes;
pub use channel::{Channels, describe, was_not_sent};
use message::{Call, Reply};
use server::Incoming;

/// What the build makes of the services.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]
pub(crate) mod rpc {
    include!(concat!(env!("OUT_DIR"), "/segstore.v1.Peer.rs"));
    include!(concat!(env!("OUT_DIR"), "/segstore.v1.Directory.rs"));
}

/// The other daemons.
#[derive(Clone)]
pub struct Peers {
    own: NodeId,
    channels: Channels,
}

impl Peers {
    /// Calls are made in the name of `own`.
    #[must_use]
    pub fn new(own: NodeId, channels: Channels) -> Self {
        Self { own, channels }
    }

    /// Calls the daemon at `address`.
    ///
    /// # Errors
    /// What it answers; [`FaultKind::Unreachable`]: it was not asked; [`FaultKind::NoAnswer`]: it may have done it.
    pub async fn call(&self, address: &str, call: Call, limit: Duration) -> Result<Reply, Fault> {
        let channel = self.channels.to(address).map_err(|error| Fault::new(FaultKind::Unreachable, error))?;
        let mut client = rpc::peer_client::PeerClient::new(channel).max_decoding_message_size(usize::MAX);
        let mut request = Request::new(Incoming { from: self.own, call });
        request.set_timeout(limit);
        match client.call(request).await {
            Ok(response) => response.into_inner().0,
            Err(status) => {
                if was_not_sent(&status) {
                    return Err(Fault::new(FaultKind::Unreachable, describe(&status)));
                }
                Err(Fault::new(FaultKind::NoAnswer, format!("the daemon at {address}: {}", describe(&status))))
            }
        }
    }
}
