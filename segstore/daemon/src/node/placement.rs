//! Where replicas go. Pure: the nodes that are up in, a choice out.
//!
//! One replica to a node. The owner's node comes last, since a replica there dies with the owner; storage nodes come first, since they
//! are there for it; then whoever has most room. A node that is being drained gets none.

use std::cmp::Reverse;

use segstore_core::id::NodeId;

use crate::cluster::NodeEntry;

/// Up to `count` nodes with room for `bytes`, the best first; none of `without`.
#[must_use]
pub fn choose(nodes: &[NodeEntry], owner: NodeId, without: &[NodeId], bytes: u64, count: usize) -> Vec<NodeEntry> {
    let may = |node: &&NodeEntry| !node.draining && !without.contains(&node.node);
    let has_room = |node: &&NodeEntry| node.used.saturating_add(bytes) <= node.budget;
    let mut fit: Vec<_> = nodes.iter().filter(may).filter(has_room).cloned().collect();
    fit.sort_by_key(|node| (node.node == owner, !node.storage, Reverse(node.budget - node.used), node.node));
    fit.truncate(count);
    fit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u128, used: u64, storage: bool) -> NodeEntry {
        NodeEntry {
            node: NodeId(number),
            name: format!("n{number}"),
            address: String::new(),
            host: String::new(),
            providers: Vec::new(),
            storage,
            used,
            budget: 100,
            memory_dir: String::new(),
            replicas: 0,
            version: String::new(),
            directory: false,
            draining: false,
        }
    }

    fn chosen(nodes: &[NodeEntry], without: &[NodeId], bytes: u64, count: usize) -> Vec<u128> {
        choose(nodes, NodeId(1), without, bytes, count).iter().map(|node| node.node.0).collect()
    }

    #[test]
    fn the_owner_comes_last_and_storage_first() {
        let nodes = [node(1, 0, false), node(2, 50, false), node(3, 10, false), node(4, 60, true)];
        assert_eq!(chosen(&nodes, &[], 10, 4), [4, 3, 2, 1]);
        assert_eq!(chosen(&nodes, &[], 10, 2), [4, 3]);
    }

    #[test]
    fn nobody_gets_more_than_fits_or_a_second_one() {
        let nodes = [node(2, 95, false), node(3, 90, false), node(4, 0, false)];
        assert_eq!(chosen(&nodes, &[NodeId(4)], 10, 3), [3]);
        assert_eq!(chosen(&nodes, &[], 101, 3), [] as [u128; 0]);
        let nodes = nodes.map(|node| NodeEntry { draining: true, ..node });
        assert_eq!(chosen(&nodes, &[], 10, 3), [] as [u128; 0]);
    }
}
