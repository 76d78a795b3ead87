//! The in-sync set, and the directory that confirms every change of it.
//!
//! Somebody is added only when it holds what is acknowledged, and removed only if an attempt fails without that, or if it is let go while
//! the others are well; nothing is acknowledged on the strength of a change that is not confirmed.

use super::follower::{Follower, Role};
use super::{Action, End, Owner};
use crate::id::Member;
use crate::record::{RecordVersion, Versioned};
use crate::rule::{self, Rule};

impl Owner {
    /// The change was made; the record has this version now.
    pub fn swapped(&mut self, version: RecordVersion) {
        if let Some(swap) = self.directory.take_swap() {
            self.adopt(Versioned { version, record: swap.new });
        }
    }

    /// The change was not made, since the record had changed to `current`.
    pub fn conflicted(&mut self, current: Versioned) {
        if self.directory.take_swap().is_some() {
            self.adopt(current);
        }
    }

    /// The change was certainly not made, since nobody took it: the record is as it was, and whether the change is still wanted is decided
    /// anew. A replica that was to be added may be gone by now, and would be waited for.
    pub fn not_swapped(&mut self) {
        if self.directory.take_swap().is_some() {
            self.adopt(self.directory.record().clone());
        }
    }

    /// Whether the change was made is not known. It may still be.
    pub fn swap_unknown(&mut self) {
        if self.directory.unsettle() {
            self.actions.push_back(Action::ReadRecord);
        }
    }

    /// The directory has no record of the segment any more.
    pub fn unlinked(&mut self) {
        self.end_with(End::Unlinked);
    }

    /// The record as the directory has it.
    pub fn record_read(&mut self, current: Versioned) {
        let ours = current.record.owner == self.ownership.owner;
        if ours && !self.directory.awaits(&current) {
            return; // An answer that was given before, or is older than what is known.
        }
        if ours && self.directory.may_still_land(&current) {
            // Only a change of the version keeps the one under way from landing later.
            let in_sync = self.desired_set();
            let swap = self.directory.swap_to(in_sync);
            self.actions.push_back(Action::Swap(swap));
        } else {
            self.adopt(current);
        }
    }

    /// A joining replica that holds what is acknowledged, or the attempt under way, which contains it, may be added.
    pub(super) fn promote(&mut self) {
        if !self.directory.is_idle() {
            return;
        }
        let own = self.acknowledged.term == self.ownership.term;
        let enough = [self.attempt, own.then_some(self.acknowledged.epoch)];
        let candidates =
            self.followers.iter_mut().filter(|f| f.role == Role::Joining && f.is_connected() && !f.leaving);
        for follower in candidates {
            if let Some(epoch) = enough.into_iter().flatten().find(|&epoch| follower.has_done(epoch)) {
                follower.spare(epoch);
                follower.role = Role::Adding;
            } else if follower.newest_image() == Some(self.acknowledged) {
                follower.role = Role::Adding;
            }
        }
    }

    pub(super) fn change_set(&mut self) {
        let wanting = |f: &Follower| f.leaving || f.role == Role::Adding || self.is_failing(f);
        if !self.directory.is_idle() || !self.followers.iter().any(wanting) {
            return;
        }
        let in_sync = self.desired_set();
        if in_sync != self.in_sync() {
            let swap = self.directory.swap_to(in_sync);
            self.actions.push_back(Action::Swap(swap));
        } else if self.followers.iter().any(|f| self.is_failing(f)) && self.directory.check() {
            // Nothing can be removed, so no swap would tell that another owner came: ask.
            self.actions.push_back(Action::ReadRecord);
        }
    }

    /// Whether the attempt under way cannot complete because of this replica.
    pub(super) fn is_failing(&self, follower: &Follower) -> bool {
        let done = self.attempt.is_none_or(|epoch| follower.has_done(epoch));
        follower.role == Role::InSync && follower.has_failed() && !done
    }

    /// The in-sync set as it should be: without what fails the attempt under way, with what is being added. Nobody is removed if
    /// nothing could be acknowledged afterwards: a link that comes back is cheaper than a full copy. Nor before one who stays has taken the
    /// attempt: that a link stands idle, or swallows a push, proves nothing of who is behind it.
    pub(super) fn desired_set(&self) -> Vec<Member> {
        let may_part = self.may_part();
        let stays = |f: &Follower| f.role == Role::InSync && !(f.leaving && may_part) && !self.is_failing(f);
        let joins = |f: &Follower| f.role == Role::Adding && f.is_connected() && !f.leaving;
        let mut desired: Vec<_> = self.followers.iter().filter(|f| stays(f) || joins(f)).map(|f| f.member).collect();
        let has_taken_it =
            |f: &Follower| self.attempt.is_none_or(|epoch| f.has_done(epoch)) || !rule::holds(Rule::TakenByWhoStays);
        let someone_stays = self.followers.iter().any(|f| stays(f) && f.is_connected() && has_taken_it(f));
        if (!someone_stays && rule::holds(Rule::KeepTheLast)) || !self.is_enough(desired.iter().copied()) {
            let all = self.followers.iter().filter(|f| f.role == Role::InSync || joins(f));
            desired = all.map(|f| f.member).collect();
        }
        desired.sort_unstable();
        desired
    }

    /// Takes over what the directory says.
    fn adopt(&mut self, current: Versioned) {
        let holder = current.ownership();
        if holder != self.ownership {
            return self.fence(holder);
        }
        let mut someone_parts = false;
        for follower in &mut self.followers {
            let is_member = current.record.in_sync.contains(&follower.member);
            match follower.role {
                Role::Adding if is_member => {
                    follower.role = Role::InSync;
                    self.actions.push_back(Action::Added(follower.member));
                }
                Role::Adding => follower.role = Role::Joining,
                // It holds what is acknowledged, and is reached (again): it goes only if those who stay do without it.
                Role::InSync if !is_member && follower.is_connected() && rule::holds(Rule::PartAfterRemoval) => {
                    follower.role = Role::Parting;
                    someone_parts |= follower.leaving;
                    if !follower.leaving {
                        follower.recall(&mut self.actions);
                    }
                }
                Role::InSync if !is_member => self.actions.push_back(Action::Removed(follower.member)),
                _ => {}
            }
        }
        if someone_parts {
            self.forget_proofs();
        }
        let in_sync = current.record.in_sync.as_slice();
        self.keep(|f| match f.role {
            Role::InSync => in_sync.contains(&f.member),
            Role::Joining => !f.leaving,
            Role::Adding | Role::Local | Role::Parting => true,
        });
        self.directory.settle(current);
        self.advance();
    }
}
