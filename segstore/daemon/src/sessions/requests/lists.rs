//! Everything there is.

use std::collections::HashMap;

use segstore::control::message::{Answer, Fault, Holder};

use super::Client;
use crate::cluster::holder_key;
use crate::node::{directory_fault, parse};
use crate::sessions::credentials::Want;

/// The segments that the client may load.
pub(super) async fn segments(client: &Client) -> Result<Answer, Fault> {
    let node = &client.node;
    let listing = node.directory.list(&holder_key("")).await.map_err(|error| directory_fault(&error))?;
    let mut holders: HashMap<String, Holder> = HashMap::new();
    for entry in &listing.entries {
        holders.insert(entry.key.clone(), parse(entry)?);
    }
    let may = |name: &str, access| client.credentials.check(name, access, Want::Read).is_ok();
    let segments = node.segments().await?.into_iter().filter(|(name, entry, _)| may(name, entry.access));
    let segments = segments.map(|(name, entry, revision)| {
        let holder = holders.remove(&holder_key(&name));
        node.describe(&name, &entry, revision, holder)
    });
    Ok(Answer::Segments(segments.collect()))
}

pub(super) async fn nodes(client: &Client) -> Result<Answer, Fault> {
    let mut nodes: Vec<_> = client.node.view.all().into_iter().map(|(entry, up)| entry.info(up)).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Answer::Nodes(nodes))
}

pub(super) async fn events(client: &Client, name: Option<&str>) -> Result<Answer, Fault> {
    if let Some(name) = name {
        // In the order in which they happened, whatever the nodes' clocks said.
        return Ok(Answer::Events(client.segment(name, Want::Read).await?.0.events));
    }
    let may = |name: &str, access| client.credentials.check(name, access, Want::Read).is_ok();
    let segments = client.node.segments().await?.into_iter().filter(|(name, entry, _)| may(name, entry.access));
    let mut events: Vec<_> = segments.flat_map(|(_, entry, _)| entry.events).collect();
    events.sort_by_key(|event| event.at);
    Ok(Answer::Events(events))
}
