//! What clients ask, by subject.

pub(super) mod lists;
mod moves;
pub(super) mod names;
pub(super) mod owners;
mod plan;
mod replicas;
mod segments;

use std::sync::Arc;

use segstore::control::message::{Access, Answer, Fault, FaultKind, Holder, Request, SegmentInfo, Standby};

use super::credentials::{Credentials, Want};
use super::session::{Attempt, LetGo, Session, Who};
use crate::cluster::SegmentEntry;
use crate::directory::Revision;
use crate::node::{Further, Node, Origin};
use segments::Made;

/// Who asks, and whom.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) node: Arc<Node>,
    pub(super) session: Arc<Session>,
    pub(super) credentials: Credentials,
}

impl Client {
    /// A segment that the client may use so.
    async fn segment(&self, name: &str, want: Want) -> Result<(SegmentEntry, Revision), Fault> {
        let (entry, revision) = match self.node.segment(name).await {
            Err(fault) if fault.kind == FaultKind::NotFound => return Err(self.not_made(name, fault).await),
            found => found?,
        };
        self.credentials.check(name, entry.access, want)?;
        Ok((entry, revision))
    }

    /// What concerns everybody's segments is for root, and for the user as whom the daemon runs.
    fn check_operator(&self, what: &str) -> Result<(), Fault> {
        let (uid, own) = (self.credentials.uid, nix::unistd::geteuid().as_raw());
        if uid == 0 || uid == own {
            return Ok(());
        }
        let text = format!("user {uid} may not {what}: only root, and the daemon's own user, may");
        Err(Fault::new(FaultKind::Denied, text))
    }

    /// For whom it holds a name.
    fn who(&self, own: bool) -> Who {
        own.then(|| self.credentials.process())
    }

    /// As it stands by for a name.
    fn standby(&self) -> Standby {
        let (node_name, program) = (self.node.name.clone(), self.session.program.clone());
        Standby { node_name, pid: self.credentials.pid, program }
    }

    /// There is no such segment; somebody may hold its name.
    async fn not_made(&self, name: &str, mut fault: Fault) -> Fault {
        if let Ok(Some((Holder { program, pid, node_name, .. }, _))) = self.node.holder(name).await {
            fault.message += &format!("; its name is held by {program} (process {pid} on node {node_name})");
        }
        fault
    }

    /// What a client that may load a segment is told of it.
    async fn info(&self, name: &str) -> Result<SegmentInfo, Fault> {
        let (entry, revision) = self.segment(name, Want::Read).await?;
        let holder = self.node.holder(name).await?.map(|(holder, _)| holder);
        Ok(self.node.describe(name, &entry, revision, holder))
    }
}

/// What is done in the order in which requests are read: they are served side by side.
pub(super) enum Noted {
    /// Nothing.
    Nothing,
    /// A name is to be acquired.
    Begun(Attempt),
    /// A name was let go.
    LetGo(LetGo),
}

/// Does that for the request that was just read.
pub(super) fn note(client: &Client, request: &Request) -> Noted {
    match request {
        Request::Acquire { name, own, .. } => Noted::Begun(client.session.begin(name, client.who(*own))),
        Request::Release { name, own } => Noted::LetGo(client.session.let_go(name, client.who(*own))),
        _ => Noted::Nothing,
    }
}

/// Serves one request.
pub(super) async fn serve(client: &Client, request: Request, noted: Noted) -> Result<Answer, Fault> {
    match (request, noted) {
        (Request::Acquire { name, wait, force, .. }, Noted::Begun(attempt)) => {
            names::acquire(client, &name, attempt, wait, force).await
        }
        (Request::Release { name, .. }, Noted::LetGo(let_go)) => names::released(client, &name, let_go).await,
        (request, _) => serve_in_any_order(client, request).await,
    }
}

async fn serve_in_any_order(client: &Client, request: Request) -> Result<Answer, Fault> {
    match request {
        Request::Hello { .. } => Err(Fault::new(FaultKind::Invalid, "hello was said before")),
        Request::Acquire { .. } | Request::Release { .. } => {
            Err(Fault::new(FaultKind::Internal, "it was not noted when it was read"))
        }
        Request::Create { name, shape, keeping, placing, mode, uid, gid } => {
            let Credentials { uid: own_uid, gid: own_gid, .. } = client.credentials;
            let access = Access { uid: uid.unwrap_or(own_uid), gid: gid.unwrap_or(own_gid), mode };
            segments::create(client, name, Made { shape, keeping, placing, access }).await
        }
        Request::Lookup { name } => segments::lookup(client, &name).await,
        Request::Swap { name, swap, why, causes } => segments::swap(client, &name, swap, &why, &causes).await,
        Request::SetReplicas { name, replicas } => segments::set_replicas(client, &name, replicas).await,
        Request::Plan { name, made } => plan::plan(client, &name, made).await,
        Request::Drain { node, on } => lists::drain(client, &node, on).await,
        Request::Left { node } => lists::left(client, &node).await,
        Request::Remove { name, force } => segments::remove(client, &name, force).await,
        Request::AwaitLoss { name, hold } => names::await_loss(client, &name, Revision(hold)).await,
        Request::Lease => Ok(names::lease(client)),
        Request::Move { name, to, wait } => moves::hand_over(client, &name, to.as_deref(), wait).await,
        Request::Fence { name, member, request } => replicas::fence(client, &name, member, request).await,
        Request::Level { name, member, request } => replicas::level(client, &name, member, request).await,
        Request::Heads { name, member } => replicas::heads(client, &name, member).await,
        Request::Connect { name, member, writer, provider, hello } => {
            replicas::connect(client, &name, member, writer, provider, hello).await
        }
        Request::Local { name, make_for } => replicas::local(client, &name, make_for).await,
        Request::Repair { name, ownership, members, source, slot, base } => {
            let further = Further { ownership, beside: Some(client.node.id), members };
            replicas::repair(client, &name, further, Origin { source, slot, base }).await
        }
        Request::Make { name, ownership, members } => {
            let further = Further { ownership, beside: Some(client.node.id), members };
            replicas::make(client, &name, further).await
        }
        Request::Hold { name, time, without } => owners::hold(client, &name, time, without).await,
        Request::EndHold { name, number } => owners::end_hold(client, &name, number).await,
        Request::Status { name } => owners::status(client, &name).await,
        Request::Segments => lists::segments(client).await,
        Request::Holds => lists::holds(client).await,
        Request::ForgetNode { name } => lists::forget_node(client, &name).await,
        Request::Nodes => lists::nodes(client).await,
        Request::Events { name } => lists::events(client, name.as_deref()).await,
    }
}
