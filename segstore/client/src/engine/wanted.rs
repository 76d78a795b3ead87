//! Which replicas there are to be: what is missing is asked for, what is too much is let go.

use std::sync::Arc;

use segstore_core::id::{Member, NodeId, Stamp};

use super::Engine;
use super::event::Event;
use super::jobs::Job;
use super::seat::Shared;
use crate::control::message::SegmentInfo;

/// How a segment is to be kept, as its record said last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wanted {
    /// Replicas on other nodes than the owner's.
    pub(super) replicas: usize,
    /// Whether there is to be a copy on the owner's node.
    local: bool,
    /// Nodes that are to keep nothing of it: drained ones, and such as are gone for good.
    unwanted: Vec<NodeId>,
}

impl Wanted {
    pub(crate) fn of(info: &SegmentInfo) -> Self {
        let keeping = info.keeping;
        Self { replicas: keeping.replicas as usize, local: keeping.local, unwanted: info.unwanted.clone() }
    }

    pub(super) fn is_unwanted(&self, member: Member) -> bool {
        self.unwanted.contains(&member.node)
    }
}

impl Engine {
    /// Asks for another replica where one is missing.
    pub(super) fn replenish(&mut self, shared: &Arc<Shared>) {
        if self.owner.end().is_some() {
            return;
        }
        if self.wanted.local && !self.seeking_local {
            // A member of the in-sync set on this node is as good.
            self.seeking_local = !self.owner.followers().any(|member| member.node == shared.node);
            if self.seeking_local {
                shared.start(Job::Local);
            }
        }
        if self.owner.is_alone() && !self.repairing {
            self.repairing = true;
            let (members, silent) = (self.owner.followers().collect(), self.owner.in_sync().to_vec());
            return shared.start(Job::Make { ownership: self.owner.ownership(), members, silent });
        }
        // Those that were filled and are not in sync so far count: they will be.
        let counts = |member: &Member| {
            let goes =
                || self.dismissed.iter().any(|(dismissed, _)| dismissed == member) && self.owner.is_parting(*member);
            let is_missed = || self.owner.is_held_up_by(*member);
            member.node != shared.node && !self.wanted.is_unwanted(*member) && !goes() && !is_missed()
        };
        let is_complete = self.owner.followers().filter(counts).count() >= self.wanted.replicas;
        if is_complete && !self.warnings.is_empty() {
            // Of those that are missed no more.
            let owner = &self.owner;
            self.warnings.retain(|(whom, _)| owner.follows(*whom));
        }
        if self.repairing || is_complete {
            return;
        }
        let sources: Vec<_> = self.owner.repair_sources().collect();
        if let Some((source, slot, base)) = sources.get(self.repairs_failed % sources.len().max(1)).copied() {
            self.repairing = true;
            let members = self.owner.followers().collect();
            shared.start(Job::Repair { ownership: self.owner.ownership(), members, source, slot, base });
        }
    }

    /// Lets go of replicas that are more than are wanted: first of those out of reach, then of those on nodes that are being drained, then of
    /// the latest. They stay until others have taken their place. Whether there is anything new to do.
    pub(super) fn trim(&mut self, shared: &Arc<Shared>) -> bool {
        let is_own = |member: &Member| member.node == shared.node;
        let may_go = |member: &Member| !is_own(member) || self.wanted.is_unwanted(*member);
        let in_sync = self.owner.in_sync().iter().filter(|member| may_go(member)).count();
        if in_sync <= self.wanted.replicas && self.dismissed.is_empty() || self.owner.end().is_some() {
            return false;
        }
        let mut holders: Vec<_> = self.owner.holders().filter(may_go).collect();
        holders.sort_by_key(|member| (!self.is_there(*member), self.wanted.is_unwanted(*member), is_own(member)));
        let surplus = holders.split_off(self.wanted.replicas.min(holders.len()));
        self.dismissed.retain(|(dismissed, _)| surplus.contains(dismissed));
        let wanted_again: Vec<_> = holders.into_iter().filter(|member| self.owner.is_parting(*member)).collect();
        wanted_again.iter().for_each(|member| self.owner.recall(*member));
        // Who is wanted again is no member so far, perhaps: nobody goes on the strength of that.
        !wanted_again.is_empty() || surplus.into_iter().any(|member| self.dismiss(shared, member))
    }

    /// Whether a replica is reached, and was not looked for in vain since.
    fn is_there(&self, member: Member) -> bool {
        self.links.iter().any(|link| link.member == member) && !self.unseen.contains(&member)
    }

    /// Whether that can be done now.
    fn dismiss(&mut self, shared: &Arc<Shared>, member: Member) -> bool {
        let stays = |other: &&Member| **other != member && other.node != shared.node && !self.owner.is_parting(**other);
        let enough = self.owner.in_sync().iter().filter(stays).count() >= self.wanted.replicas;
        let is_new = !self.owner.is_parting(member) && enough && self.parting_rests.is_none();
        if !is_new || !self.owner.dismiss(member) {
            return false;
        }
        let why = match (self.is_there(member), self.wanted.is_unwanted(member)) {
            (false, _) => "it is out of reach, and others have taken its place",
            (true, true) => "its node is being drained, or gone for good",
            (true, false) => "fewer replicas are wanted",
        };
        self.dismissed.retain(|(dismissed, _)| *dismissed != member);
        self.dismissed.push((member, why));
        true
    }

    /// Somebody has looked at a replica that is to stay. One that cannot be seen is the first that may go, if there are others.
    pub(super) fn seen(
        &mut self,
        shared: &Arc<Shared>,
        member: Member,
        look: u64,
        newest: Result<Option<Stamp>, String>,
    ) {
        let why = newest.as_ref().err().map_or_else(|| "its newest checkpoint is not whole".to_owned(), Clone::clone);
        if !self.owner.seen(member, look, newest.ok().flatten()) {
            return self.unseen.retain(|unseen| *unseen != member);
        }
        if !self.unseen.contains(&member) {
            self.unseen.push(member);
        }
        let why =
            format!("no replica is let go while {member}, which is to stay, does not show that it is well: {why}");
        tracing::warn!(segment = %shared.name, "{}", shared.with_names(why.clone()));
        self.parting_rests = Some(why);
        shared.start(Job::Later(Event::Rested));
    }
}
