//! `segctl nodes`.

use segstore::NodeInfo;

use super::Context;
use crate::exit::Failure;
use crate::output::{facts, json, table, units};

pub(crate) fn run(context: &Context, forget: Option<&str>) -> Result<(), Failure> {
    let session = context.session()?;
    if let Some(name) = forget {
        session.forget_node(name)?;
    }
    let nodes = session.nodes()?;
    if let Some(why) = nodes.iter().find_map(|node| node.stale.as_deref()) {
        eprintln!("segctl: how the nodes are now nobody knows, this is how they were last: {why}");
    }
    if context.json {
        json(&nodes.iter().map(facts::Node::from).collect::<Vec<_>>());
        return Ok(());
    }
    let row = |node: &NodeInfo| {
        let mut is = vec![match (&node.stale, node.up) {
            (Some(_), _) => "unknown",
            (None, true) => "up",
            (None, false) => "down",
        }];
        is.extend(node.storage.then_some("storage"));
        is.extend(node.draining.then_some("draining"));
        is.extend(node.directory.then_some("directory"));
        let labels: Vec<_> = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        vec![
            node.name.clone(),
            is.join(", "),
            if labels.is_empty() { "-".to_owned() } else { labels.join(" ") },
            node.address.clone(),
            node.replicas.to_string(),
            units::size(node.used),
            units::size(node.budget),
            node.version.clone(),
        ]
    };
    let heading = ["name", "is", "labels", "address", "replicas", "used", "memory", "version"];
    table::print(&heading, nodes.iter().map(row).collect(), "There are no nodes.");
    if !context.json && nodes.iter().filter(|node| node.directory).count() == 1 {
        let keeper = nodes.iter().find(|node| node.directory).map_or("", |node| &node.name);
        crate::output::line(format_args!(
            "\nThe directory is kept on {keeper} alone: while that is down, nothing can be taken over."
        ));
    }
    Ok(())
}

/// How many are up, and which are not.
pub(super) fn up(nodes: &[NodeInfo]) -> String {
    let down: Vec<_> = nodes.iter().filter(|node| !node.up).map(|node| node.name.as_str()).collect();
    let up = format!("{} of {} up", nodes.len() - down.len(), units::count(nodes.len() as u64, "node"));
    if down.is_empty() { up } else { format!("{up}; down: {}", down.join(", ")) }
}
