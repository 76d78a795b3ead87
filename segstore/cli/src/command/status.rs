//! `segctl status`.

use serde::Serialize;

use segstore::control::message::{Condition, Fault, FaultKind};
use segstore::{BelowMinimum, Error, HeldName, NodeInfo, OwnerState, Session, Standby, Status};

use super::{Context, nodes};
use crate::exit::Failure;
use crate::output::{facts, json, table, units};

pub(crate) fn run(context: &Context, name: Option<&str>) -> Result<(), Failure> {
    let session = context.session()?;
    match name {
        Some(name) => {
            match session.status(name) {
                Err(Error::NotFound(why)) => {
                    // It may be held without being made.
                    let held = session.holds()?.into_iter().find(|held| held.name == name);
                    let held = held.ok_or(Error::NotFound(why))?;
                    if context.json { json(&facts::Segment::from(&held)) } else { print_held(&held) }
                }
                status => {
                    let status = status?;
                    if context.json { json(&facts::Segment::from(&status)) } else { print_segment(&status) }
                }
            }
        }
        None => {
            let cluster = Cluster::of(&session)?;
            if context.json { json(&cluster) } else { cluster.print() }
        }
    }
    Ok(())
}

fn print_held(HeldName { name, holder }: &HeldName) {
    let segstore::Holder { program, pid, node_name, since, .. } = holder;
    let since = units::ago(*since);
    crate::output::line(format_args!("segment          {name} is not made so far"));
    crate::output::line(format_args!("held by          {program} (process {pid} on {node_name}), since {since}"));
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
    for Standby { program, pid, node_name } in &status.standby {
        line("stands by", format!("{program} (process {pid} on {node_name})"));
    }
    match &status.owner {
        Some(owner) => print_owner(owner, &line),
        None => match &status.silence {
            Some(Fault { kind: FaultKind::NotHeld, .. }) => {
                line("state", "its name is held, and nobody has it open now: the newest checkpoint can be read".into());
            }
            Some(fault) => line("state", format!("the owner does not answer: {fault}")),
            None => {}
        },
    }
    if let Some(trouble) = status.trouble() {
        line("WARNING", trouble);
    }
    if let Some(care) = &status.care {
        line("care", care.clone());
    }
    if let Some(crowded) = &info.crowded {
        line("WARNING", crowded.clone());
    }
    let keeping = info.keeping;
    line(
        "keeping",
        format!(
            "{}{}, at least {} in sync, else {}; capacity {}, blocks of {}",
            units::count(keeping.replicas.into(), "replica"),
            if keeping.local { " and a copy beside the owner" } else { "" },
            keeping.minimum,
            match keeping.below_minimum {
                BelowMinimum::Stop => "nothing is acknowledged",
                BelowMinimum::Continue => "it goes on with what is left",
            },
            units::size(info.shape.capacity),
            units::size(u64::from(info.shape.block_size))
        ),
    );
    let placing = &info.placing;
    let said = |what: &str, all: &[Condition]| {
        let all: Vec<_> = all.iter().map(ToString::to_string).collect();
        (!all.is_empty()).then(|| format!("{what} {}", all.join(" and ")))
    };
    let spread = (!placing.spread.is_empty()).then(|| format!("apart by {}", placing.spread.join(", then ")));
    let placed = [said("on nodes with", &placing.require), said("rather with", &placing.prefer), spread];
    let placed: Vec<_> = placed.into_iter().flatten().collect();
    if !placed.is_empty() {
        line("placing", placed.join("; "));
    }
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
        let over = replica.over.clone().unwrap_or_else(|| "-".to_owned());
        vec![replica.node_name.clone(), state, over, image]
    };
    table::print(
        &["replica on", "is", "over", "epoch"],
        status.replicas.iter().map(row).collect(),
        "No replica answers.",
    );
}

fn print_owner(owner: &OwnerState, line: &impl Fn(&str, String)) {
    line("acknowledged", format!("epoch {}, {} of state", owner.acknowledged.epoch, units::size(owner.length)));
    line("in sync", format!("{}, {} on other nodes", units::count(owner.in_sync.into(), "replica"), owner.elsewhere));
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
    #[serde(serialize_with = "facts::nodes")]
    nodes: Vec<NodeInfo>,
    segments: usize,
    owned: usize,
    under_replicated: Vec<String>,
    /// No replica in sync is there.
    lost: Vec<String>,
}

impl Cluster {
    fn of(session: &Session) -> Result<Self, Failure> {
        let (nodes, segments) = (session.nodes()?, session.segments()?);
        let named = |is: fn(&&segstore::SegmentInfo) -> bool| {
            segments.iter().filter(is).map(|segment| segment.name.clone()).collect()
        };
        let under_replicated = named(|segment| segment.trouble().is_some());
        let lost = named(|segment| segment.is_lost());
        let owned = segments.iter().filter(|segment| segment.holder.is_some()).count();
        Ok(Self { nodes, segments: segments.len(), owned, under_replicated, lost })
    }

    fn print(&self) {
        crate::output::line(nodes::up(&self.nodes));
        crate::output::line(format_args!(
            "{}, {} of them owned",
            units::count(self.segments as u64, "segment"),
            self.owned
        ));
        let short: Vec<_> = self.under_replicated.iter().map(String::as_str).collect();
        if short.is_empty() {
            crate::output::line(format_args!("every segment has its replicas"));
        } else {
            crate::output::line(format_args!(
                "WARNING: {} with fewer replicas than asked for{}",
                units::count(short.len() as u64, "segment"),
                list(": ", &short)
            ));
        }
        if !self.lost.is_empty() {
            let lost: Vec<_> = self.lost.iter().map(String::as_str).collect();
            let (count, names) = (lost.len() as u64, list(": ", &lost));
            crate::output::line(format_args!(
                "WARNING: {} of which no replica is there{names}",
                units::count(count, "segment")
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
