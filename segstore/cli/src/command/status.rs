//! `segctl status`.

use serde::Serialize;

use segstore::{NodeInfo, OwnerState, Session, Status};

use super::Context;
use crate::exit::Failure;
use crate::output::{json, table, units};

pub(crate) fn run(context: &Context, name: Option<&str>) -> Result<(), Failure> {
    let session = context.session()?;
    match name {
        Some(name) => {
            let status = session.status(name)?;
            if context.json { json(&status) } else { print_segment(&status) }
        }
        None => {
            let cluster = Cluster::of(&session)?;
            if context.json { json(&cluster) } else { cluster.print() }
        }
    }
    Ok(())
}

fn print_segment(status: &Status) {
    let info = &status.info;
    let line = |what: &str, is: String| crate::output::line(format_args!("{what:<16} {is}"));
    line("segment", format!("{} ({})", info.name, info.record.record.segment));
    match &info.holder {
        Some(holder) => line(
            "owner",
            format!(
                "{} (process {} on {}), term {}, since {}",
                holder.program,
                holder.pid,
                holder.node_name,
                info.record.record.term,
                units::ago(holder.since)
            ),
        ),
        None => line("owner", format!("nobody; the last term was {}", info.record.record.term)),
    }
    match &status.owner {
        Some(owner) => print_owner(owner, &line),
        None if info.holder.is_some() => line("state", "the owner does not answer".into()),
        None => {}
    }
    let keeping = info.keeping;
    line(
        "keeping",
        format!(
            "{} replicas{}, at least {} in sync, else {:?}; capacity {}, blocks of {}",
            keeping.replicas,
            if keeping.local { " and a copy beside the owner" } else { "" },
            keeping.minimum,
            keeping.below_minimum,
            units::size(info.shape.capacity),
            units::size(u64::from(info.shape.block_size))
        ),
    );
    crate::output::line("");
    let is_local = |replica: &segstore::ReplicaInfo| {
        keeping.local && info.holder.as_ref().is_some_and(|holder| holder.node == replica.member.node)
    };
    let row = |replica: &segstore::ReplicaInfo| {
        let state = match (&replica.problem, replica.repair, replica.in_sync) {
            (Some(problem), ..) => problem.clone(),
            (None, Some((done, total)), _) => {
                format!("being filled: {} %", u64::from(done) * 100 / u64::from(total.max(1)))
            }
            (None, None, true) => "in sync".to_owned(),
            (None, None, false) if is_local(replica) => "a copy beside the owner".to_owned(),
            (None, None, false) => "not in sync".to_owned(),
        };
        let image = replica.image.map_or_else(|| "-".to_owned(), |image| image.epoch.to_string());
        vec![replica.node_name.clone(), state, image]
    };
    table::print(&["replica on", "is", "epoch"], status.replicas.iter().map(row).collect(), "No replica answers.");
}

fn print_owner(owner: &OwnerState, line: &impl Fn(&str, String)) {
    line("acknowledged", format!("epoch {}, {} of state", owner.acknowledged.epoch, units::size(owner.length)));
    line("in sync", format!("{} replicas, {} on other nodes", owner.in_sync, owner.elsewhere));
    if owner.unsafe_bytes > 0 || owner.waiting_for.is_some() {
        let waiting = owner.waiting_for.as_deref().unwrap_or("its end");
        let size = units::size(owner.unsafe_bytes);
        line("not yet safe", format!("epoch {}: {size} for {} ms, {waiting}", owner.newest, owner.unsafe_for));
    }
    for warning in &owner.warnings {
        line("WARNING", warning.clone());
    }
}

#[derive(Serialize)]
struct Cluster {
    nodes: Vec<NodeInfo>,
    segments: usize,
    owned: usize,
    under_replicated: Vec<String>,
}

impl Cluster {
    fn of(session: &Session) -> Result<Self, Failure> {
        let (nodes, segments) = (session.nodes()?, session.segments()?);
        let is_short = |segment: &&segstore::SegmentInfo| {
            let owner = segment.holder.as_ref().map(|holder| holder.node);
            let good = segment.places.iter().filter(|place| place.up && Some(place.member.node) != owner).count();
            good < segment.keeping.replicas as usize
        };
        let under_replicated = segments.iter().filter(is_short).map(|segment| segment.name.clone()).collect();
        let owned = segments.iter().filter(|segment| segment.holder.is_some()).count();
        Ok(Self { nodes, segments: segments.len(), owned, under_replicated })
    }

    fn print(&self) {
        let up = self.nodes.iter().filter(|node| node.up).count();
        let down: Vec<_> = self.nodes.iter().filter(|node| !node.up).map(|node| node.name.as_str()).collect();
        crate::output::line(format_args!("{up} of {} nodes are up{}", self.nodes.len(), list(": down are ", &down)));
        crate::output::line(format_args!("{} segments, {} of them owned", self.segments, self.owned));
        let short: Vec<_> = self.under_replicated.iter().map(String::as_str).collect();
        if short.is_empty() {
            crate::output::line(format_args!("every segment has its replicas"));
        } else {
            crate::output::line(format_args!(
                "WARNING: {} with fewer replicas than asked for{}",
                short.len(),
                list(": ", &short)
            ));
        }
        for node in self.nodes.iter().filter(|node| node.directory) {
            crate::output::line(format_args!("the directory is kept on {} alone", node.name));
        }
    }
}

fn list(before: &str, names: &[&str]) -> String {
    if names.is_empty() { String::new() } else { format!("{before}{}", names.join(", ")) }
}
