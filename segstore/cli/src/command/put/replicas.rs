//! Waits for replicas that are missing: they are made by the owner, and `put` is not one for long.

use std::time::{Duration, Instant};

use segstore::{Checkpoint, NodeInfo, Segment, SegmentInfo, Session};

use crate::exit::Failure;
use crate::output::progress;

/// How often to look. A replica that was filled comes into the set with the next checkpoint.
const LOOK: Duration = Duration::from_millis(200);
/// A replica that was filled just now is not seen for a moment.
const MOMENT: Duration = Duration::from_secs(2);
/// Slots of a replica, at the least.
const SLOTS: u64 = 2;

/// Waits until as many nodes hold the segment as were asked for, while it can come to that; gives the newest checkpoint.
pub(super) fn wait(
    session: &Session,
    segment: &mut Segment,
    mut checkpoint: Checkpoint,
    limit: Duration,
) -> Result<Checkpoint, Failure> {
    let began = Instant::now();
    // While a node gives up its former replica for a new one it shows neither, and no room.
    let info = session.lookup(segment.name())?;
    let mut hoped = further(session, &info).iter().any(|node| bytes(&info) <= node.budget).then_some(began);
    let bar = progress::spinner("waiting for a replica that is missing");
    loop {
        let info = session.lookup(segment.name())?;
        let is_short = checkpoint.elsewhere < info.keeping.replicas as usize;
        if is_short && can_grow(session, &info) {
            hoped = Some(Instant::now());
        }
        if !is_short || began.elapsed() >= limit || hoped.is_none_or(|at| at.elapsed() > MOMENT) {
            bar.finish_and_clear();
            return Ok(checkpoint);
        }
        std::thread::sleep(LOOK.min(limit.saturating_sub(began.elapsed())));
        checkpoint = segment.checkpoint()?;
    }
}

/// Whether a node could take a replica: one that is up, has none that is in sync, and has room or one that is being filled. What it has of
/// the segment and is not in sync goes for the new one.
fn can_grow(session: &Session, info: &SegmentInfo) -> bool {
    let Ok(status) = session.status(&info.name) else { return false };
    if status.replicas.iter().any(|replica| replica.repair.is_some()) {
        return true;
    }
    let former = |node| status.replicas.iter().filter(|kept| !kept.in_sync && kept.member.node == node).count() as u64;
    let has_room = |node: &NodeInfo| {
        let used = node.used.saturating_sub(former(node.node).saturating_mul(bytes(info)));
        used.saturating_add(bytes(info)) <= node.budget
    };
    further(session, info).iter().any(has_room)
}

/// The nodes that are up and may take one, are not the owner's, and have no replica that is in sync.
fn further(session: &Session, info: &SegmentInfo) -> Vec<NodeInfo> {
    let owner = info.holder.as_ref().map(|holder| holder.node);
    let has_one = |node| info.places.iter().any(|place| place.member.node == node);
    let mut nodes = session.nodes().unwrap_or_default();
    let is_fit = |node: &NodeInfo| info.placing.require.iter().all(|condition| condition.holds(|key| node.label(key)));
    nodes.retain(|node| node.up && !node.draining && Some(node.node) != owner && !has_one(node.node) && is_fit(node));
    nodes
}

/// What a replica takes, at the least.
fn bytes(info: &SegmentInfo) -> u64 {
    info.shape.capacity.saturating_mul(SLOTS)
}
