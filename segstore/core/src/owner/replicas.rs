//! Replicas that come and go beside the in-sync set: repaired ones, local ones, ones to be let go.

use super::Owner;
use super::follower::{Follower, Role};
use crate::id::{Member, Stamp};
use crate::layout::Ownership;
use crate::rule::{self, Rule};
use crate::slot::SlotView;

impl Owner {
    /// Lets go of a replica that nothing relies on so far. One of the in-sync set stays: see [`Owner::dismiss`].
    pub fn remove(&mut self, member: Member) {
        self.keep(|f| f.member != member || matches!(f.role, Role::InSync | Role::Adding));
        if let Some(follower) = self.follower_mut(member).filter(|f| f.role == Role::Adding) {
            follower.leaving = true;
        }
        self.advance();
    }

    /// Where a repair can copy from, those first that stay: a member of the in-sync set, its slot with the newest acknowledged image, and
    /// that image.
    pub fn repair_sources(&self) -> impl Iterator<Item = (Member, u32, Stamp)> + '_ {
        let sources = |leaving| {
            self.followers.iter().filter(move |f| f.role == Role::InSync && f.is_connected() && f.leaving == leaving)
        };
        let source = |f: &Follower| Some((f.member, f.newest_slot()?, f.newest_image()?));
        sources(false).chain(sources(true)).filter_map(source)
    }

    /// A repair has ended: every slot of `member` has the blocks that were last modified up to `base`. With `closed`, that slot
    /// is the whole image `base`, closed. The replica gets the next pushes, and is added once it holds what is acknowledged.
    ///
    /// What was copied for another ownership counts for nothing: `false`.
    pub fn repaired(&mut self, by: Ownership, member: Member, slots: u32, base: Stamp, closed: Option<u32>) -> bool {
        // A replica that was repaired again holds nothing of what it held.
        self.keep(|f| f.member != member || f.role != Role::Joining);
        let counts = by == self.ownership && self.contains(base) && self.follower_mut(member).is_none();
        if counts {
            let base = if rule::holds(Rule::PushSinceRepair) { base } else { self.acknowledged };
            let bases = vec![Some(base); slots as usize];
            self.followers.push(Follower::new(member, Role::Joining, bases, closed));
        }
        counts
    }

    /// Whether a checkpoint is under way, of no replica in sync anything is known but that it was given up, and none is on its way to take
    /// its place: nothing can be copied from anywhere. What the owner has in its memory can be pushed, to one that was [made](Owner::made).
    #[must_use]
    pub fn is_alone(&self) -> bool {
        let is_coming = |f: &Follower| matches!(f.role, Role::Joining | Role::Adding);
        let is_waiting = self.end.is_none() && self.attempt.is_some();
        is_waiting && self.in_sync_followers().all(Follower::has_failed) && !self.followers.iter().any(is_coming)
    }

    /// Replicas that get the pushes and are not in sync so far.
    pub fn joining(&self) -> impl Iterator<Item = Member> + '_ {
        let is_joining = |f: &&Follower| f.role == Role::Joining && f.is_connected();
        self.followers.iter().filter(is_joining).map(|f| f.member)
    }

    /// Whether the checkpoint under way waits for this replica, which was given up, and cannot go on without: too few would be left.
    #[must_use]
    pub fn is_held_up_by(&self, member: Member) -> bool {
        let well = self.in_sync_followers().filter(|f| !self.is_failing(f)).map(|f| f.member);
        let is_failing = |f: &Follower| f.member == member && self.attempt.is_some() && self.is_failing(f);
        self.followers.iter().any(is_failing) && !self.is_enough(well)
    }

    /// A replica was made for this ownership, in which nothing stands: it gets the next pushes, of which the first into each slot is of
    /// everything, and is added once it holds what is acknowledged. One that was made for another ownership counts for nothing: `false`.
    pub fn made(&mut self, by: Ownership, member: Member, slots: u32) -> bool {
        let counts = by == self.ownership && self.follower_mut(member).is_none();
        if counts {
            self.followers.push(Follower::new(member, Role::Joining, vec![None; slots as usize], None));
        }
        counts
    }

    /// Whether a replica that was repaired waits for a checkpoint that nobody has asked for: another one was acknowledged while it
    /// was filled, so it can be added by the next push only. Where none comes, it is as well removed, and filled again in peace.
    #[must_use]
    pub fn lags(&self, member: Member) -> bool {
        let lags = |f: &Follower| f.role == Role::Joining && f.newest_image() != Some(self.acknowledged);
        self.attempt.is_none() && self.followers.iter().any(|f| f.member == member && lags(f))
    }

    /// Takes in a replica on the owner's own node as it was found there: `slots` are its heads, read after it had granted a request
    /// of this term. What stands on the owner's lineage is brought up to date by difference.
    pub fn add_local_as_found(&mut self, member: Member, slots: &[SlotView]) {
        let bases = slots.iter().map(|slot| slot.base(&self.lineage)).collect();
        let newest = (0..).zip(slots).find(|(_, slot)| slot.image() == Some(self.acknowledged)).map(|(index, _)| index);
        self.add_local(member, bases, newest);
    }

    /// Takes in a replica on the owner's own node, which counts for nothing.
    pub fn add_local(&mut self, member: Member, bases: Vec<Option<Stamp>>, newest: Option<u32>) {
        if self.follower_mut(member).is_none() {
            self.followers.push(Follower::new(member, Role::Local, bases, newest));
        }
    }
}
