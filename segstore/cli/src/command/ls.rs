//! `segctl ls`.

use segstore::SegmentInfo;

use super::Context;
use crate::exit::Failure;
use crate::output::{json, table, units};

pub(crate) fn run(context: &Context) -> Result<(), Failure> {
    let segments = context.session()?.segments()?;
    if context.json {
        json(&segments);
        return Ok(());
    }
    let rows = segments.iter().map(row).collect();
    let heading = ["name", "owner", "term", "in sync", "wanted", "capacity", "created"];
    table::print(&heading, rows, "There are no segments.");
    Ok(())
}

fn row(segment: &SegmentInfo) -> Vec<String> {
    let owner = match &segment.holder {
        Some(holder) => format!("{} {} on {}", holder.program, holder.pid, holder.node_name),
        None => "nobody".to_owned(),
    };
    let in_sync: Vec<_> = segment.places.iter().map(|place| place.node_name.as_str()).collect();
    vec![
        segment.name.clone(),
        owner,
        segment.record.record.term.to_string(),
        in_sync.join(" "),
        segment.keeping.replicas.to_string(),
        units::size(segment.shape.capacity),
        units::ago(segment.created),
    ]
}
