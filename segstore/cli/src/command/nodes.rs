//! `segctl nodes`.

use super::Context;
use crate::exit::Failure;
use crate::output::{json, table, units};

pub(crate) fn run(context: &Context) -> Result<(), Failure> {
    let session = context.session()?;
    let nodes = session.nodes()?;
    if let Err(error) = session.segments() {
        eprintln!("segctl: the directory does not answer, so this is how it was when it last did: {error}");
    }
    if context.json {
        json(&nodes);
        return Ok(());
    }
    let row = |node: &segstore::NodeInfo| {
        let mut is = vec![if node.up { "up" } else { "down" }];
        is.extend(node.storage.then_some("storage"));
        is.extend(node.directory.then_some("directory"));
        vec![
            node.name.clone(),
            is.join(", "),
            node.address.clone(),
            node.replicas.to_string(),
            units::size(node.used),
            units::size(node.budget),
            node.version.clone(),
        ]
    };
    let heading = ["name", "is", "address", "replicas", "used", "memory", "version"];
    table::print(&heading, nodes.iter().map(row).collect(), "There are no nodes.");
    if !context.json && nodes.iter().filter(|node| node.directory).count() == 1 {
        let keeper = nodes.iter().find(|node| node.directory).map_or("", |node| &node.name);
        crate::output::line(format_args!(
            "\nThe directory is kept on {keeper} alone: while that is down, nothing can be taken over."
        ));
    }
    Ok(())
}
