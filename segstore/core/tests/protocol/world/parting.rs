//! Healthy replicas that an owner lets go.

use segstore_core::id::Member;
use segstore_core::owner::Owner;
use segstore_core::slot::SlotView;

use super::network::Endpoint;
use super::process::{Owning, Process};
use super::{Step, Violation, World, replica_of};

impl World {
    pub(super) fn enabled_for_parting(&self, p: usize, owning: &Owning, steps: &mut Vec<Step>) {
        if self.faults.dismissals > 0 {
            for member in owning.owner.holders() {
                let change = if owning.owner.is_parting(member) { Step::Recall } else { Step::Dismiss };
                steps.push(change(p, replica_of(&member)));
            }
        }
        for (member, _) in &self.processes[p].looks {
            steps.push(Step::Look(p, replica_of(member)));
            if self.faults.partitions > 0 {
                steps.push(Step::LookLost(p, replica_of(member)));
            }
        }
    }

    pub(super) fn dismiss(&mut self, p: usize, r: usize) {
        let owner = &mut self.processes[p].owning_mut().unwrap().owner;
        let member = owner.holders().find(|member| replica_of(member) == r).unwrap();
        if owner.dismiss(member) {
            self.faults.dismissals -= 1;
            self.take_actions(p);
        }
    }

    pub(super) fn recall(&mut self, p: usize, r: usize) {
        self.faults.dismissals -= 1;
        let owner = &mut self.processes[p].owning_mut().unwrap().owner;
        let member = owner.holders().find(|member| replica_of(member) == r).unwrap();
        owner.recall(member);
        self.take_actions(p);
    }

    /// The first look at `r` that is under way.
    pub(super) fn look(&mut self, p: usize, r: usize, arrives: bool) {
        let looks = &mut self.processes[p].looks;
        let at = looks.iter().position(|(member, _)| replica_of(member) == r).unwrap();
        let (member, look) = looks.remove(at);
        let is_there = arrives && self.member(r) == member;
        let views = self.replicas[r].views(&self.geometry);
        let newest = views.iter().filter_map(SlotView::image).max();
        let owner = &mut self.processes[p].owning_mut().unwrap().owner;
        owner.seen(member, look, newest.filter(|_| is_there));
        self.take_actions(p);
    }

    /// Letting go goes on by itself: nobody needs to make a checkpoint for it.
    pub(super) fn check_parting(&mut self) {
        let rests = |process: &&Process| process.directory.is_none() && process.looks.is_empty();
        let is_stuck = |owner: &Owner| {
            let parts = owner.holders().any(|member| owner.is_parting(member));
            parts && owner.end().is_none() && owner.attempt().is_none()
        };
        if self.processes.iter().filter(rests).filter_map(Process::owning).any(|owning| is_stuck(&owning.owner)) {
            self.journal.broken(Violation::NotLetGo);
        }
    }

    /// Of those who stay, somebody must hold what is acknowledged when an owner ends what it has with a replica that is well.
    pub(super) fn check_let_go(&mut self, p: usize, member: Member) {
        let is_to = |e: &&Endpoint| e.process == p && e.member == member && e.is_open() && !e.revoked;
        if !self.endpoints.iter().any(|e| is_to(&e)) {
            return;
        }
        let owner = &self.processes[p].owning().unwrap().owner;
        let holds = |stays: &Member| {
            let replica = &self.replicas[replica_of(stays)];
            let views = replica.views(&self.geometry);
            *stays != member
                && replica.member() == *stays
                && views.iter().filter_map(SlotView::image).any(|image| image >= owner.acknowledged())
        };
        if !owner.in_sync().iter().any(holds) {
            self.journal.broken(Violation::LetGo);
        }
    }
}
