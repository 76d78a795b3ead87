//! What daemons ask this node.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use segstore::control::message::{Bytes, Demand, Fault, FaultKind, Place, ReplicaInfo, Report, Shape};
use segstore_core::forget::Forgettable;
use segstore_core::id::{NodeId, SegmentId};
use segstore_core::layout::{Geometry, Ownership};
use segstore_transport::Endpoint;

use super::drain::await_owner;
use super::{LONG, Node, SHORT, unexpected};
use crate::config::shown;
use crate::directory::Revision;
use crate::peers::message::{Call, KeptReplica, Reply, Serve};
use crate::replicas::{Filled, Head, Kept, ReplicaError, Source, Summary, Usage};

/// Serves calls with what this node has.
pub struct Calls {
    node: Arc<Node>,
}

impl Calls {
    /// For this node.
    #[must_use]
    pub fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    /// Work that blocks, away from the runtime's threads.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Node) -> Result<T, ReplicaError> + Send + 'static,
    ) -> Result<T, Fault> {
        let node = self.node.clone();
        let done = tokio::task::spawn_blocking(move || work(&node)).await;
        let done = done.map_err(|error| Fault::new(FaultKind::Internal, format!("a task of the daemon: {error}")))?;
        done.map_err(Fault::from)
    }

    async fn demand(&self, session: u64, demand: Demand) -> Result<Report, Fault> {
        self.node.sessions.demand(session, demand).await
    }

    /// An endpoint that reads the source of a repair.
    async fn dial_over(&self, provider: &str, segment: SegmentId, source: &Place) -> Result<Endpoint, Fault> {
        let transport = |error: segstore_transport::Error| Fault::new(FaultKind::Unreachable, error.to_string());
        let domain = self.node.replicas.domains().get(provider).map_err(Fault::from)?;
        let mut dialing = domain.dial().map_err(transport)?;
        if self.node.repairs_yield.load(Ordering::Relaxed) {
            // Owners' pushes, and what answers them, go first.
            dialing = dialing.yielding();
        }
        let call = Call::Connect {
            segment,
            member: source.member,
            writer: None,
            provider: provider.to_owned(),
            hello: Bytes(dialing.hello().to_vec()),
        };
        match self.node.call(source.member.node, call, LONG).await? {
            Reply::Connected { reply } => {
                let completed = tokio::task::spawn_blocking(move || dialing.complete(&reply.0)).await;
                let completed = completed.map_err(|error| Fault::new(FaultKind::Internal, error.to_string()))?;
                completed.map_err(transport)
            }
            other => Err(unexpected(&other)),
        }
    }

    fn replica_info(&self, summary: Summary) -> ReplicaInfo {
        ReplicaInfo {
            member: summary.member,
            node_name: self.node.name.clone(),
            in_sync: false,
            over: None,
            image: summary.image,
            repair: summary.repair,
            problem: summary.problem,
        }
    }
}

#[async_trait::async_trait]
impl Serve for Calls {
    async fn serve(&self, _from: NodeId, call: Call) -> Result<Reply, Fault> {
        match call {
            Call::Create { segment, name, shape, remembered, replaced } => {
                let arrival = self.node.arrival(segment)?;
                let geometry = geometry(shape)?;
                let replaced = Forgettable { by: remembered, members: replaced };
                let create = move |node: &Node| {
                    node.replicas.retire(segment, &replaced)?;
                    node.replicas.create(segment, geometry, remembered)
                };
                let member = self.blocking(create).await?;
                self.node.changed.notify_one();
                tracing::info!(segment = name, replica = %member.incarnation, "a replica was made here");
                if remembered != Ownership::default() {
                    await_owner(arrival);
                }
                Ok(Reply::Created { member })
            }
            Call::Fence { request } => {
                self.blocking(move |node| node.replicas.fence(&request)).await.map(|found| heads(&found))
            }
            Call::Heads { segment, member } => self
                .blocking(move |node| node.replicas.heads(segment, member.incarnation))
                .await
                .map(|found| heads(&found)),
            Call::Connect { segment, member, writer, provider, hello } => {
                let connect = move |node: &Node| match writer {
                    Some(request) => node.replicas.connect_writer(&request, &provider, &hello.0),
                    None => node.replicas.connect_reader(segment, member.incarnation, &provider, &hello.0),
                };
                self.blocking(connect).await.map(|reply| Reply::Connected { reply: Bytes(reply) })
            }
            Call::Verify { segment, member, slot, image } => {
                let verify = move |node: &Node| node.replicas.verify(segment, member.incarnation, slot, image);
                self.blocking(verify).await.map(|damage| Reply::Verified { damage })
            }
            Call::Care { name } => Ok(Reply::Care(self.node.care.of(&name))),
            Call::Level { request } => {
                self.blocking(move |node| node.replicas.level(&request)).await.map(|()| Reply::Done)
            }
            Call::Repair { segment, name, shape, ownership, replaced, source, slot, base } => {
                let arrival = self.node.arrival(segment)?;
                let replaced = Forgettable { by: ownership, members: replaced };
                let from = Source { segment, geometry: geometry(shape)?, slot, base, term: ownership.term };
                tracing::info!(segment = name, "a replica is being filled here, from node {}", source.node_name);
                let filled = self.repair(from, replaced, &source).await;
                let Filled { member, base, closed, copied } = filled
                    .inspect_err(|fault| tracing::warn!(segment = name, "the replica was not filled: {fault}"))?;
                tracing::info!(segment = name, "the replica is filled: {} were copied", shown(copied));
                await_owner(arrival);
                Ok(Reply::Repaired { member, base, closed })
            }
            Call::Replicas { segment } => {
                let summaries = self.blocking(move |node| Ok(node.replicas.summaries(segment))).await?;
                Ok(Reply::Replicas(summaries.into_iter().map(|summary| self.replica_info(summary)).collect()))
            }
            Call::ForgetNode { node } => {
                self.node.view.forget(node);
                Ok(Reply::Done)
            }
            Call::Kept => {
                let kept = self.blocking(|node| Ok(node.replicas.list())).await?;
                let told = |Kept { member, remembered, problem, .. }: Kept| KeptReplica {
                    incarnation: member.incarnation,
                    term: remembered.term,
                    problem,
                };
                Ok(Reply::Kept(kept.into_iter().map(told).collect()))
            }
            Call::Usage => {
                let Usage { used, budget, .. } = self.node.replicas.room();
                Ok(Reply::Usage { used, budget })
            }
            Call::Forget { segment, unowned_only } => {
                self.blocking(move |node| node.replicas.forget(segment, unowned_only)).await?;
                self.node.changed.notify_one();
                Ok(Reply::Done)
            }
            Call::Hold { name, session, time, without } => {
                match self.demand(session, Demand::Hold { name, time, without }).await? {
                    Report::Held(held) => Ok(Reply::Held(held)),
                    other => Err(odd(&other)),
                }
            }
            Call::EndHold { name, session, number } => {
                self.demand(session, Demand::EndHold { name, number }).await.map(|_| Reply::Done)
            }
            Call::Changed { name, session } => {
                tokio::spawn(self.node.sessions.clone().tell_of_change(session, name));
                Ok(Reply::Done)
            }
            Call::Holds { name, session } => Ok(Reply::Holds(self.node.sessions.has_open(session, &name))),
            Call::Standby { name } => Ok(Reply::Standby(self.node.sessions.standbys().of(&name))),
            Call::Move { name, session, to, to_name, time } => {
                let time = Duration::from_millis(time);
                self.node
                    .sessions
                    .ask_to_move(session, &name, (to, to_name), time)
                    .await
                    .map(|is_heard| Reply::Asked { is_heard })
            }
            Call::Take { name, revision, from } => {
                let offered = self.node.sessions.standbys().offer(&name, Revision(revision), &from);
                // Before the giver gives it up.
                let taken = tokio::time::timeout(SHORT * 3 / 4, offered).await;
                let late = || Fault::new(FaultKind::Unreachable, "whoever stands by for it does not take it in time");
                taken.unwrap_or_else(|_| Err(late())).map(|()| Reply::Done)
            }
            Call::Busy => {
                let arriving = self.node.draining.arriving.all();
                let kept = self.blocking(|node| Ok(node.replicas.list())).await?;
                let in_use = kept.iter().filter(|kept| kept.is_in_use).map(|kept| kept.segment);
                let written = in_use.chain(arriving).collect();
                Ok(Reply::Busy { kept: kept.iter().map(|kept| kept.segment).collect(), written })
            }
            Call::Drain { on } => {
                let set = self.node.draining.set(on);
                set.map_err(|error| Fault::new(FaultKind::Internal, format!("noting that it is drained: {error}")))?;
                tracing::warn!("{}", if on { "this node is being drained" } else { "this node is drained no more" });
                self.node.changed.notify_one();
                Ok(Reply::Done)
            }
            Call::State { name, session } => match self.demand(session, Demand::State { name }).await? {
                Report::State(state) => Ok(Reply::State(state)),
                other => Err(odd(&other)),
            },
        }
    }
}

impl Calls {
    /// Fills a replica from another, over the best provider that gets it done.
    async fn repair(&self, source: Source, replaced: Forgettable, place: &Place) -> Result<Filled, Fault> {
        let mut problems = Vec::new();
        let served = self.node.replicas.domains().names();
        for provider in place.usable(&self.node.host, served.iter().map(String::as_str)) {
            let filled = self.fill_over(provider, source, &replaced, place).await;
            // Where nothing was left for it, the next one has its share.
            self.node.repairs_yield.store(!matches!(filled, Err(Unfilled::OverThis(_))), Ordering::Relaxed);
            self.node.changed.notify_one();
            match filled {
                Ok(filled) => return Ok(filled),
                Err(Unfilled::Anyhow(fault)) => return Err(fault),
                Err(Unfilled::OverThis(fault)) => {
                    tracing::warn!("a replica cannot be filled from node {} over {provider}: {fault}", place.node_name);
                    problems.push(format!("{provider}: {fault}"));
                }
            }
        }
        if problems.is_empty() {
            problems.push(format!("no provider in common: it serves {}", place.providers.join(", ")));
        }
        let (here, there, why) = (&self.node.name, &place.node_name, problems.join("; "));
        Err(Fault::new(FaultKind::Unreachable, format!("filling a replica on {here} from {there}: {why}")))
    }

    async fn fill_over(
        &self,
        provider: &str,
        source: Source,
        replaced: &Forgettable,
        place: &Place,
    ) -> Result<Filled, Unfilled> {
        let endpoint = self.dial_over(provider, source.segment, place).await.map_err(|fault| match fault.kind {
            FaultKind::NotFound | FaultKind::Refused(_) | FaultKind::Denied => Unfilled::Anyhow(fault),
            _ => Unfilled::OverThis(fault),
        })?;
        let (over, replaced) = (provider.to_owned(), replaced.clone());
        let fill = move |node: &Node| Ok(node.replicas.fill(&source, &replaced, &over, endpoint));
        self.blocking(fill).await.map_err(Unfilled::Anyhow)?.map_err(|error| match &error {
            ReplicaError::Transport { .. } => Unfilled::OverThis(error.into()),
            _ => Unfilled::Anyhow(error.into()),
        })
    }
}

/// Why a replica was not filled.
enum Unfilled {
    /// It may be over another provider.
    OverThis(Fault),
    /// Over none.
    Anyhow(Fault),
}

pub(crate) fn geometry(shape: Shape) -> Result<Geometry, Fault> {
    shape.geometry().map_err(|error| Fault::new(FaultKind::Invalid, error.to_string()))
}

fn heads(heads: &[Head]) -> Reply {
    Reply::Heads(heads.iter().map(|head| Bytes(head.to_vec())).collect())
}

fn odd(report: &Report) -> Fault {
    Fault::new(FaultKind::Internal, format!("the client answered something else: {report:?}"))
}
