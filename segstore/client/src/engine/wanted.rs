//! Which replicas there are to be: what is missing is asked for, what is too much is let go.

use std::sync::Arc;

use segstore_core::id::{Member, NodeId};

use super::Engine;
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
    /// Nodes that are to keep nothing of it.
    draining: Vec<NodeId>,
}

impl Wanted {
    pub(crate) fn of(info: &SegmentInfo) -> Self {
        let keeping = info.keeping;
        Self { replicas: keeping.replicas as usize, local: keeping.local, draining: info.draining.clone() }
    }

    pub(super) fn is_drained(&self, member: Member) -> bool {
        self.draining.contains(&member.node)
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
        // Those that were filled and are not in sync so far count: they will be.
        let counts = |member: &Member| {
            let goes =
                || self.dismissed.iter().any(|(dismissed, _)| dismissed == member) && self.owner.is_parting(*member);
            member.node != shared.node && !self.wanted.is_drained(*member) && !goes()
        };
        if self.repairing || self.owner.followers().filter(counts).count() >= self.wanted.replicas {
            return;
        }
        let sources: Vec<_> = self.owner.repair_sources().collect();
        if let Some((source, slot, base)) = sources.get(self.repairs_failed % sources.len().max(1)).copied() {
            self.repairing = true;
            let members = self.owner.followers().collect();
            shared.start(Job::Repair { ownership: self.owner.ownership(), members, source, slot, base });
        }
    }

    /// Lets go of replicas that are more than are wanted, the latest first, but before them those on nodes that are being drained: they
    /// stay until others have taken their place. Whether there is anything new to do.
    pub(super) fn trim(&mut self, shared: &Arc<Shared>) -> bool {
        let is_own = |member: &Member| member.node == shared.node;
        let may_go = |member: &Member| !is_own(member) || self.wanted.is_drained(*member);
        let in_sync = self.owner.in_sync().iter().filter(|member| may_go(member)).count();
        if in_sync <= self.wanted.replicas && self.dismissed.is_empty() || self.owner.end().is_some() {
            return false;
        }
        let mut holders: Vec<_> = self.owner.holders().filter(may_go).collect();
        holders.sort_by_key(|member| (self.wanted.is_drained(*member), is_own(member)));
        let mut has_changed = false;
        for (at, &member) in holders.iter().enumerate() {
            let (goes, is_parting) = (at >= self.wanted.replicas, self.owner.is_parting(member));
            if goes && !is_parting {
                has_changed |= self.dismiss(member);
            } else if is_parting && !goes {
                self.owner.recall(member);
                has_changed = true;
            }
        }
        self.dismissed
            .retain(|(dismissed, _)| holders.iter().skip(self.wanted.replicas).any(|member| member == dismissed));
        has_changed
    }

    /// Whether that can be done now.
    fn dismiss(&mut self, member: Member) -> bool {
        self.dismissed.retain(|(dismissed, _)| *dismissed != member);
        let is_drained = self.wanted.is_drained(member);
        self.dismissed
            .push((member, if is_drained { "its node is being drained" } else { "fewer replicas are wanted" }));
        self.owner.dismiss(member)
    }
}
