//! Segments and holders in the directory.

use std::collections::HashMap;

use segstore::control::message::{Event, Fault, FaultKind, Holder, SegmentInfo};
use segstore_core::id::Member;
use segstore_core::layout::Ownership;
use segstore_core::record::{RecordVersion, Swap, Versioned};

use super::placement::crowded;
use super::{Node, directory_fault};
use crate::cluster::{Claimant, SegmentEntry, check_name, holder_key, node_key, segment_key};
use crate::directory::{DirectoryError, Entry, Revision, Swapped, Value};
use crate::identity::now;

/// Who changes a record, and why.
pub(crate) struct Change<'c> {
    pub(crate) who: &'c str,
    pub(crate) why: &'c str,
    /// How the name came to who holds it.
    pub(crate) came: &'c Came,
    /// Why these replicas leave the set, each for itself.
    pub(crate) causes: &'c [(Member, String)],
    /// Whose the ownership is from here on, if it is another's.
    pub(crate) claimant: Option<Claimant>,
}

/// How a name came to who holds it, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Came {
    /// It was free: what became of who held it before.
    Free(String),
    /// It was taken by force, from this one.
    ByForce(String),
    /// It was handed over, by this one.
    HandedOver(String),
    /// It did not: a caretaker holds none.
    Unowned,
}

impl Node {
    /// A segment, and the revision of its entry.
    pub(crate) async fn segment(&self, name: &str) -> Result<(SegmentEntry, Revision), Fault> {
        check_name(name)?;
        let found = self.directory.read(&segment_key(name)).await.map_err(|error| directory_fault(&error))?;
        match found {
            Some(entry) => Ok((parse(&entry)?, entry.revision)),
            None => {
                let absent = || Fault::new(FaultKind::NotFound, format!("there is no segment {name}"));
                Err(self.outside().await.unwrap_or_else(absent))
            }
        }
    }

    /// What is to be said where the directory shows nothing: another one may have come in the place of this cluster's, where the node
    /// has no lease.
    async fn outside(&self) -> Option<Fault> {
        let lease = *self.lease.borrow();
        let outside = || Fault::new(FaultKind::Unreachable, self.no_lease());
        let Some(lease) = lease else { return Some(outside()) };
        match self.directory.keep_alive(lease).await {
            Ok(()) => None,
            Err(DirectoryError::LeaseOver(_)) => Some(outside()),
            Err(error) => Some(directory_fault(&error)),
        }
    }

    /// Every segment by name.
    pub(crate) async fn segments(&self) -> Result<Vec<(String, SegmentEntry, Revision)>, Fault> {
        let listing = self.directory.list(&segment_key("")).await.map_err(|error| directory_fault(&error))?;
        self.outside().await.map_or(Ok(()), Err)?;
        let named = |entry: &Entry| {
            let name = entry.key.strip_prefix(&segment_key("")).unwrap_or(&entry.key).to_owned();
            Ok((name, parse(entry)?, entry.revision))
        };
        listing.entries.iter().map(named).collect()
    }

    /// Who holds a name.
    pub(crate) async fn holder(&self, name: &str) -> Result<Option<(Holder, Revision)>, Fault> {
        let found = self.directory.read(&holder_key(name)).await.map_err(|error| directory_fault(&error))?;
        found.map(|entry| Ok((parse(&entry)?, entry.revision))).transpose()
    }

    /// Whether the name is only held, here, for a session of which no process has the segment open, or is about to.
    pub(crate) fn is_idle(&self, name: &str, holder: &Holder) -> bool {
        holder.node == self.id && self.sessions.is_idle(holder.session, name)
    }

    /// Who holds which name.
    pub(crate) async fn holders(&self) -> Result<HashMap<String, Holder>, Fault> {
        let listing = self.directory.list(&holder_key("")).await.map_err(|error| directory_fault(&error))?;
        let held = |entry: &Entry| {
            let name = entry.key.strip_prefix(&holder_key("")).unwrap_or(&entry.key).to_owned();
            Ok((name, parse(entry)?))
        };
        listing.entries.iter().map(held).collect()
    }

    /// What clients are told.
    pub(crate) fn describe(
        &self,
        name: &str,
        entry: &SegmentEntry,
        revision: Revision,
        holder: Option<Holder>,
    ) -> SegmentInfo {
        SegmentInfo {
            name: name.to_owned(),
            record: entry.versioned(revision),
            shape: entry.shape,
            keeping: entry.keeping,
            placing: entry.placing.clone(),
            access: entry.access,
            created: entry.created,
            crowded: self.crowded(entry, holder.as_ref()),
            holder,
            places: entry.in_sync.iter().map(|member| self.view.place(*member)).collect(),
            unwanted: self.view.unwanted(),
        }
    }

    /// Which of a segment's copies one failure would take together.
    fn crowded(&self, entry: &SegmentEntry, holder: Option<&Holder>) -> Option<String> {
        let replicas = entry.in_sync.iter().filter(|member| holder.is_none_or(|holder| holder.node != member.node));
        let replicas = self.view.entries(replicas.map(|member| member.node));
        let owner = self.view.entries(holder.map(|holder| holder.node));
        crowded(&entry.placing, &replicas, owner.first(), |key, value| self.view.has_another(key, value))
    }

    /// Writes a segment, if nothing came between; gives the record's new version.
    pub(crate) async fn write_segment(
        &self,
        name: &str,
        expected: Option<Revision>,
        entry: &SegmentEntry,
    ) -> Result<Result<RecordVersion, Option<Entry>>, Fault> {
        let entry = entry.next(expected);
        let value = Value { bytes: encode(&entry)?, lease: None };
        let swapped = self.directory.compare_swap(&segment_key(name), expected, Some(value)).await;
        Ok(match swapped.map_err(|error| directory_fault(&error))? {
            Swapped::Made(_) => Ok(RecordVersion(entry.version)),
            Swapped::Conflict(found) => Err(found),
        })
    }

    /// Changes the record if it is still what was read; otherwise gives what it is. The events that explain it are part of the same change.
    pub(crate) async fn change_record(
        &self,
        name: &str,
        (entry, revision): (SegmentEntry, Revision),
        swap: Swap,
        change: Change<'_>,
    ) -> Result<Result<RecordVersion, Versioned>, Fault> {
        if entry.versioned(revision) != swap.expected || swap.new.segment != entry.segment {
            return Ok(Err(entry.versioned(revision)));
        }
        if swap.new.term > entry.term.next() {
            let text = format!("segment {name} is in term {}: term {} does not follow it", entry.term, swap.new.term);
            return Err(Fault::new(FaultKind::Invalid, text));
        }
        let events = self.events(name, &swap, &change, &entry.former);
        let mut new = entry.with_record(swap.new);
        if change.claimant.is_some() {
            new.claimant = change.claimant;
        }
        for event in events {
            tracing::info!(segment = name, term = event.term, "{}: {}", event.what, event.why);
            new.note(event);
        }
        match self.write_segment(name, Some(revision), &new).await? {
            Ok(version) => Ok(Ok(version)),
            Err(Some(found)) => {
                let current: SegmentEntry = parse(&found)?;
                Ok(Err(current.versioned(found.revision)))
            }
            Err(None) => Err(Fault::new(FaultKind::NotFound, format!("segment {name} was removed meanwhile"))),
        }
    }

    /// What a change of the record means, for people: one event for each thing that it does.
    fn events(&self, name: &str, swap: &Swap, change: &Change<'_>, former: &[Member]) -> Vec<Event> {
        let Change { who, why, came, causes, .. } = *change;
        let (old, new) = (&swap.expected.record, &swap.new);
        let mut events = Vec::new();
        let mut note = |what, text| events.push(self.note(name, what, new.term.0, text));
        if old.owner != new.owner {
            match came {
                Came::Free(after) => note("claimed", format!("by {who}: {why}; {after}")),
                Came::ByForce(from) => {
                    note("taken_over", format!("by {who}: {why}, by force, from {from}, which held it"));
                }
                Came::Unowned => note("claimed", format!("by {who}: {why}")),
                Came::HandedOver(from) => note("moved", format!("by {who}: {why}, handed over by {from}")),
            }
        }
        for member in old.in_sync.iter().filter(|member| !new.in_sync.contains(member)) {
            let cause = causes.iter().find(|(removed, _)| removed == member).map_or(why, |(_, cause)| cause);
            note("removed", format!("the replica on {}: {cause}", self.view.name(member.node)));
        }
        for member in new.in_sync.iter().filter(|member| !old.in_sync.contains(member)) {
            let how = if former.contains(member) { "it is kept after all" } else { "it was filled" };
            note(
                "added",
                format!("the replica on {}: {how}, and holds what is acknowledged", self.view.name(member.node)),
            );
        }
        events
    }

    /// How the hold has ended under which a segment was claimed last, for whoever claims it in this session.
    pub(crate) async fn after(&self, claimant: Option<&Claimant>, session: u64) -> String {
        let Some(Claimant { node, lease, session: former, who, has_ended }) = claimant else {
            return "nobody held it".to_owned();
        };
        if (*node, *former) == (self.id, session) {
            return "nobody held it since this session did".to_owned();
        }
        let current = match *node == self.id {
            true => Ok(*self.lease.borrow()),
            false => self.directory.read(&node_key(*node)).await.map(|found| found.and_then(|entry| entry.lease)),
        };
        let how = match current {
            _ if *has_ended => "whose session has ended",
            Ok(current) if current == *lease => "which let it go",
            Ok(_) => "the lease of whose node was over",
            Err(_) => "which is gone",
        };
        format!("nobody held it, after {who}, {how}")
    }

    /// Has it written down that the session ended under which a segment is claimed, before the name is free.
    pub(crate) async fn note_end(&self, name: &str, session: u64, claimed: Ownership) -> Result<(), Fault> {
        let (mut entry, revision) = self.segment(name).await?;
        let ownership = entry.record().ownership();
        let claimant = entry.claimant.as_mut().filter(|claimant| claimant.session == session && ownership == claimed);
        let Some(claimant) = claimant else { return Ok(()) };
        claimant.has_ended = true;
        // In a conflict it has another owner.
        self.write_segment(name, Some(revision), &entry).await.map(drop)
    }

    /// An event of now.
    pub(crate) fn note(&self, name: &str, what: &str, term: u64, why: String) -> Event {
        Event { at: now(), segment: name.to_owned(), node_name: self.name.clone(), what: what.to_owned(), term, why }
    }
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(entry: &Entry) -> Result<T, Fault> {
    let parsed = serde_json::from_slice(&entry.value);
    parsed.map_err(|error| {
        Fault::new(FaultKind::Internal, format!("the directory's entry {} makes no sense: {error}", entry.key))
    })
}

pub(crate) fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(value).map_err(|error| Fault::new(FaultKind::Internal, error.to_string()))
}
