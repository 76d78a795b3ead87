//! What the cluster keeps in its directory, and under which names.
//!
//! | key | value | lives |
//! |---|---|---|
//! | `cluster` | the cluster's number, which no other has: [`Membership`] | for ever |
//! | `nodes/<id>` | [`NodeEntry`] | as long as the node's lease |
//! | `names/<name>` | the [`NodeEntry`] of the node that has this name, as it was when it joined | as long as the node's lease |
//! | `segments/<name>` | [`SegmentEntry`] | until the segment is removed |
//! | `known/<id>` | the name of a segment that is, or was, in this directory, and whether it is removed | until every node has forgotten its replicas |
//! | `members/<id>` | the name of a node, whether it is up or not, as it was when it first joined | until the node is forgotten |
//! | `holders/<name>` | [`Holder`](segstore::control::message::Holder) | as long as the holder's session, and its node's lease |
//!
//! Values are JSON: a newer daemon may add fields, each with a default.

mod entry;
mod membership;
mod view;

pub use entry::{Claimant, NodeEntry, SegmentEntry};
pub use membership::Membership;
pub use view::View;

use segstore::control::message::{Fault, FaultKind};
use segstore_core::id::{NodeId, SegmentId};

/// The longest name of a segment, in bytes.
pub const MAX_NAME: usize = 255;

/// Where the cluster's number stands.
pub const CLUSTER: &str = "cluster";

/// Where it stands which nodes there are, whether they are up or not.
pub const MEMBERS: &str = "members/";

/// Where it stands that a node belongs to the cluster.
#[must_use]
pub fn member_key(node: NodeId) -> String {
    format!("{MEMBERS}{node}")
}

/// Where nodes stand.
pub const NODES: &str = "nodes/";

/// Where names of nodes stand.
pub const NAMES: &str = "names/";

/// Where a node stands.
#[must_use]
pub fn node_key(node: NodeId) -> String {
    format!("{NODES}{node}")
}

/// Where it stands which node has a name.
#[must_use]
pub fn name_key(name: &str) -> String {
    format!("{NAMES}{name}")
}

/// Where a segment stands.
#[must_use]
pub fn segment_key(name: &str) -> String {
    format!("segments/{name}")
}

/// Where it stands which segments the directory has known.
pub const KNOWN: &str = "known/";

/// Where it stands that the directory has known a segment.
#[must_use]
pub fn known_key(segment: SegmentId) -> String {
    format!("{KNOWN}{segment}")
}

/// Where it stands which session holds a segment.
#[must_use]
pub fn holder_key(name: &str) -> String {
    format!("holders/{name}")
}

/// Checks a segment's name: 1 to 255 bytes of `[A-Za-z0-9._/-]`, no empty or `..` part.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), Fault> {
    let wrong = |why: &str| {
        let shown: String = name.chars().take(80).collect();
        Err(Fault::new(FaultKind::Invalid, format!("the name {shown:?} {why}")))
    };
    if name.is_empty() || name.len() > MAX_NAME {
        return wrong(&format!("has {} bytes: a name has 1 to {MAX_NAME}", name.len()));
    }
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-');
    if let Some(c) = name.chars().find(|c| !is_allowed(*c)) {
        return wrong(&format!("contains {c:?}: letters, digits, and . _ / - are allowed"));
    }
    if name.split('/').any(|part| part.is_empty() || part == "..") {
        return wrong("has an empty or `..` part between its slashes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "orders/eu-1", "A.b_c", &"x".repeat(255)] {
            assert_eq!(check_name(good), Ok(()));
        }
        for wrong in ["", "a b", "ä", "/a", "a//b", "a/", "../a", "a/../b", &"x".repeat(256)] {
            assert!(check_name(wrong).is_err_and(|fault| fault.kind == FaultKind::Invalid), "{wrong:?}");
        }
    }
}
