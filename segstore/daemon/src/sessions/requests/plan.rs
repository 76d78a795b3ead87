//! Which nodes would get a segment's replicas.

use segstore::control::message::{Answer, Fault, FaultKind, Judged, Keeping, Place, Placing, Shape, Verdict};

use super::Client;
use super::segments::{check_keeping, check_placing, exists, places};
use crate::cluster::check_name;
use crate::node::placement::{OWNERS_OWN, Search};
use crate::node::{Node, geometry, has_new_memory};
use crate::sessions::credentials::Want;

/// Of a segment that is there, or, with what it is `made` of, of one that is not.
pub(super) async fn plan(
    client: &Client,
    name: &str,
    made: Option<(Shape, Keeping, Placing)>,
) -> Result<Answer, Fault> {
    match made {
        Some(made) => new(client, name, made).await,
        None => present(client, name).await,
    }
    .map(Answer::Plan)
}

async fn new(
    client: &Client,
    name: &str,
    (shape, keeping, placing): (Shape, Keeping, Placing),
) -> Result<Vec<Judged>, Fault> {
    check_name(name)?;
    check_keeping(keeping, 0)?;
    check_placing(&placing)?;
    let bytes = geometry(shape)?.replica_bytes();
    match client.node.segment(name).await {
        Ok(_) => Err(exists(name)),
        Err(fault) if fault.kind == FaultKind::NotFound => {
            let search = places(&client.node, bytes, &placing).await;
            Ok(all(&client.node, Vec::new(), &search, keeping.replicas as usize))
        }
        Err(fault) => Err(fault),
    }
}

async fn present(client: &Client, name: &str) -> Result<Vec<Judged>, Fault> {
    let node = &client.node;
    let (entry, revision) = client.segment(name, Want::Read).await?;
    let holder = node.holder(name).await?.map(|(holder, _)| holder);
    let beside = holder.as_ref().map(|holder| holder.node);
    let info = node.describe_as_it_is(name, (&entry, revision), holder).await;
    // Where the memory is new there is room for a further one.
    let keeps: Vec<_> = info.places.iter().filter(|place| !has_new_memory(place)).collect();
    let at: Vec<_> = keeps.iter().map(|place| place.member.node).collect();
    let search = node.search(&entry, beside, &at, node.rooms().await, &node.kept_everywhere(entry.segment).await)?;
    let unwanted = node.view.unwanted();
    let counts = at.iter().filter(|at| Some(**at) != beside && !unwanted.contains(at)).count();
    let keeps = keeps.into_iter().map(|place| Judged {
        node_name: place.node_name.clone(),
        verdict: Verdict::Keeps,
        why: kept(place, unwanted.contains(&place.member.node)),
    });
    Ok(all(node, keeps.collect(), &search, (entry.keeping.replicas as usize).saturating_sub(counts)))
}

/// Why a replica stays where it is.
fn kept(place: &Place, is_unwanted: bool) -> String {
    match (is_unwanted, &place.problem) {
        (true, _) if place.up => "in sync, until another is: it is being drained".to_owned(),
        (true, _) => "in sync, until another is: it is gone for good".to_owned(),
        (false, Some(problem)) => format!("in sync, but {problem}"),
        (false, None) => "in sync".to_owned(),
    }
}

/// Every node: those that keep one, those that were asked, and those that were not.
fn all(node: &Node, keeps: Vec<Judged>, search: &Search<'_>, missing: usize) -> Vec<Judged> {
    let mut all = keeps;
    let asked = search.judge(missing).into_iter();
    all.extend(asked.map(|(place, verdict, why)| Judged { node_name: place.name, verdict, why }));
    for (place, up) in node.view.all() {
        let why = match (Some(place.node) == search.owner, up) {
            (true, true) => OWNERS_OWN,
            (_, true) => "it does not answer",
            (_, false) => "it is down",
        };
        if !all.iter().any(|told| told.node_name == place.name) {
            all.push(Judged { node_name: place.name, verdict: Verdict::Unfit, why: why.to_owned() });
        }
    }
    all
}
