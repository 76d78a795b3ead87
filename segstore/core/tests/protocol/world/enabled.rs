//! What may happen next.

use segstore_core::id::{Member, Stamp};
use segstore_core::rule::{self, Rule};

use super::network::Endpoint;
use super::process::{DirectoryRequest, Owning, Stage};
use super::work::{Job, Work};
use super::{Step, World, replica_of};

impl World {
    pub fn is_enabled(&self, step: Step) -> bool {
        self.enabled().contains(&step)
    }

    /// Everything that may happen next.
    pub fn enabled(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        (0..self.processes.len()).for_each(|p| self.enabled_for_process(p, &mut steps));
        for endpoint in &self.endpoints {
            self.enabled_for_endpoint(endpoint, &mut steps);
        }
        for (r, replica) in self.replicas.iter().enumerate() {
            steps.extend((0..replica.work.len()).map(|i| Step::WorkGoesOn(r, i)));
            if self.faults.further_copies > 0 {
                let can = |work: &Work| matches!(&work.job, Job::Fill(fill) if fill.is_copied());
                let copied = (0..).zip(&replica.work).filter(|(_, work)| can(work));
                steps.extend(copied.map(|(i, _)| Step::CopiesAgain(r, i)));
            }
            if self.faults.orphans > 0 && self.orphan(r).is_some() {
                steps.push(Step::LookForOrphan(r));
            }
            if self.faults.restarts > 0 && self.is_in_use(r) {
                steps.push(Step::Restart(r));
            }
            if self.faults.memory_losses > 0 && self.is_in_use(r) {
                steps.push(Step::LoseMemory(r));
            }
        }
        steps.extend((0..self.late_swaps.len()).map(Step::LateSwap));
        steps.extend((0..self.repair_requests.len()).map(Step::RepairArrives));
        steps.extend((0..self.level_requests.len()).map(Step::LevelArrives));
        steps.extend((0..self.orphans.len()).map(Step::ForgetOrphan));
        if self.faults.reads > 0 {
            steps.push(Step::Read);
        }
        for (i, reader) in self.readers.iter().enumerate() {
            self.enabled_for_reader(i, reader, &mut steps);
        }
        steps
    }

    fn is_in_use(&self, r: usize) -> bool {
        self.record.record.in_sync.contains(&self.member(r)) || !self.replicas[r].work.is_empty()
    }

    fn enabled_for_process(&self, p: usize, steps: &mut Vec<Step>) {
        let process = &self.processes[p];
        match &process.directory {
            Some(DirectoryRequest::Read) => steps.push(Step::Directory(p)),
            Some(DirectoryRequest::Swap(_)) => {
                steps.push(Step::Directory(p));
                if self.faults.lost_replies > 0 {
                    steps.extend([Step::ReplyLost(p), Step::ReplyLate(p)]);
                    steps.extend(process.owning().map(|_| Step::NotTaken(p)));
                }
            }
            Some(DirectoryRequest::Served(..)) => steps.push(Step::Directory(p)),
            None => {}
        }
        let is_asking = matches!(process.directory, Some(DirectoryRequest::Read | DirectoryRequest::Swap(_)));
        if is_asking && self.faults.late_answers > 0 {
            steps.push(Step::Serve(p));
        }
        if process.rumour.is_some() {
            steps.push(Step::Hear(p));
        }
        for (member, _) in &process.fences {
            steps.push(Step::Fence(p, replica_of(member)));
            if self.faults.partitions > 0 {
                steps.push(Step::FenceLost(p, replica_of(member)));
            }
        }
        if process.load.is_some() {
            steps.push(Step::Load(p));
        }
        match &process.stage {
            Stage::Idle if p > 0 => steps.push(Step::TakeOver(p)),
            Stage::TakingOver(_) => self.enabled_for_claimant(p, steps),
            Stage::Owning(owning) if owning.owner.end().is_none() => self.enabled_for_owner(p, owning, steps),
            _ => {}
        }
        if self.faults.kills > 0 && matches!(process.stage, Stage::Owning(_) | Stage::TakingOver(_)) {
            steps.push(Step::Kill(p));
        }
    }

    /// A claimant has nothing to start a repair from, unless the rule that says so is left out.
    fn enabled_for_claimant(&self, p: usize, steps: &mut Vec<Step>) {
        let may_repair = !rule::holds(Rule::RepairAfterTakeover) && self.faults.repairs > 0 && !self.is_repairing(p);
        if may_repair && self.early_repair_source(p).is_some() {
            let out = |r: &usize| !self.record.record.in_sync.contains(&self.member(*r));
            steps.extend((0..self.replicas.len()).filter(out).map(|r| Step::Repair(p, r)));
        }
    }

    pub(super) fn early_repair_source(&self, p: usize) -> Option<(Member, u32, Stamp)> {
        let Stage::TakingOver(takeover) = &self.processes[p].stage else { return None };
        let source = *takeover.claimed()?.record.in_sync.first()?;
        let views = self.replicas[replica_of(&source)].views(&self.geometry);
        let images = (0..).zip(&views).filter_map(|(slot, view)| Some((source, slot, view.image()?)));
        images.max_by_key(|(_, _, image)| *image)
    }

    fn enabled_for_owner(&self, p: usize, owning: &Owning, steps: &mut Vec<Step>) {
        let process = &self.processes[p];
        if !process.repaired.is_empty() {
            steps.push(Step::Repaired(p));
        }
        let unconnected: Vec<_> = owning.owner.disconnected().collect();
        let reachable = |member: &&Member| self.member(replica_of(member)) == **member;
        steps.extend(unconnected.iter().filter(reachable).map(|member| Step::Connect(p, replica_of(member))));
        let gone = |member: &Member| self.member(replica_of(member)) != *member;
        steps.extend(owning.owner.connecting().filter(gone).map(|member| Step::OutOfReach(p, replica_of(&member))));
        if self.faults.losses > 0 {
            steps.extend(owning.owner.connecting().map(|member| Step::StopTrying(p, replica_of(&member))));
        }
        match owning.owner.attempt() {
            None if process.commits > 0 => {
                let blocks = 0..owning.changes.entries().len() as u32;
                steps.extend(blocks.map(|block| Step::Commit(p, block)));
                if self.faults.resizes > 0 {
                    steps.push(Step::Resize(p));
                }
            }
            Some(_) if self.faults.give_ups > 0 && self.endpoints.iter().all(|e| !self.is_pushing(p, e)) => {
                steps.push(Step::GiveUp(p));
            }
            _ => {}
        }
        let can_have_one = owning.owner.repair_sources().next().is_some() || owning.owner.is_alone();
        if self.faults.repairs > 0 && can_have_one && !self.is_repairing(p) {
            let members = || owning.owner.followers().chain(owning.owner.in_sync().iter().copied());
            let own = |r: usize| Some(r) == self.local || self.collocated && r == p;
            let out = |r: &usize| !members().any(|member| replica_of(&member) == *r) && !own(*r);
            steps.extend((0..self.replicas.len()).filter(out).map(|r| Step::Repair(p, r)));
        }
        if self.faults.lost_repairs > 0 && self.is_repairing(p) {
            steps.push(Step::RepairUnanswered(p));
        }
        self.enabled_for_parting(p, owning, steps);
        if self.faults.watches > 0 && process.rumour.is_none() {
            steps.push(Step::Watch(p));
        }
        if self.faults.releases > 0 {
            steps.push(Step::Release(p));
        }
    }

    fn is_pushing(&self, p: usize, endpoint: &Endpoint) -> bool {
        endpoint.process == p && endpoint.awaited.is_some() && endpoint.is_open()
    }

    fn enabled_for_endpoint(&self, endpoint: &Endpoint, steps: &mut Vec<Step>) {
        let (p, r) = (endpoint.process, endpoint.replica);
        if !endpoint.in_flight.is_empty() {
            steps.push(if endpoint.is_open() { Step::Deliver(p, r) } else { Step::DeliverLate(p, r) });
        }
        if endpoint.is_open() && (endpoint.revoked || endpoint.awaited.is_some() && endpoint.in_flight.is_empty()) {
            steps.push(Step::Complete(p, r));
        }
        if endpoint.is_open() && endpoint.awaited.is_some() && !endpoint.revoked && self.faults.cuts > 0 {
            steps.push(Step::Cut(p, r));
        }
        if endpoint.is_open() && (endpoint.revoked || endpoint.awaited.is_some()) && self.faults.losses > 0 {
            steps.push(Step::Lose(p, r));
        }
    }
}
