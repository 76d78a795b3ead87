//! `segctl events`.

use super::Context;
use crate::exit::Failure;
use crate::output::{facts, json, table, units};

pub(crate) fn run(context: &Context, name: Option<&str>) -> Result<(), Failure> {
    let events = context.session()?.events(name)?;
    if context.json {
        json(&events.iter().map(facts::Event::from).collect::<Vec<_>>());
        return Ok(());
    }
    let row = |event: &segstore::Event| {
        let (term, why) = (event.term.to_string(), event.why.clone());
        vec![
            units::moment(event.at),
            units::short(&event.segment),
            event.what.clone(),
            term,
            event.node_name.clone(),
            why,
        ]
    };
    let heading = ["at", "segment", "what", "term", "told by", "why"];
    table::print(&heading, events.iter().map(row).collect(), "Nothing has happened.");
    Ok(())
}
