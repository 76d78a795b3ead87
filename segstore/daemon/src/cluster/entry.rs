//! The values.

use std::collections::BTreeMap;

use segstore::control::message::{Access, Event, Keeping, Labelled, NodeInfo, Placing, Shape};
use segstore_core::id::{Member, NodeId, OwnerId, SegmentId, Term};
use segstore_core::record::{Record, RecordVersion, Versioned};
use serde::{Deserialize, Serialize};

use crate::directory::{LeaseId, Revision};

/// How many events a segment keeps: so many claims, and so many of every other kind together.
const EVENTS: usize = 64;
/// How many replicas that left a segment's set are remembered.
const FORMER: usize = 64;
/// The event of a claim: every load of a segment that nobody owns is one, and so is every time that its replicas are restored.
const CLAIMED: &str = "claimed";
/// How many claims of one node in a row that are just like each other it keeps.
const ALIKE: usize = 4;

/// A node, while its lease stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeEntry {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where its daemon listens for the others: host and port.
    pub address: String,
    /// What tells machines apart: processes with the same value can share memory.
    pub host: String,
    /// The transport's providers that it serves, by name, the best first.
    pub providers: Vec<String>,
    /// Whether it only keeps replicas.
    pub storage: bool,
    /// Bytes of replica memory in use.
    pub used: u64,
    /// Bytes of replica memory that it may use.
    pub budget: u64,
    /// Where it keeps replicas on its machine; empty: an older daemon does not say.
    #[serde(default)]
    pub memory_dir: String,
    /// Replicas that it keeps.
    pub replicas: u32,
    /// The version of its daemon.
    pub version: String,
    /// Whether it keeps the directory.
    #[serde(default)]
    pub directory: bool,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether everything is being moved off it: it gets no further replica.
    #[serde(default)]
    pub draining: bool,
}

impl NodeEntry {
    /// A node of which only the name is known.
    #[must_use]
    pub fn named(node: NodeId, name: String) -> Self {
        Self {
            node,
            name,
            address: String::new(),
            host: String::new(),
            providers: Vec::new(),
            storage: false,
            used: 0,
            budget: 0,
            memory_dir: String::new(),
            replicas: 0,
            version: String::new(),
            directory: false,
            labels: BTreeMap::new(),
            draining: false,
        }
    }

    /// The value of one of its labels: see [`Labelled`].
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        Labelled { name: &self.name, host: &self.host, storage: self.storage, labels: &self.labels }.label(key)
    }

    /// What clients are told.
    #[must_use]
    pub fn info(&self, up: bool) -> NodeInfo {
        NodeInfo {
            node: self.node,
            name: self.name.clone(),
            address: self.address.clone(),
            storage: self.storage,
            up,
            stale: None,
            host: self.host.clone(),
            labels: self.labels.clone(),
            draining: self.draining,
            directory: self.directory,
            used: self.used,
            budget: self.budget,
            memory_dir: self.memory_dir.clone(),
            replicas: self.replicas,
            version: self.version.clone(),
        }
    }
}

/// Who claimed a segment last for itself, and by what it is known how that one's hold has ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claimant {
    /// Its node.
    pub node: NodeId,
    /// That node's lease, to which the hold was tied.
    pub lease: Option<LeaseId>,
    /// Its session's public number.
    pub session: u64,
    /// Program, process and node, for people.
    pub who: String,
    /// Whether the session ended before it let the name go, or is taken to have, since replicas were restored in the meantime.
    pub has_ended: bool,
}

/// A segment: what the protocol's record says, and what a daemon must know to serve it. One value, so that a change of the record
/// and the event that explains it are one compare-and-swap.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SegmentEntry {
    /// The segment's life.
    pub segment: SegmentId,
    /// The number of the ownership.
    pub term: Term,
    /// The owner.
    pub owner: OwnerId,
    /// The replicas in sync, rising.
    pub in_sync: Vec<Member>,
    /// Replicas that left the set, the latest last.
    #[serde(default)]
    pub former: Vec<Member>,
    /// Its shape.
    pub shape: Shape,
    /// How it is kept.
    pub keeping: Keeping,
    /// Where its replicas are to be.
    #[serde(default)]
    pub placing: Placing,
    /// Who may open it.
    pub access: Access,
    /// When it was created, in milliseconds since 1970.
    pub created: u64,
    /// What happened to it lately, oldest first.
    #[serde(default)]
    pub events: Vec<Event>,
    /// Whose the ownership is; none: nobody's so far, or an older daemon's.
    #[serde(default)]
    pub claimant: Option<Claimant>,
    /// Counts the changes of this entry. It goes along where the directory's revisions do not: into another directory.
    #[serde(default)]
    pub version: u64,
}

impl SegmentEntry {
    /// The protocol's record.
    #[must_use]
    pub fn record(&self) -> Record {
        Record { segment: self.segment, term: self.term, owner: self.owner, in_sync: self.in_sync.clone() }
    }

    /// The protocol's record, as it stands at `revision`. An entry of an older daemon's has no version but that.
    #[must_use]
    pub fn versioned(&self, revision: Revision) -> Versioned {
        let version = if self.version == 0 { revision.0 } else { self.version };
        Versioned { version: RecordVersion(version), record: self.record() }
    }

    /// The node of the application that owned it last: where it may well be owned again.
    #[must_use]
    pub fn home(&self) -> Option<NodeId> {
        self.claimant.as_ref().map(|claimant| claimant.node)
    }

    /// The same as the next change after what stood at `revision`: later than all before.
    #[must_use]
    pub fn next(&self, revision: Option<Revision>) -> Self {
        let version = revision.map_or(0, |revision| self.versioned(revision).version.0);
        Self { version: version + 1, ..self.clone() }
    }

    /// The same segment with another record.
    #[must_use]
    pub fn with_record(&self, record: Record) -> Self {
        let Record { segment, term, owner, in_sync } = record;
        let mut former = self.former.clone();
        former.extend(&self.in_sync);
        former.retain(|member| !in_sync.contains(member));
        former.drain(..former.len().saturating_sub(FORMER));
        Self { segment, term, owner, in_sync, former, ..self.clone() }
    }

    /// Writes down what happened. The oldest events go, but no number of claims drives out what else happened; a claim takes the
    /// place of the fourth last just like it, if its node alone has claimed the segment since.
    pub fn note(&mut self, event: Event) {
        if event.what == CLAIMED {
            let run = self.events.iter().rposition(|e| e.what != CLAIMED || e.node_name != event.node_name);
            let first = run.map_or(0, |last_other| last_other + 1);
            let is_like = |at: &usize| gist(&self.events[*at].why).eq(gist(&event.why));
            let like: Vec<_> = (first..self.events.len()).filter(is_like).collect();
            if like.len() >= ALIKE {
                self.events.remove(like[0]);
            }
        }
        self.events.push(event);
        for is_claim in [true, false] {
            let is_kind = |event: &Event| (event.what == CLAIMED) == is_claim;
            let mut surplus = self.events.iter().filter(|event| is_kind(event)).count().saturating_sub(EVENTS);
            self.events.retain(|event| {
                let goes = surplus > 0 && is_kind(event);
                surplus -= usize::from(goes);
                !goes
            });
        }
    }
}

/// A reason without its numbers: processes come and go.
fn gist(why: &str) -> impl Iterator<Item = char> + '_ {
    why.chars().filter(|c| !c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use segstore_core::id::Incarnation;

    use super::*;

    fn event(what: &str, node: &str, why: &str) -> Event {
        let (segment, node_name) = ("s".to_owned(), node.to_owned());
        Event { at: 0, segment, node_name, what: what.to_owned(), term: 0, why: why.to_owned() }
    }

    fn empty() -> SegmentEntry {
        serde_json::from_value(serde_json::json!({
            "segment": SegmentId(1), "term": Term(0), "owner": OwnerId(0), "in_sync": [],
            "shape": { "capacity": 1, "block_size": 4096, "slots": 2 },
            "keeping": { "replicas": 1, "minimum": 1, "below_minimum": "stop", "local": false },
            "access": { "uid": 0, "gid": 0, "mode": 0 }, "created": 0,
        }))
        .expect("an entry")
    }

    #[test]
    fn versions_rise_also_where_revisions_do_not() {
        let version = |entry: &SegmentEntry, revision| entry.versioned(Revision(revision)).version.0;
        let old = empty();
        assert_eq!(version(&old, 57), 57, "an older daemon's");
        let first = old.next(Some(Revision(57)));
        assert_eq!(version(&first, 60), 58);
        let moved = first.next(Some(Revision(3)));
        assert_eq!(version(&moved, 4), 59, "in another directory, which has hardly begun");
        assert_eq!(version(&empty().next(None), 1000), 1);
    }

    #[test]
    fn whom_the_set_has_lost_is_remembered() {
        let member = |incarnation| Member { node: NodeId(1), incarnation: Incarnation(incarnation) };
        let of = |in_sync| Record { segment: SegmentId(1), term: Term(0), owner: OwnerId(0), in_sync };
        let entry = empty().with_record(of(vec![member(1), member(2)])).with_record(of(vec![member(2)]));
        assert_eq!(entry.former, [member(1)]);
        assert_eq!(entry.with_record(of(vec![member(1)])).former, [member(2)], "who was let go may come back");
        let last = (3..200).fold(entry, |entry, next| entry.with_record(of(vec![member(next)])));
        assert_eq!(last.former.len(), FORMER);
        assert_eq!(last.former.last(), Some(&member(198)));
    }

    #[test]
    fn claims_drive_out_nothing_else() {
        let mut entry = empty();
        entry.note(event("removed", "a", "the replica on b"));
        for process in 0..200 {
            entry.note(event("claimed", "a", &format!("by segctl (process {process}): read")));
            entry.note(event("claimed", "a", &format!("by segctl (process {process}): opened")));
        }
        let told: Vec<_> = entry.events.iter().map(|event| event.why.as_str()).collect();
        let claims = (196..200)
            .flat_map(|process| ["read", "opened"].map(|what| format!("by segctl (process {process}): {what}")));
        assert_eq!(told, [vec!["the replica on b".to_owned()], claims.collect()].concat());
        // Two nodes in turn: every one is told, and only claims go.
        for turn in 0..200 {
            entry.note(event("claimed", ["a", "b"][turn % 2], "by app"));
        }
        assert_eq!(entry.events.len(), 1 + EVENTS);
        (0..200).for_each(|_| entry.note(event("added", "a", "another")));
        assert_eq!(entry.events.iter().filter(|event| event.what == "claimed").count(), EVENTS);
        assert_eq!(entry.events.len(), 2 * EVENTS);
    }
}
