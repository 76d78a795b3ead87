//! The transport's devices as this process has opened them, and how a replica is dialled.

use std::sync::OnceLock;
use std::time::Duration;

use segstore_core::replica::{Refused, Request as ReplicaRequest};
use segstore_transport::{Domain, Endpoint, Memory, Provider, Region, Rights, shm::Shm, tcp::Tcp};

use crate::control::channel::Channel;
use crate::control::message::{Answer, Bytes, FaultKind, Place, Request};
use crate::error::{Error, Result};

/// How long the daemons may usually take to open an endpoint.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
const SHM: &str = "shm";
const TCP: &str = "tcp";

/// Opened when they are first needed.
#[derive(Default)]
pub(crate) struct Domains {
    shm: OnceLock<Domain>,
    tcp: OnceLock<Domain>,
}

/// Why a replica could not be reached.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// It answered that it will not.
    #[error(transparent)]
    Refused(Refused),
    /// It is not there any more: asking again is of no use.
    #[error("{0}")]
    Gone(String),
    /// It may answer later.
    #[error("{0}")]
    OutOfReach(String),
}

impl Domains {
    fn get(&self, provider: &str) -> Result<&Domain> {
        let (slot, opened) = match provider {
            SHM => (&self.shm, self.shm.get().is_none().then(|| Shm::new().open())),
            TCP => (&self.tcp, self.tcp.get().is_none().then(|| Tcp::dialing_only().open())),
            other => {
                let text = format!("the provider {other:?}: this library knows {SHM} and {TCP}");
                return Err(Error::Invalid(text));
            }
        };
        if let Some(opened) = opened {
            let domain = opened.map_err(|error| Error::of_transport(&format!("opening {provider}"), &error))?;
            // Who was faster wins; the other domain had no users.
            let _ = slot.set(domain);
        }
        slot.get().ok_or_else(|| Error::Internal(format!("{provider} did not open")))
    }

    /// Makes memory of this process usable by operations of a provider.
    pub(crate) fn register(&self, provider: &str, memory: &Memory) -> Result<Region> {
        let region = self.get(provider)?.register(memory, Rights::LOCAL);
        region.map_err(|error| Error::of_transport(&format!("registering memory with {provider}"), &error))
    }

    /// Opens an endpoint to a replica of the segment `name`: as its writer, or to read. The daemons may take `limit` for it. Gives
    /// the provider too.
    pub(crate) fn dial(
        &self,
        channel: &Channel,
        name: &str,
        place: &Place,
        writer: Option<ReplicaRequest>,
        limit: Duration,
    ) -> std::result::Result<(&'static str, Endpoint), DialError> {
        let mut problems = Vec::new();
        let welcome = channel.welcome();
        let known = [SHM, TCP].into_iter().filter(|name| welcome.providers.iter().any(|has| has == name));
        for provider in place.usable(&welcome.host, known) {
            match self.dial_over(provider, channel, name, place, writer, limit) {
                Err(DialError::OutOfReach(why)) => problems.push(format!("{provider}: {why}")),
                Ok(endpoint) => return Ok((provider, endpoint)),
                Err(refused) => return Err(refused),
            }
        }
        if problems.is_empty() {
            problems.push(format!("no provider in common: it serves {}", place.providers.join(", ")));
        }
        Err(DialError::OutOfReach(format!("node {}: {}", place.node_name, problems.join("; "))))
    }

    fn dial_over(
        &self,
        provider: &str,
        channel: &Channel,
        name: &str,
        place: &Place,
        writer: Option<ReplicaRequest>,
        limit: Duration,
    ) -> std::result::Result<Endpoint, DialError> {
        let out_of_reach = |error: &dyn std::fmt::Display| DialError::OutOfReach(error.to_string());
        let domain = self.get(provider).map_err(|error| out_of_reach(&error))?;
        let dialing = domain.dial().map_err(|error| out_of_reach(&error))?;
        let request = Request::Connect {
            name: name.to_owned(),
            member: place.member,
            writer,
            provider: provider.to_owned(),
            hello: Bytes(dialing.hello().to_vec()),
        };
        match channel.ask(request, Some(limit)) {
            Ok(Answer::Connected { reply }) => dialing.complete(&reply.0).map_err(|error| out_of_reach(&error)),
            Ok(other) => Err(DialError::OutOfReach(format!("the daemon answered {other:?}"))),
            Err(fault) => Err(match fault.kind {
                FaultKind::Refused(why) => DialError::Refused(why),
                FaultKind::NotFound | FaultKind::Denied => DialError::Gone(fault.message),
                _ => DialError::OutOfReach(fault.message),
            }),
        }
    }
}
