//! The transport's devices as this process has opened them, and how a replica is dialled.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use segstore_core::replica::{Refused, Request as ReplicaRequest};
use segstore_transport::{Domain, Endpoint, Memory, Provider, Region, Rights, shm::Shm, tcp::Tcp};

use crate::control::channel::Channel;
use crate::control::message::{Answer, Bytes, FaultKind, Place, Request};
use crate::control::rdma::RdmaDevice;
use crate::error::{Error, Result};
use crate::time::after;
use crate::way::{Distrusted, Way};

/// How long the daemons may usually take to open an endpoint.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Opened when they are first needed.
pub(crate) struct Domains {
    opened: [OnceLock<Domain>; 4],
    rdma: RdmaDevice,
    /// Where RDMA comes last.
    pub(crate) distrusted: Arc<Distrusted>,
}

/// Whom to connect to, and as what.
pub(crate) struct Destination<'d> {
    pub(crate) channel: &'d Channel,
    /// The segment.
    pub(crate) name: &'d str,
    pub(crate) place: &'d Place,
    /// As its writer; else to read.
    pub(crate) writer: Option<ReplicaRequest>,
    /// How long others may take for all of it.
    pub(crate) limit: Duration,
}

/// An endpoint to a replica, and memory of this process for its operations.
pub(crate) struct Dialled<const N: usize> {
    pub(crate) way: Way,
    pub(crate) endpoint: Endpoint,
    pub(crate) regions: [Region; N],
    /// Why it is no better way, if the two nodes have one in common.
    pub(crate) instead: Option<String>,
    /// Whether nothing was known against this way.
    pub(crate) is_trusted: bool,
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
        Self { opened: Default::default(), rdma, distrusted: Arc::default() }
    }

    fn open(&self, way: Way) -> segstore_transport::Result<Domain> {
        match way {
            Way::OwnNode => Shm::new().outliving_targets().open(),
            Way::Shm => Shm::new().open(),
            Way::Verbs => self.rdma.open(),
            Way::Tcp => Tcp::dialing_only().open(),
        }
    }

    fn get(&self, way: Way) -> Result<&Domain> {
        let slot = &self.opened[way as usize];
        if slot.get().is_none() {
            let domain = self.open(way);
            let domain = domain.map_err(|error| Error::of_transport(&format!("opening {}", way.provider()), &error))?;
            // Who was faster wins; the other domain had no users.
            let _ = slot.set(domain);
        }
        slot.get().ok_or_else(|| Error::Internal(format!("{} did not open", way.provider())))
    }

    /// Makes memory of this process usable by operations of a provider.
    fn register(&self, way: Way, memory: &Memory) -> Result<Region> {
        let region = self.get(way)?.register(memory, Rights::LOCAL);
        region.map_err(|error| Error::of_transport(&format!("registering memory with {}", way.provider()), &error))
    }

    /// Opens an endpoint to a replica over the best way that there is, for operations on these memories.
    pub(crate) fn dial<const N: usize>(
        &self,
        to: &Destination<'_>,
        memories: [&Memory; N],
    ) -> std::result::Result<Dialled<N>, DialError> {
        let (place, mut problems) = (to.place, Vec::new());
        let near = if to.is_own() { Way::OwnNode } else { Way::Shm };
        let is_last = |way: &Way| self.distrusted.has(place.member.node, *way);
        let (last, first): (Vec<_>, Vec<_>) = to.ways([near, Way::Verbs, Way::Tcp]).partition(is_last);
        let doubts = last.iter().map(|way| format!("{}: data did not get through a moment ago", way.provider()));
        problems.extend(doubts);
        let (ways, mut left) = (first.into_iter().chain(last).collect::<Vec<_>>(), to.limit);
        for (at, way) in ways.iter().copied().enumerate() {
            // One that does not answer leaves time for the next.
            let share = if at + 1 < ways.len() { left / 2 } else { left };
            left -= share;
            match self.dial_over(way, to, share, memories) {
                Err(DialError::OutOfReach(why)) => problems.push(format!("{}: {why}", way.provider())),
                Ok((endpoint, regions)) => {
                    let is_best = to.better(way).next().is_none();
                    let instead = (!is_best).then(|| problems.join("; "));
                    let is_trusted = !is_last(&way);
                    return Ok(Dialled { way, endpoint, regions, instead, is_trusted });
                }
                Err(refused) => return Err(refused),
            }
        }
        if problems.is_empty() {
            problems.push(no_way(place));
        }
        Err(DialError::OutOfReach(format!("node {}: {}", place.node_name, problems.join("; "))))
    }

    /// Whether a replica is reached over a better way than this one, for operations on this memory: by an endpoint that is closed at
    /// once.
    pub(crate) fn dial_better(
        &self,
        than: Way,
        to: &Destination<'_>,
        memory: &Memory,
    ) -> std::result::Result<(), DialError> {
        let mut why = DialError::OutOfReach("there is no better way".into());
        for way in to.better(than) {
            match self.dial_over(way, to, to.limit, [memory]) {
                Ok(_) => return Ok(()),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    fn dial_over<const N: usize>(
        &self,
        way: Way,
        to: &Destination<'_>,
        limit: Duration,
        memories: [&Memory; N],
    ) -> std::result::Result<(Endpoint, [Region; N]), DialError> {
        let out_of_reach = |error: &dyn std::fmt::Display| DialError::OutOfReach(error.to_string());
        let domain = self.get(way).map_err(|error| out_of_reach(&error))?;
        // Before anybody is let in anywhere: a device may not take the memory. And before the time begins that others have: of much memory
        // it takes seconds.
        let regions = memories.map(|memory| self.register(way, memory));
        let regions = collected(regions).map_err(|error| out_of_reach(&error))?;
        let end = after(Instant::now(), limit);
        let dialing = domain.dial().map_err(|error| out_of_reach(&error))?;
        let request = Request::Connect {
            name: to.name.to_owned(),
            member: to.place.member,
            writer: to.writer,
            provider: way.provider().to_owned(),
            hello: Bytes(dialing.hello().to_vec()),
        };
        match to.channel.ask(request, Some(limit)) {
            Ok(Answer::Connected { reply }) => {
                let endpoint = dialing.complete_within(&reply.0, Some(end)).map_err(|error| out_of_reach(&error))?;
                Ok((endpoint, regions))
            }
            Ok(other) => Err(DialError::OutOfReach(format!("the daemon answered {other:?}"))),
            Err(fault) => Err(match fault.kind {
                FaultKind::Refused(why) => DialError::Refused(why),
                FaultKind::NotFound | FaultKind::Denied => DialError::Gone(fault.message),
                _ => DialError::OutOfReach(fault.message),
            }),
        }
    }
}

impl Destination<'_> {
    fn is_own(&self) -> bool {
        self.writer.is_some() && self.place.member.node == self.channel.welcome().node
    }

    /// The ways that are better than this one, and that this node and the replica's have in common.
    fn better(&self, than: Way) -> impl Iterator<Item = Way> {
        self.ways([Way::Shm, Way::Verbs, Way::Tcp]).filter(move |way| *way < than)
    }

    /// Those of the ways that this node and the replica's have in common.
    fn ways(&self, of: [Way; 3]) -> impl Iterator<Item = Way> {
        let (welcome, place) = (self.channel.welcome(), self.place);
        let usable = |way: &Way| place.usable(&welcome.host, std::iter::once(way.provider())).next().is_some();
        // A device may come later than the daemon.
        let comes = |way: &Way| *way == Way::Verbs && welcome.rdma.wanted;
        let served = |way: &Way| comes(way) || welcome.providers.iter().any(|has| has == way.provider());
        let ways: Vec<_> = of.into_iter().filter(served).filter(usable).collect();
        ways.into_iter()
    }
}

/// Why there is no way at all to a place.
fn no_way(place: &Place) -> String {
    let nothing_in_common = || format!("no provider in common: it serves {}", place.providers.join(", "));
    // Of a node that is not known so far, nobody knows what it serves.
    place.problem.clone().filter(|_| place.providers.is_empty()).unwrap_or_else(nothing_in_common)
}

/// All of them, or the first error.
fn collected<T, const N: usize>(results: [Result<T>; N]) -> Result<[T; N]> {
    let all: Vec<T> = results.into_iter().collect::<Result<_>>()?;
    Ok(all.try_into().unwrap_or_else(|_| unreachable!("there are as many")))
}

#[cfg(test)]
mod tests {
    use segstore_core::id::{Incarnation, Member, NodeId};

    use super::*;

    /// A daemon that has just been started has not seen every node: then it does not matter what they serve.
    #[test]
    fn a_node_that_is_not_known_is_not_said_to_serve_nothing() {
        let place = |providers: &[&str], problem: Option<&str>| Place {
            member: Member { node: NodeId(1), incarnation: Incarnation(2) },
            node_name: "n1".into(),
            host: String::new(),
            providers: providers.iter().map(|&name| name.into()).collect(),
            up: false,
            problem: problem.map(str::to_owned),
        };
        assert_eq!(
            no_way(&place(&[], Some("its node is not in the cluster now"))),
            "its node is not in the cluster now"
        );
        assert_eq!(no_way(&place(&["shm"], Some("it is down"))), "no provider in common: it serves shm");
    }
}
