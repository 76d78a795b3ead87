//! Healthy replicas that are let go, since fewer are wanted, or others.
//!
//! That links stand idle proves nothing of who is behind them. So nobody healthy is let go on the strength of that: all who stay first
//! show that they hold what is acknowledged, by a push that they take, or by being looked at. Then the directory confirms the removal,
//! which may take any time; so they show it once more, and until they have, the replica gets every push and can come back. Whenever one
//! of those who stay is lost meanwhile, it is all called off.

use super::follower::{Follower, Role};
use super::{Action, Owner};
use crate::id::{Member, Stamp};
use crate::rule::{self, Rule};

impl Owner {
    /// Lets go of a healthy member of the in-sync set; it may be called off, see [`Owner::is_parting`]. `false`: not now, since not all
    /// who would stay are reached, or there are too few of them.
    pub fn dismiss(&mut self, member: Member) -> bool {
        let is_candidate = |f: &Follower| f.member == member && f.stays();
        let Some(at) = self.followers.iter().position(is_candidate) else { return false };
        self.followers[at].leaving = true;
        if !self.can_part() {
            self.followers[at].leaving = false;
            return false;
        }
        self.forget_proofs();
        self.advance();
        true
    }

    /// Keeps a replica that was to be let go: it counts again.
    pub fn recall(&mut self, member: Member) {
        let recalled = self.followers.iter_mut().find(|f| f.member == member && f.is_parting());
        if let Some(follower) = recalled {
            follower.recall(&mut self.actions);
            self.advance();
        }
    }

    /// Whether the replica is being let go.
    #[must_use]
    pub fn is_parting(&self, member: Member) -> bool {
        self.followers.iter().any(|f| f.member == member && f.is_parting())
    }

    /// The in-sync set, and who has left it and is not let go so far, in the order in which they came.
    pub fn holders(&self) -> impl Iterator<Item = Member> + '_ {
        self.followers.iter().filter(|f| matches!(f.role, Role::InSync | Role::Parting)).map(|f| f.member)
    }

    /// Somebody has looked at what a replica holds, after [`Action::Look`] asked for it: this is the newest of its images that are
    /// closed. `None`: it could not be seen. Whether it was called off for that.
    pub fn seen(&mut self, member: Member, look: u64, newest: Option<Stamp>) -> bool {
        let holds = newest.is_some_and(|image| image >= self.acknowledged && self.contains(image));
        let is_awaited = self.follower_mut(member).is_some_and(|follower| follower.prove(look));
        if is_awaited && !holds {
            self.call_off();
        }
        self.advance();
        is_awaited && !holds
    }

    /// Goes on with letting go of replicas.
    pub(super) fn part(&mut self) {
        if !self.followers.iter().any(Follower::is_parting) {
            return;
        }
        if !self.can_part() {
            return self.call_off();
        }
        if self.may_part() {
            let gone = self.followers.iter().filter(|f| f.role == Role::Parting);
            self.actions.extend(gone.map(|f| Action::Removed(f.member)));
            self.keep(|f| f.role != Role::Parting);
        } else if self.attempt.is_none() {
            self.look();
        }
    }

    /// Whether all who stay have shown that they hold what is acknowledged.
    pub(super) fn may_part(&self) -> bool {
        self.followers.iter().filter(|f| f.stays()).all(Follower::is_proven)
    }

    /// From here on, who stays has to show it anew.
    pub(super) fn forget_proofs(&mut self) {
        self.followers.iter_mut().for_each(Follower::forget_proof);
    }

    /// Whether everybody who stays is reached, and they are enough, whatever the policy does when they are not.
    fn can_part(&self) -> bool {
        let mut staying = self.followers.iter().filter(|f| f.stays());
        let elsewhere = self.elsewhere(self.followers.iter().filter(|f| f.stays()).map(|f| f.member));
        staying.all(Follower::is_connected) && elsewhere >= self.policy.minimum.max(1)
    }

    fn call_off(&mut self) {
        if rule::holds(Rule::CountAgain) {
            let parting = self.followers.iter_mut().filter(|f| f.is_parting());
            parting.for_each(|follower| follower.recall(&mut self.actions));
        }
    }

    /// Nobody pushes: who stays is looked at.
    fn look(&mut self) {
        for follower in self.followers.iter_mut().filter(|f| f.stays()) {
            if follower.ask(self.looks) {
                self.actions.push_back(Action::Look { member: follower.member, look: self.looks });
                self.looks += 1;
            }
        }
    }
}
