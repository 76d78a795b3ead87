//! Which nodes would get a segment's replicas.

use segstore::control::message::{Answer, Fault, FaultKind, Judged, Keeping, Placing, Shape, Verdict};
use segstore_core::id::{NodeId, SegmentId};

use super::Client;
use super::segments::{check_keeping, check_placing, exists};
use crate::cluster::{NodeEntry, check_name};
use crate::node::placement::{Asked, judge};
use crate::node::{Node, geometry, make_way};
use crate::sessions::credentials::Want;

/// What is judged: a segment that is there, or would be.
struct Subject {
    /// `None`: it would be made.
    segment: Option<SegmentId>,
    bytes: u64,
    placing: Placing,
    /// The owner's node: of what is to be made, this one, and of what nobody owns, its last owner's.
    owner: Option<NodeId>,
    /// Whether that one gets one where there is no other.
    may_be_owners: bool,
    /// The nodes with a replica in sync.
    members: Vec<NodeId>,
    /// How many replicas are missing.
    missing: usize,
}

pub(super) async fn plan(
    client: &Client,
    name: &str,
    made: Option<(Shape, Keeping, Placing)>,
) -> Result<Answer, Fault> {
    let subject = match made {
        Some(made) => new(client, name, made).await?,
        None => present(client, name).await?,
    };
    let node = &client.node;
    let taken: Vec<_> = subject.members.iter().copied().chain(subject.owner).collect();
    let near = node.near(&taken, subject.owner);
    let mut rooms = node.rooms().await;
    let may_be_owners = subject.may_be_owners;
    rooms
        .retain(|place| !subject.members.contains(&place.node) && (may_be_owners || Some(place.node) != subject.owner));
    let former = match subject.segment {
        Some(segment) => make_way(&mut rooms, &node.kept_everywhere(segment).await, subject.bytes),
        None => Vec::new(),
    };
    let (bytes, owner, placing) = (subject.bytes, subject.owner, &subject.placing);
    let asked = Asked { bytes, owner, placing, near: &near, former: &former };
    let keeps = node.view.entries(subject.members.iter().copied()).into_iter();
    let mut all: Vec<_> = keeps.map(|place| judged(&place, Verdict::Keeps, kept(&place))).collect();
    all.extend(
        judge(&rooms, &asked, subject.missing).into_iter().map(|(place, verdict, why)| judged(&place, verdict, why)),
    );
    all.extend(others(node, &subject, &all));
    Ok(Answer::Plan(all))
}

async fn new(
    client: &Client,
    name: &str,
    (shape, keeping, placing): (Shape, Keeping, Placing),
) -> Result<Subject, Fault> {
    check_name(name)?;
    check_keeping(keeping, 0)?;
    check_placing(&placing)?;
    let bytes = geometry(shape)?.replica_bytes();
    match client.node.segment(name).await {
        Ok(_) => Err(exists(name)),
        Err(fault) if fault.kind == FaultKind::NotFound => Ok(Subject {
            segment: None,
            bytes,
            placing,
            owner: Some(client.node.id),
            may_be_owners: true,
            members: Vec::new(),
            missing: keeping.replicas as usize,
        }),
        Err(fault) => Err(fault),
    }
}

async fn present(client: &Client, name: &str) -> Result<Subject, Fault> {
    let (entry, _) = client.segment(name, Want::Read).await?;
    let holder = client.node.holder(name).await?.map(|(holder, _)| holder.node);
    let owner = holder.or(entry.home());
    let members: Vec<_> = entry.in_sync.iter().map(|member| member.node).collect();
    let drained = client.node.view.unwanted();
    let counts = members.iter().filter(|member| Some(**member) != holder && !drained.contains(member)).count();
    Ok(Subject {
        segment: Some(entry.segment),
        bytes: geometry(entry.shape)?.replica_bytes(),
        placing: entry.placing,
        owner,
        may_be_owners: holder.is_none(),
        members,
        missing: (entry.keeping.replicas as usize).saturating_sub(counts),
    })
}

fn judged(place: &NodeEntry, verdict: Verdict, why: String) -> Judged {
    Judged { node_name: place.name.clone(), verdict, why }
}

fn kept(place: &NodeEntry) -> String {
    if place.draining { "in sync, until another is: it is being drained".into() } else { "in sync".into() }
}

/// The nodes that were not asked.
fn others(node: &Node, subject: &Subject, told: &[Judged]) -> Vec<Judged> {
    let all = node.view.all().into_iter().filter(|(place, _)| !told.iter().any(|told| told.node_name == place.name));
    let why = |place: &NodeEntry, up| match (Some(place.node) == subject.owner, up) {
        (true, _) => "the owner's own node, with which it would die",
        (false, true) => "it does not answer",
        (false, false) => "it is down",
    };
    all.map(|(place, up)| judged(&place, Verdict::Unfit, why(&place, up).to_owned())).collect()
}
