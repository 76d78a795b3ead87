//! Where replicas go. Pure: the nodes that are up in, a choice out, and why.
//!
//! One replica to a node, and of the nodes that are what is required: the owner's comes last, since a replica there dies with the owner; then
//! whoever shares a failure domain with the fewest other copies, the widest domain first; then whoever is most of what is preferred; then
//! storage nodes, since they are there for it; then whoever keeps a former replica, most of which need not be copied again; then whoever has
//! most room. A node that is being drained gets none.

use std::cmp::Reverse;

use segstore::control::message::{Placing, SPREAD, Verdict};
use segstore_core::id::NodeId;

use crate::cluster::NodeEntry;
use crate::config::shown;

/// The label that tells machines apart, of which nobody is to have two copies either.
const HOST: &str = "host";

/// What speaks against the node of an owner.
pub const OWNERS_OWN: &str = "the owner's own node, with which it would die";

/// Where a replica could go.
#[derive(Clone, Debug)]
pub struct Search<'a> {
    /// The nodes that could take it.
    pub nodes: Vec<NodeEntry>,
    /// Bytes of the replica.
    pub bytes: u64,
    /// What its node is to be.
    pub placing: &'a Placing,
    /// The owner's node, or, where there is none, the last owner's: it may well be owned there again.
    pub owner: Option<NodeId>,
    /// The nodes that have a copy: the owner's, and those with a replica.
    pub near: Vec<NodeEntry>,
    /// The nodes that keep a former replica.
    pub former: Vec<NodeId>,
}

/// What one failure would take of a segment at once: all its `replicas`, or, where that is one, all copies there are. `is_apart` says
/// whether the cluster has another value of a label, so that it tells copies apart.
#[must_use]
pub fn crowded(
    placing: &Placing,
    replicas: &[NodeEntry],
    owner: Option<&NodeEntry>,
    is_apart: impl Fn(&str, &str) -> bool,
) -> Option<String> {
    let owner = owner.filter(|_| replicas.len() == 1);
    let together: Vec<_> = owner.into_iter().chain(replicas).collect();
    if together.len() < 2 {
        return None;
    }
    domains(placing).find_map(|key| {
        let value = together[0].label(key)?;
        let is_together = together.iter().all(|node| node.label(key) == Some(value));
        (is_together && is_apart(key, value)).then(|| {
            let mut names: Vec<_> = together.iter().map(|node| node.name.as_str()).collect();
            names.sort_unstable();
            let at = if key == HOST { "one machine".to_owned() } else { format!("{key} {value}") };
            format!("its copies on {} are all in {at}: one failure takes them together", names.join(" and "))
        })
    })
}

/// Labels by which copies are kept apart, the widest first.
fn domains(placing: &Placing) -> impl Iterator<Item = &str> {
    let asked = placing.spread.iter().map(String::as_str);
    let default = SPREAD.into_iter().filter(|_| placing.spread.is_empty());
    asked.chain(default).filter(|key| *key != HOST).chain([HOST])
}

impl Search<'_> {
    /// Up to `count` nodes, the best first.
    #[must_use]
    pub fn choose(&self, count: usize) -> Vec<NodeEntry> {
        let judged = self.judge(count).into_iter();
        judged.filter(|(_, verdict, _)| *verdict == Verdict::Chosen).map(|(node, ..)| node).collect()
    }

    /// Every node: up to `count` that are chosen, the best first, then those that would do as well, then those that would not.
    #[must_use]
    pub fn judge(&self, count: usize) -> Vec<(NodeEntry, Verdict, String)> {
        let (unfit, mut fit): (Vec<_>, Vec<_>) = self.nodes.iter().partition(|node| self.objection(node).is_some());
        let (mut near, mut judged) = (self.near.clone(), Vec::new());
        while let Some(at) = (0..fit.len()).min_by_key(|&at| self.rank(fit[at], &near)) {
            let node = fit.remove(at);
            let verdict = if judged.len() < count { Verdict::Chosen } else { Verdict::Fits };
            judged.push((node.clone(), verdict, self.reason(node, &near)));
            if verdict == Verdict::Chosen {
                near.push(node.clone());
            }
        }
        let why = |node| self.objection(node).unwrap_or_default();
        judged.extend(unfit.into_iter().map(|node| (node.clone(), Verdict::Unfit, why(node))));
        judged
    }

    /// Why each node gets none, or why it would be one that does, for people.
    #[must_use]
    pub fn told(&self) -> String {
        let told = self.judge(0).into_iter().map(|(node, _, why)| format!("{}: {why}", node.name));
        told.collect::<Vec<_>>().join("; ")
    }

    /// Why the node gets none.
    fn objection(&self, node: &NodeEntry) -> Option<String> {
        if node.draining {
            return Some("it is being drained".into());
        }
        if let Some(missed) = self.placing.require.iter().find(|condition| !condition.holds(|key| node.label(key))) {
            return Some(format!("{missed} is required"));
        }
        let has_room = node.used.saturating_add(self.bytes) <= node.budget;
        (!has_room).then(|| format!("it has {} free, a replica takes {}", free(node), shown(self.bytes)))
    }

    /// The lowest is the best.
    fn rank(&self, node: &NodeEntry, near: &[NodeEntry]) -> impl Ord + use<> {
        let crowds: Vec<_> = domains(self.placing).map(|key| others(node, near, key).count()).collect();
        let preferred = self.placing.prefer.iter().filter(|condition| condition.holds(|key| node.label(key))).count();
        let room = node.budget.saturating_sub(node.used);
        let is_new_to_it = !self.former.contains(&node.node);
        (
            Some(node.node) == self.owner,
            crowds,
            Reverse(preferred),
            !node.storage,
            is_new_to_it,
            Reverse(room),
            node.node,
        )
    }

    /// What speaks against the owner's node.
    fn owners_own(&self) -> &'static str {
        if self.near.iter().any(|node| Some(node.node) == self.owner) {
            OWNERS_OWN
        } else {
            "its last owner's node, where it may be owned again"
        }
    }

    /// What speaks for the node, and against it.
    fn reason(&self, node: &NodeEntry, near: &[NodeEntry]) -> String {
        let mut reasons = Vec::new();
        let is_owners = Some(node.node) == self.owner;
        reasons.extend(is_owners.then(|| self.owners_own().to_owned()));
        for key in domains(self.placing).filter(|_| !is_owners) {
            let Some(value) = node.label(key) else { continue };
            let names: Vec<_> = others(node, near, key).map(|other| other.name.as_str()).collect();
            match (key, names.is_empty()) {
                (HOST, true) => {}
                (HOST, false) => reasons.push(format!("on one machine with {}", names.join(", "))),
                (_, true) => reasons.push(format!("alone in {key} {value}")),
                (_, false) => reasons.push(format!("in {key} {value} with {}", names.join(", "))),
            }
        }
        let preferred = self.placing.prefer.iter().filter(|condition| condition.holds(|key| node.label(key)));
        reasons.extend(preferred.map(|condition| format!("{condition} is preferred")));
        reasons.extend(node.storage.then(|| "only keeps replicas".to_owned()));
        let is_former = self.former.contains(&node.node);
        reasons.extend(is_former.then(|| "keeps a former replica of it, to begin with".to_owned()));
        reasons.push(format!("{} free", free(node)));
        reasons.join(", ")
    }
}

/// Those of `near` that have the same value of a label as the node.
fn others<'n>(node: &'n NodeEntry, near: &'n [NodeEntry], key: &'n str) -> impl Iterator<Item = &'n NodeEntry> {
    let value = node.label(key);
    near.iter().filter(move |other| other.node != node.node && value.is_some() && other.label(key) == value)
}

fn free(node: &NodeEntry) -> String {
    shown(node.budget.saturating_sub(node.used))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u128, used: u64, storage: bool) -> NodeEntry {
        let (host, named) = (format!("machine {number}"), NodeEntry::named(NodeId(number), format!("n{number}")));
        NodeEntry { host, storage, used, budget: 100, ..named }
    }

    fn labelled(number: u128, used: u64, labels: &[(&str, &str)]) -> NodeEntry {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        NodeEntry { labels, ..node(number, used, false) }
    }

    fn placing(require: &[&str], prefer: &[&str], spread: &[&str]) -> Placing {
        let conditions = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a condition")).collect();
        let spread = spread.iter().map(|&key| key.to_owned()).collect();
        Placing { require: conditions(require), prefer: conditions(prefer), spread }
    }

    fn chosen(nodes: &[NodeEntry], placing: &Placing, near: &[NodeEntry], bytes: u64, count: usize) -> Vec<u128> {
        numbers(&search(nodes, placing, near, bytes).choose(count))
    }

    fn search<'a>(nodes: &[NodeEntry], placing: &'a Placing, near: &[NodeEntry], bytes: u64) -> Search<'a> {
        let (nodes, near) = (nodes.to_vec(), near.to_vec());
        Search { nodes, bytes, placing, owner: Some(NodeId(1)), near, former: Vec::new() }
    }

    fn numbers(nodes: &[NodeEntry]) -> Vec<u128> {
        nodes.iter().map(|node| node.node.0).collect()
    }

    #[test]
    fn the_owner_comes_last_and_storage_first() {
        let nodes = [node(1, 0, false), node(2, 50, false), node(3, 10, false), node(4, 60, true)];
        let any = Placing::default();
        assert_eq!(chosen(&nodes, &any, &[], 10, 4), [4, 3, 2, 1]);
        assert_eq!(chosen(&nodes, &any, &[], 10, 2), [4, 3]);
        // Which is said of an owner that is there, and of one that may come back.
        let owner = &nodes[..1];
        assert!(search(owner, &any, owner, 10).told().starts_with("n1: the owner's own node, with which it would die"));
        assert!(search(owner, &any, &[], 10).told().starts_with("n1: its last owner's node, where it may be owned"));
    }

    #[test]
    fn nobody_gets_more_than_fits() {
        let nodes = [node(2, 95, false), node(3, 90, false)];
        let any = Placing::default();
        assert_eq!(chosen(&nodes, &any, &[], 10, 3), [3]);
        assert_eq!(chosen(&nodes, &any, &[], 101, 3), [] as [u128; 0]);
        let nodes = nodes.map(|node| NodeEntry { draining: true, ..node });
        assert_eq!(chosen(&nodes, &any, &[], 10, 3), [] as [u128; 0]);
    }

    #[test]
    fn who_keeps_a_former_replica_is_taken_before_who_has_more_room() {
        let nodes = [node(2, 0, false), node(3, 50, false), labelled(4, 60, &[("zone", "b")])];
        let (any, near, former) = (Placing::default(), [labelled(5, 0, &[("zone", "b")])], vec![NodeId(3), NodeId(4)]);
        let search = Search { former, ..search(&nodes, &any, &near, 10) };
        assert_eq!(numbers(&search.choose(3)), [3, 2, 4], "copies are kept apart all the same");
        assert!(search.told().contains("n3: keeps a former replica of it, to begin with, 50 B free"));
    }

    #[test]
    fn copies_are_kept_apart() {
        let at = |number, used, zone, rack| labelled(number, used, &[("zone", zone), ("rack", rack)]);
        let owner = at(1, 0, "a", "1");
        let nodes =
            [at(2, 0, "a", "1"), at(3, 10, "a", "2"), at(4, 20, "b", "3"), at(5, 30, "b", "3"), at(6, 40, "b", "4")];
        let any = Placing::default();
        assert_eq!(chosen(&nodes, &any, std::slice::from_ref(&owner), 10, 5), [4, 3, 6, 2, 5]);
        let by_rack = placing(&[], &[], &["rack"]);
        assert_eq!(chosen(&nodes, &by_rack, std::slice::from_ref(&owner), 10, 3), [3, 4, 6]);
        // On one machine with the owner, or with another copy.
        let twin = NodeEntry { host: owner.host.clone(), ..node(7, 0, true) };
        assert_eq!(chosen(&[twin, node(8, 50, false)], &any, &[owner], 10, 2), [8, 7]);
    }

    #[test]
    fn what_is_required_must_be_and_what_is_preferred_comes_first() {
        let nodes = [labelled(2, 0, &[("ssd", "yes")]), labelled(3, 10, &[("tier", "1")]), node(4, 20, true)];
        assert_eq!(chosen(&nodes, &placing(&["!ssd"], &[], &[]), &[], 10, 3), [4, 3]);
        assert_eq!(chosen(&nodes, &placing(&["tier=1"], &[], &[]), &[], 10, 3), [3]);
        assert_eq!(chosen(&nodes, &placing(&["storage"], &[], &[]), &[], 10, 3), [4]);
        assert_eq!(chosen(&nodes, &placing(&["node!=n4"], &["tier=1"], &[]), &[], 10, 3), [3, 2]);
        let any = placing(&["ssd"], &[], &[]);
        let judged = search(&nodes, &any, &[], 10).judge(1);
        let told: Vec<_> =
            judged.iter().map(|(node, verdict, why)| (node.name.as_str(), *verdict, why.as_str())).collect();
        assert_eq!(
            told,
            [
                ("n2", Verdict::Chosen, "100 B free"),
                ("n3", Verdict::Unfit, "ssd is required"),
                ("n4", Verdict::Unfit, "ssd is required"),
            ]
        );
    }

    #[test]
    fn what_one_failure_would_take_is_told() {
        let at = |number, zone| labelled(number, 0, &[("zone", zone)]);
        let (owner, two, three, far) = (at(1, "a"), at(2, "a"), at(3, "a"), at(4, "b"));
        let cluster = [owner.clone(), two.clone(), three.clone(), far.clone()];
        let any = Placing::default();
        let said = |replicas: &[&NodeEntry], owner: Option<&NodeEntry>, cluster: &[NodeEntry]| {
            let is_apart =
                |key: &str, value: &str| cluster.iter().filter_map(|node| node.label(key)).any(|other| other != value);
            crowded(&any, &replicas.iter().map(|&node| node.clone()).collect::<Vec<_>>(), owner, is_apart)
        };
        assert_eq!(said(&[&two, &far], Some(&owner), &cluster), None);
        assert!(
            said(&[&two, &three], Some(&far), &cluster).is_some_and(|why| why.contains("n2 and n3 are all in zone a"))
        );
        assert!(said(&[&two], Some(&owner), &cluster).is_some_and(|why| why.contains("n1 and n2")));
        assert_eq!(said(&[&two], None, &cluster), None, "one copy is as safe as its node");
        assert_eq!(said(&[&two, &three], Some(&owner), &cluster[..3]), None, "nothing could tell them apart");
    }
}
