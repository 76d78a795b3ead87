//! `segctl ls`.

use segstore::{HeldName, Holder, SegmentInfo};

use super::Context;
use crate::exit::Failure;
use crate::output::{facts, json, line, table, units};

/// A segment, or a name that is held without one.
enum Listed {
    Segment(Box<SegmentInfo>),
    Name(HeldName),
}

pub(crate) fn run(context: &Context) -> Result<(), Failure> {
    let session = context.session()?;
    let (segments, mut holds) = (session.segments()?, session.holds()?);
    holds.retain(|held| !segments.iter().any(|segment| segment.name == held.name));
    let troubles: Vec<_> = segments.iter().filter(|segment| segment.is_lost()).filter_map(warning).collect();
    let crowds = |segment: &SegmentInfo| Some(format!("WARNING: {}: {}", segment.name, segment.crowded.as_ref()?));
    let crowded: Vec<_> = segments.iter().filter_map(crowds).collect();
    let segments = segments.into_iter().map(|segment| Listed::Segment(Box::new(segment)));
    let listed: Vec<_> = segments.chain(holds.into_iter().map(Listed::Name)).collect();
    if context.json {
        json(&listed.iter().map(told).collect::<Vec<_>>());
        return Ok(());
    }
    let heading = ["name", "owner", "term", "in sync", "wanted", "capacity", "created"];
    table::print(&heading, listed.iter().map(row).collect(), "There are no segments.");
    troubles.iter().chain(&crowded).for_each(line);
    Ok(())
}

fn warning(segment: &SegmentInfo) -> Option<String> {
    segment.trouble().map(|trouble| format!("WARNING: {}: {trouble}", segment.name))
}

fn told(listed: &Listed) -> facts::Segment {
    match listed {
        Listed::Segment(segment) => segment.as_ref().into(),
        Listed::Name(held) => held.into(),
    }
}

fn row(listed: &Listed) -> Vec<String> {
    match listed {
        Listed::Segment(segment) => {
            let in_sync = segment.places.iter().filter(|place| place.is_live());
            let in_sync: Vec<_> = in_sync.map(|place| place.node_name.as_str()).collect();
            vec![
                units::short(&segment.name),
                segment.holder.as_ref().map_or_else(|| "nobody".to_owned(), owner),
                segment.record.record.term.to_string(),
                if in_sync.is_empty() { "NONE".to_owned() } else { in_sync.join(" ") },
                segment.keeping.replicas.to_string(),
                units::size(segment.shape.capacity),
                units::ago(segment.created),
            ]
        }
        Listed::Name(HeldName { name, holder }) => {
            let since = format!("held since {}, no segment so far", units::ago(holder.since));
            let none = || "-".to_owned();
            vec![units::short(name), owner(holder), none(), none(), none(), none(), since]
        }
    }
}

fn owner(holder: &Holder) -> String {
    format!("{} {} on {}", holder.program, holder.pid, holder.node_name)
}
