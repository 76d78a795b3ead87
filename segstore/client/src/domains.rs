//! The transport's devices as this process has opened them, and how a replica is dialled.

use std::sync::OnceLock;
use std::time::Duration;

use segstore_core::replica::{Refused, Request as ReplicaRequest};
use segstore_transport::{Domain, Endpoint, Memory, Provider, Region, Rights, shm::Shm, tcp::Tcp};

use crate::control::channel::{Channel, Welcome};
use crate::control::message::{Answer, Bytes, FaultKind, Place, Request};
use crate::control::rdma::RdmaDevice;
use crate::error::{Error, Result};

/// How long the daemons may usually take to open an endpoint.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How a replica is reached, the best way first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Way {
    /// In this machine's shared memory, in a replica of the writer's own node: its memory outlives its daemon, and while that is
    /// away nobody can take the segment over by it. So the writer goes on; it must connect again when the daemon is back.
    OwnNode,
    /// In this machine's shared memory.
    Shm,
    /// By RDMA.
    Verbs,
    /// By TCP.
    Tcp,
}

impl Way {
    /// What the transport calls it, and daemons do.
    pub(crate) fn provider(self) -> &'static str {
        match self {
            Self::OwnNode | Self::Shm => "shm",
            Self::Verbs => "verbs",
            Self::Tcp => "tcp",
        }
    }

    fn open(self, rdma: &RdmaDevice) -> segstore_transport::Result<Domain> {
        match self {
            Self::OwnNode => Shm::new().outliving_targets().open(),
            Self::Shm => Shm::new().open(),
            Self::Verbs => rdma.open(),
            Self::Tcp => Tcp::dialing_only().open(),
        }
    }
}

/// Opened when they are first needed.
pub(crate) struct Domains {
    opened: [OnceLock<Domain>; 4],
    rdma: RdmaDevice,
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
    /// None is open so far.
    pub(crate) fn new(rdma: RdmaDevice) -> Self {
        Self { opened: Default::default(), rdma }
    }

    fn get(&self, way: Way) -> Result<&Domain> {
        let slot = &self.opened[way as usize];
        if slot.get().is_none() {
            let domain = way.open(&self.rdma);
            let domain = domain.map_err(|error| Error::of_transport(&format!("opening {}", way.provider()), &error))?;
            // Who was faster wins; the other domain had no users.
            let _ = slot.set(domain);
        }
        slot.get().ok_or_else(|| Error::Internal(format!("{} did not open", way.provider())))
    }

    /// Makes memory of this process usable by operations of a provider.
    pub(crate) fn register(&self, way: Way, memory: &Memory) -> Result<Region> {
        let region = self.get(way)?.register(memory, Rights::LOCAL);
        region.map_err(|error| Error::of_transport(&format!("registering memory with {}", way.provider()), &error))
    }

    /// Opens an endpoint to a replica of the segment `name`: as its writer, or to read. The daemons may take `limit` for it. Gives
    /// the way too.
    pub(crate) fn dial(
        &self,
        channel: &Channel,
        name: &str,
        place: &Place,
        writer: Option<ReplicaRequest>,
        limit: Duration,
    ) -> std::result::Result<(Way, Endpoint), DialError> {
        let mut problems = Vec::new();
        let welcome = channel.welcome();
        let is_own = writer.is_some() && place.member.node == welcome.node;
        let near = if is_own { Way::OwnNode } else { Way::Shm };
        for way in in_common([near, Way::Verbs, Way::Tcp], &welcome, place) {
            match self.dial_over(way, channel, name, place, writer, limit) {
                Err(DialError::OutOfReach(why)) => problems.push(format!("{}: {why}", way.provider())),
                Ok(endpoint) => return Ok((way, endpoint)),
                Err(refused) => return Err(refused),
            }
        }
        if problems.is_empty() {
            problems.push(format!("no provider in common: it serves {}", place.providers.join(", ")));
        }
        Err(DialError::OutOfReach(format!("node {}: {}", place.node_name, problems.join("; "))))
    }

    /// The ways that are better than this one, and that this node and the replica's have in common.
    pub(crate) fn better(&self, than: Way, channel: &Channel, place: &Place) -> Vec<Way> {
        let welcome = channel.welcome();
        let all = in_common([Way::Shm, Way::Verbs, Way::Tcp], &welcome, place);
        all.filter(|way| *way < than).collect()
    }

    /// Whether a replica is reached over a better way than this one: by an endpoint that reads, and is closed at once.
    pub(crate) fn dial_better(
        &self,
        than: Way,
        channel: &Channel,
        name: &str,
        place: &Place,
        limit: Duration,
    ) -> std::result::Result<(), DialError> {
        let mut why = DialError::OutOfReach("there is no better way".into());
        for way in self.better(than, channel, place) {
            match self.dial_over(way, channel, name, place, None, limit) {
                Ok(_) => return Ok(()),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    fn dial_over(
        &self,
        way: Way,
        channel: &Channel,
        name: &str,
        place: &Place,
        writer: Option<ReplicaRequest>,
        limit: Duration,
    ) -> std::result::Result<Endpoint, DialError> {
        let out_of_reach = |error: &dyn std::fmt::Display| DialError::OutOfReach(error.to_string());
        let domain = self.get(way).map_err(|error| out_of_reach(&error))?;
        let dialing = domain.dial().map_err(|error| out_of_reach(&error))?;
        let request = Request::Connect {
            name: name.to_owned(),
            member: place.member,
            writer,
            provider: way.provider().to_owned(),
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

/// Those of the ways that this node and the replica's have in common.
fn in_common(ways: [Way; 3], welcome: &Welcome, place: &Place) -> impl Iterator<Item = Way> {
    let usable = |way: &Way| place.usable(&welcome.host, std::iter::once(way.provider())).next().is_some();
    let served = |way: &Way| welcome.providers.iter().any(|has| has == way.provider());
    ways.into_iter().filter(served).filter(usable)
}
