//! Segments: made, looked up, changed, removed.

use std::sync::Arc;

use segstore::control::message::{Access, Answer, Fault, FaultKind, Holder, Keeping, Placing, Shape, is_label};
use segstore_core::id::{Member, NodeId, OwnerId, SegmentId, Term};
use segstore_core::layout::Ownership;
use segstore_core::record::{RecordVersion, Swap};

use super::Client;
use crate::cluster::{Claimant, NodeEntry, SegmentEntry, check_name, segment_key};
use crate::config::shown;
use crate::directory::{Revision, Swapped};
use crate::identity::now;
use crate::identity::random;
use crate::node::placement::Search;
use crate::node::{Came, Change, LONG, Node, SHORT, directory_fault, geometry, unexpected};
use crate::peers::message::{Call, Reply};
use crate::sessions::credentials::Want;

/// How often it is tried to tell an owner's daemon of a change; one that is older never knows of it.
const TELLINGS: usize = 30;
/// The most replicas of a segment.
const REPLICAS: u32 = 16;

/// How a segment is to be made.
pub(super) struct Made {
    pub(super) shape: Shape,
    pub(super) keeping: Keeping,
    pub(super) placing: Placing,
    pub(super) access: Access,
}

/// Makes a segment. In a task of its own: a client that goes away meanwhile must not leave replicas that nobody knows of.
pub(super) async fn create(client: &Client, name: String, made: Made) -> Result<Answer, Fault> {
    let asker = client.clone();
    let made = tokio::spawn(async move { make(&asker, &name, made).await }).await;
    made.map_err(|error| Fault::new(FaultKind::Internal, error.to_string()))?
}

async fn make(client: &Client, name: &str, made: Made) -> Result<Answer, Fault> {
    let Made { shape, keeping, placing, access } = made;
    check_name(name)?;
    let geometry = geometry(shape)?;
    check_keeping(keeping, access.mode)?;
    check_placing(&placing)?;
    client.credentials.check_giving(access)?;
    let node = &client.node;
    match node.segment(name).await {
        Ok(_) => return Err(exists(name)),
        Err(fault) if fault.kind == FaultKind::NotFound => {}
        Err(fault) => return Err(fault),
    }
    let (mut search, mut full) = (places(node, geometry.replica_bytes(), &placing).await, None);
    let (segment, members, places) = loop {
        let places = search.choose(keeping.replicas as usize);
        // A replica on the owner's own node is better than none, and counts for nothing.
        let elsewhere = places.iter().filter(|place| place.node != node.id).count();
        let fewest = if keeping.minimum == 0 { 0 } else { 1 };
        if places.is_empty() || (elsewhere < fewest && search.nodes.len() > 1) {
            return Err(full.unwrap_or_else(|| no_room(name, &search)));
        }
        // Another each time: what was to forget the former one may come late.
        let segment = SegmentId(random()?);
        node.make_known(segment, name).await?;
        match make_replicas(node, name, segment, shape, &places).await {
            Ok(members) => break (segment, members, places),
            // What a node says of its room is a moment old: the next one may have more.
            Err((at, fault)) if fault.kind == FaultKind::NoRoom => {
                tracing::warn!(segment = name, "node {} was to keep a replica: {fault}", node.view.name(at));
                search.nodes.retain(|entry| entry.node != at);
                full = Some(fault);
            }
            Err((_, fault)) => return Err(fault),
        }
    };
    let elsewhere = places.iter().filter(|place| place.node != node.id).count();
    if client.session.is_over() {
        node.forget(segment, true).await;
        return Err(Fault::new(FaultKind::Unreachable, "the session that wanted the segment has ended"));
    }
    let mut entry = SegmentEntry {
        segment,
        term: Term(0),
        owner: OwnerId(0),
        in_sync: members,
        former: Vec::new(),
        shape: Shape { capacity: geometry.capacity(), ..shape },
        keeping,
        placing,
        access,
        created: now(),
        events: Vec::new(),
        claimant: None,
        version: 0,
    };
    let names: Vec<_> = places.iter().map(|place| place.name.as_str()).collect();
    let mut why = format!("with replicas on {}", names.join(", "));
    if elsewhere < keeping.replicas as usize {
        why += &format!("; {} were asked for on other nodes, there is room on {elsewhere}", keeping.replicas);
    }
    entry.note(node.note(name, "created", 0, why));
    if !node.is_known(segment).await? {
        let text = format!("making segment {name} took so long that its replicas were given up: try again");
        return Err(Fault::new(FaultKind::Unreachable, text));
    }
    match node.write_segment(name, None, &entry).await {
        Ok(Ok(RecordVersion(version))) => {
            entry.version = version;
            Ok(Answer::Segment(Box::new(node.describe(name, &entry, Revision(version), None))))
        }
        Ok(Err(_)) => {
            node.forget(segment, true).await;
            Err(exists(name))
        }
        Err(fault) => {
            if fault.kind != FaultKind::NoAnswer {
                node.forget(segment, true).await;
            }
            Err(fault)
        }
    }
}

/// Where the replicas of a segment go that is made on this node.
pub(super) async fn places<'p>(node: &Arc<Node>, bytes: u64, placing: &'p Placing) -> Search<'p> {
    let (nodes, near) = (node.rooms().await, node.view.entries([node.id]));
    Search { nodes, bytes, placing, owner: Some(node.id), near, former: Vec::new() }
}

pub(super) fn check_keeping(keeping: Keeping, mode: u32) -> Result<(), Fault> {
    let Keeping { replicas, minimum, .. } = keeping;
    let problem = if !(1..=REPLICAS).contains(&replicas) {
        format!("{replicas} replicas: a segment has 1 to {REPLICAS}")
    } else if minimum > replicas {
        format!("a minimum of {minimum} in sync of {replicas} replicas: it cannot be more than there are")
    } else if mode > 0o777 {
        format!("mode {mode:o}: permission bits are three octal digits")
    } else {
        return Ok(());
    };
    Err(Fault::new(FaultKind::Invalid, problem))
}

pub(super) fn exists(name: &str) -> Fault {
    Fault::new(FaultKind::Exists, format!("there is a segment {name} already: open it, or choose another name"))
}

/// No node takes a replica, and why each does not.
fn no_room(name: &str, search: &Search<'_>) -> Fault {
    let why = match search.told() {
        none if none.is_empty() => "no node answered".to_owned(),
        why => why,
    };
    let bytes = shown(search.bytes);
    let text = format!(
        "no room on another node for a replica of segment {name}, which takes {bytes} (twice the capacity): {why}. Ask for a smaller \
         capacity, remove segments, or give nodes more: `memory` in their configuration, and the tmpfs of `memory_dir` \
         (mount -o remount,size=...)"
    );
    Fault::new(FaultKind::NoRoom, text)
}

/// Whether labels are named as labels are.
pub(super) fn check_placing(placing: &Placing) -> Result<(), Fault> {
    let wrong = placing.spread.iter().find(|label| !is_label(label));
    let fault = |label| {
        let text = format!("{label:?} is no label to spread by: 1 to 63 letters, digits, and . _ / -");
        Fault::new(FaultKind::Invalid, text)
    };
    wrong.map_or(Ok(()), |label| Err(fault(label)))
}

/// Makes a replica on each node; if one cannot, none stays.
async fn make_replicas(
    node: &Arc<Node>,
    name: &str,
    segment: SegmentId,
    shape: Shape,
    places: &[NodeEntry],
) -> Result<Vec<Member>, (NodeId, Fault)> {
    let mut making = tokio::task::JoinSet::new();
    for place in places {
        let (node, at) = (node.clone(), place.node);
        let (name, remembered, replaced) = (name.to_owned(), Ownership::default(), Vec::new());
        let call = Call::Create { segment, name, shape, remembered, replaced };
        making.spawn(async move { (at, node.call(at, call, LONG).await) });
    }
    let mut members = Vec::new();
    let mut problem = None;
    while let Some(made) = making.join_next().await {
        match made {
            Ok((_, Ok(Reply::Created { member }))) => members.push(member),
            Ok((at, Ok(other))) => problem = Some((at, unexpected(&other))),
            Ok((at, Err(fault))) => problem = Some((at, fault)),
            Err(error) => problem = Some((node.id, Fault::new(FaultKind::Internal, error.to_string()))),
        }
    }
    if let Some(problem) = problem {
        node.forget(segment, true).await;
        return Err(problem);
    }
    members.sort_unstable();
    Ok(members)
}

pub(super) async fn lookup(client: &Client, name: &str) -> Result<Answer, Fault> {
    client.info(name).await.map(|info| Answer::Segment(Box::new(info)))
}

/// Changes the record for its owner, or for who claims it.
pub(super) async fn swap(
    client: &Client,
    name: &str,
    swap: Swap,
    why: &str,
    causes: &[(Member, String)],
) -> Result<Answer, Fault> {
    let node = &client.node;
    let (entry, revision) = client.segment(name, Want::Write).await?;
    let changes_owner = swap.new.owner != swap.expected.record.owner;
    if changes_owner && !client.session.holds(name) {
        let text = format!("the session does not hold segment {name} (any more): acquire it first");
        return Err(Fault::new(FaultKind::NotHeld, text));
    }
    let who = format!("{} (process {} on node {})", client.session.program, client.credentials.pid, node.name);
    let came = match client.session.taken(name) {
        Some(came) => came,
        None if changes_owner => Came::Free(node.after(entry.claimant.as_ref(), client.session.number).await),
        None => Came::Free(String::new()),
    };
    let (lease, session) = (*node.lease.borrow(), client.session.number);
    let claimant = || Claimant { node: node.id, lease, session, who: who.clone(), has_ended: false };
    let claimant = changes_owner.then(claimant);
    let (change, claimed) = (Change { who: &who, why, came: &came, causes, claimant }, swap.new.ownership());
    match node.change_record(name, (entry, revision), swap, change).await? {
        Ok(version) => {
            if changes_owner {
                client.session.claimed(name, claimed);
                node.sessions.keep().await;
            }
            Ok(Answer::Swapped { version })
        }
        Err(current) => Ok(Answer::Conflict { current }),
    }
}

/// Writes down how many replicas there are to be, and has the owner told, if there is one.
pub(super) async fn set_replicas(client: &Client, name: &str, replicas: u32) -> Result<Answer, Fault> {
    let node = &client.node;
    loop {
        let (entry, revision) = client.segment(name, Want::Write).await?;
        let keeping = Keeping { replicas, ..entry.keeping };
        check_keeping(keeping, entry.access.mode)?;
        if keeping == entry.keeping {
            break;
        }
        let why = format!("replicas wanted on other nodes: {replicas}, instead of {}", entry.keeping.replicas);
        let mut new = SegmentEntry { keeping, ..entry };
        new.note(node.note(name, "changed", new.term.0, why));
        if node.write_segment(name, Some(revision), &new).await?.is_ok() {
            break;
        }
    }
    if let Some((holder, _)) = node.holder(name).await? {
        tokio::spawn(tell_holder(node.clone(), name.to_owned(), holder));
    }
    lookup(client, name).await
}

/// Has it told to who holds the segment, again until its daemon hears of it. Where the node is down, somebody else will own the segment,
/// who reads it.
async fn tell_holder(node: Arc<Node>, name: String, holder: Holder) {
    let call = Call::Changed { name: name.clone(), session: holder.session };
    for _ in 0..TELLINGS {
        let told = node.call(holder.node, call.clone(), SHORT).await;
        let Some(fault) = told.err().filter(|_| node.view.get(holder.node).is_ok()) else { return };
        tracing::warn!(segment = name, "node {}, where its owner is, is not told so far: {fault}", holder.node_name);
        tokio::time::sleep(SHORT).await;
    }
}

pub(super) async fn remove(client: &Client, name: &str, force: bool) -> Result<Answer, Fault> {
    let node = &client.node;
    let (entry, revision) = client.segment(name, Want::Write).await?;
    if let Some((holder, _)) = node.holder(name).await?
        && !force
        && !client.session.holds(name)
    {
        let text = format!("segment {name} is owned by process {} on node {}", holder.pid, holder.node_name);
        return Err(Fault::new(FaultKind::Held(Box::new(holder)), text));
    }
    node.make_removed(entry.segment, name).await?;
    let swapped = node.directory.compare_swap(&segment_key(name), Some(revision), None).await;
    match swapped.map_err(|error| directory_fault(&error))? {
        Swapped::Made(_) => {
            tracing::info!(segment = name, "removed");
            node.forget(entry.segment, false).await;
            Ok(Answer::Done)
        }
        Swapped::Conflict(_) => Box::pin(remove(client, name, force)).await,
    }
}
