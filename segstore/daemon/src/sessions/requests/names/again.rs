//! Holding again what was held before the node was out of the cluster for a while.

use std::sync::Arc;

use segstore::control::message::Fault;
use segstore_core::layout::Ownership;

use super::{RETRY, Right, attempt, found, free_at_last};
use crate::cluster::Claimant;
use crate::node::Node;
use crate::sessions::Session;

/// Holds a name for a session that held it under an earlier lease: unless somebody else has it by now, or has owned the segment
/// meanwhile. Then this session's owner is fenced, and its next checkpoint tells it.
pub(in crate::sessions) async fn hold_again(
    node: &Arc<Node>,
    session: &Arc<Session>,
    name: &str,
    claimed: Option<Ownership>,
) {
    loop {
        let why = match try_again(node, session, name, claimed).await {
            Ok(None) => return,
            Ok(Some(why)) => why,
            Err(fault) => {
                tracing::debug!(segment = name, "holding it again: {fault}");
                tokio::time::sleep(RETRY).await;
                if node.lease.borrow().is_none() || !session.holds(name) {
                    return; // The next lease begins this anew.
                }
                continue;
            }
        };
        tracing::warn!(segment = name, process = session.credentials.pid, "it is not held here any more: {why}");
        session.lose(name);
        node.sessions.keep().await;
        return free_at_last(node, session.number, name).await;
    }
}

/// Why the name is the session's no longer, if it is not.
async fn try_again(
    node: &Arc<Node>,
    session: &Arc<Session>,
    name: &str,
    claimed: Option<Ownership>,
) -> Result<Option<String>, Fault> {
    if let Err(holder) = attempt(node, session, session.credentials.pid, name, &Right::Free).await? {
        return Ok(Some(format!("process {} on node {} holds it", holder.pid, holder.node_name)));
    }
    if !session.holds(name) {
        return Ok(Some("its session let it go".to_owned()));
    }
    // With the name held nobody else claims the segment, so what is read now stays true.
    let Some(claimed) = claimed else { return Ok(None) };
    let record = found(node.segment(name).await)?;
    let now = record.map(|(entry, _)| (entry.record().ownership(), entry.claimant));
    if let Some((ownership, Some(Claimant { node: of, session: by, has_ended: false, .. }))) = &now
        && (*of, *by) == (node.id, session.number)
    {
        // It has claimed it anew, and that was not written down here.
        session.claimed(name, *ownership);
        return Ok(None);
    }
    let is_other = now.is_none_or(|(ownership, _)| ownership != claimed);
    Ok(is_other.then(|| "the segment was taken over, or removed, meanwhile".to_owned()))
}
