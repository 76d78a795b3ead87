//! What programs are told: flat, with the unit of a number in its name, and times in RFC 3339. What Prometheus is told too has the
//! name that it has there.

use std::collections::BTreeMap;

use segstore::control::message::Condition;
use segstore::{BelowMinimum, HeldName, Holder, NodeInfo, OwnerState, ReplicaInfo, SegmentInfo, Standby, Status};
use serde::{Serialize, Serializer};

use super::units;

/// A segment; of a name that is held without one, the first two.
#[derive(Serialize)]
pub(crate) struct Segment {
    name: String,
    /// Null: nobody.
    owner: Option<Owner>,
    /// Who waits to own it, where that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    standby: Option<Vec<Waiting>>,
    /// What a node does about replicas that are missed while nobody has it open.
    #[serde(skip_serializing_if = "Option::is_none")]
    care: Option<String>,
    #[serde(flatten)]
    made: Option<Made>,
    #[serde(flatten)]
    state: Option<State>,
}

#[derive(Serialize)]
struct Owner {
    program: String,
    pid: i32,
    node: String,
    since: String,
}

#[derive(Serialize)]
struct Waiting {
    program: String,
    pid: i32,
    node: String,
}

#[derive(Serialize)]
struct Made {
    id: String,
    term: u64,
    created: String,
    uid: u32,
    gid: u32,
    /// As `chmod` takes it.
    mode: String,
    capacity_bytes: u64,
    block_bytes: u32,
    slots: u32,
    replicas_wanted: u32,
    /// Where there is an owner, on other nodes than its own.
    replicas_in_sync: u32,
    replicas_minimum: u32,
    below_minimum: BelowMinimum,
    copy_beside_owner: bool,
    /// What every replica's node must be, and had better be; and by which labels replicas are kept apart, if not by zone and rack.
    require: Vec<Condition>,
    prefer: Vec<Condition>,
    spread: Vec<String>,
    /// Which copies one failure would take together.
    crowded: Option<String>,
    /// What a person should do something about.
    trouble: Option<String>,
    replicas: Vec<Replica>,
}

#[derive(Serialize)]
struct Replica {
    node: String,
    in_sync: bool,
    problem: Option<String>,
    over: Option<String>,
    #[serde(flatten)]
    image: Option<Image>,
    #[serde(flatten)]
    filling: Option<Filling>,
}

#[derive(Serialize)]
struct Image {
    term: u64,
    epoch: u64,
}

#[derive(Serialize)]
struct Filling {
    filled_blocks: u32,
    all_blocks: u32,
}

/// What an owner that answers says.
#[derive(Serialize)]
struct State {
    epoch_acknowledged: u64,
    epoch_newest: u64,
    length_bytes: u64,
    unsafe_age_seconds: f64,
    unsafe_bytes: u64,
    waiting_for: Option<String>,
    warnings: Vec<String>,
    holds: u32,
    pushed_bytes: u64,
    checkpoint_duration_seconds_count: u64,
    checkpoint_duration_seconds_sum: f64,
    load_duration_seconds_count: u64,
    load_duration_seconds_sum: f64,
}

impl From<&SegmentInfo> for Segment {
    fn from(info: &SegmentInfo) -> Self {
        let SegmentInfo {
            name,
            record,
            shape,
            keeping,
            access,
            created,
            holder,
            places,
            placing,
            unwanted: _,
            crowded,
        } = info;
        let replica = |place: &segstore::Place| Replica {
            node: place.node_name.clone(),
            in_sync: true,
            problem: place.problem.clone(),
            over: None,
            image: None,
            filling: None,
        };
        let made = Made {
            id: record.record.segment.to_string(),
            term: record.record.term.0,
            created: units::moment(*created),
            uid: access.uid,
            gid: access.gid,
            mode: format!("{:03o}", access.mode),
            capacity_bytes: shape.capacity,
            block_bytes: shape.block_size,
            slots: shape.slots,
            replicas_wanted: keeping.replicas,
            replicas_in_sync: u32::try_from(info.live_elsewhere().count()).unwrap_or(u32::MAX),
            replicas_minimum: keeping.minimum,
            below_minimum: keeping.below_minimum,
            copy_beside_owner: keeping.local,
            require: placing.require.clone(),
            prefer: placing.prefer.clone(),
            spread: placing.spread.clone(),
            crowded: crowded.clone(),
            trouble: info.trouble(),
            replicas: places.iter().map(replica).collect(),
        };
        let owner = holder.as_ref().map(Owner::from);
        Self { name: name.clone(), owner, standby: None, care: None, made: Some(made), state: None }
    }
}

impl From<&HeldName> for Segment {
    fn from(HeldName { name, holder }: &HeldName) -> Self {
        Self { name: name.clone(), owner: Some(holder.into()), standby: None, care: None, made: None, state: None }
    }
}

impl From<&Status> for Segment {
    fn from(status: &Status) -> Self {
        let mut segment = Self::from(&status.info);
        segment.made.iter_mut().for_each(|made| {
            made.replicas = status.replicas.iter().map(Replica::from).collect();
            // It knows better than the directory.
            made.replicas_in_sync = status.owner.as_ref().map_or(made.replicas_in_sync, |owner| owner.elsewhere);
        });
        segment.standby = Some(status.standby.iter().map(Waiting::from).collect());
        segment.care.clone_from(&status.care);
        segment.state = status.owner.as_ref().map(State::from);
        segment
    }
}

impl From<&Holder> for Owner {
    fn from(holder: &Holder) -> Self {
        let Holder { program, pid, node_name, since, .. } = holder;
        Self { program: program.clone(), pid: *pid, node: node_name.clone(), since: units::moment(*since) }
    }
}

impl From<&Standby> for Waiting {
    fn from(Standby { node_name, pid, program }: &Standby) -> Self {
        Self { program: program.clone(), pid: *pid, node: node_name.clone() }
    }
}

impl From<&ReplicaInfo> for Replica {
    fn from(replica: &ReplicaInfo) -> Self {
        Self {
            node: replica.node_name.clone(),
            in_sync: replica.in_sync,
            problem: replica.problem.clone(),
            over: replica.over.clone(),
            image: replica.image.map(|image| Image { term: image.term.0, epoch: image.epoch.0 }),
            filling: replica.repair.map(|(filled_blocks, all_blocks)| Filling { filled_blocks, all_blocks }),
        }
    }
}

impl From<&OwnerState> for State {
    fn from(owner: &OwnerState) -> Self {
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        Self {
            epoch_acknowledged: owner.acknowledged.epoch.0,
            epoch_newest: owner.newest.0,
            length_bytes: owner.length,
            unsafe_age_seconds: owner.unsafe_for as f64 / 1e3,
            unsafe_bytes: owner.unsafe_bytes,
            waiting_for: owner.waiting_for.clone(),
            warnings: owner.warnings.clone(),
            holds: owner.holds,
            pushed_bytes: owner.pushed_bytes,
            checkpoint_duration_seconds_count: owner.checkpoint_time.counts.iter().sum(),
            checkpoint_duration_seconds_sum: seconds(owner.checkpoint_time.sum),
            load_duration_seconds_count: owner.load_time.counts.iter().sum(),
            load_duration_seconds_sum: seconds(owner.load_time.sum),
        }
    }
}

/// A node.
#[derive(Serialize)]
pub(crate) struct Node {
    name: String,
    id: String,
    address: String,
    up: bool,
    /// Why nobody knows whether it is up now.
    stale: Option<String>,
    storage: bool,
    labels: BTreeMap<String, String>,
    draining: bool,
    directory: bool,
    memory_dir: String,
    used_bytes: u64,
    budget_bytes: u64,
    replicas: u32,
    version: String,
}

impl From<&NodeInfo> for Node {
    fn from(node: &NodeInfo) -> Self {
        Self {
            name: node.name.clone(),
            id: node.node.to_string(),
            address: node.address.clone(),
            up: node.up,
            stale: node.stale.clone(),
            storage: node.storage,
            labels: node.labels.clone(),
            draining: node.draining,
            directory: node.directory,
            memory_dir: node.memory_dir.clone(),
            used_bytes: node.used,
            budget_bytes: node.budget,
            replicas: node.replicas,
            version: node.version.clone(),
        }
    }
}

/// Nodes within something else.
pub(crate) fn nodes<S: Serializer>(nodes: &[NodeInfo], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(nodes.iter().map(Node::from))
}

/// Something that happened.
#[derive(Serialize)]
pub(crate) struct Event {
    at: String,
    segment: String,
    node: String,
    what: String,
    term: u64,
    why: String,
}

impl From<&segstore::Event> for Event {
    fn from(event: &segstore::Event) -> Self {
        Self {
            at: units::moment(event.at),
            segment: event.segment.clone(),
            node: event.node_name.clone(),
            what: event.what.clone(),
            term: event.term,
            why: event.why.clone(),
        }
    }
}
