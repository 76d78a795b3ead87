//! How each step happens, what the directory and a replica's daemon answer, and who is told.

use segstore_core::record::Swap;
use segstore_core::replica::{Granted, Refused, Request};

use super::network::Endpoint;
use super::process::{DirectoryRequest, Stage};
use super::replica::Replica;
use super::{Step, World, replica_of};

impl World {
    /// Lets `step` happen.
    pub fn step(&mut self, step: Step) {
        match step {
            Step::TakeOver(p) => {
                if !self.processes[p].is_caretaker {
                    self.holder = Some(p);
                }
                self.processes[p].begin_takeover();
                self.take_actions(p);
            }
            Step::Directory(p) => self.answer_from_directory(p),
            Step::Serve(p) => {
                self.faults.late_answers -= 1;
                self.serve(p);
            }
            Step::Watch(p) => {
                self.faults.watches -= 1;
                self.processes[p].rumour = Some(self.record.clone());
            }
            Step::Hear(p) => self.hear(p),
            Step::ReplyLost(p) => {
                self.faults.lost_replies -= 1;
                if let Some(DirectoryRequest::Swap(swap)) = self.processes[p].directory.take() {
                    let _ = self.record.apply(swap);
                    self.tell_unknown(p);
                }
            }
            Step::ReplyLate(p) => {
                self.faults.lost_replies -= 1;
                if let Some(DirectoryRequest::Swap(swap)) = self.processes[p].directory.take() {
                    self.late_swaps.push(swap);
                    self.tell_unknown(p);
                }
            }
            Step::NotTaken(p) => {
                self.faults.lost_replies -= 1;
                self.processes[p].directory = None;
                self.processes[p].owning_mut().unwrap().owner.not_swapped();
                self.take_actions(p);
            }
            Step::LateSwap(i) => {
                let swap: Swap = self.late_swaps.remove(i);
                let _ = self.record.apply(swap);
            }
            Step::Fence(p, r) => self.fence(p, r),
            Step::FenceLost(p, r) => self.fence_lost(p, r),
            Step::Load(p) => self.load(p),
            Step::Connect(p, r) => self.connect(p, r),
            Step::OutOfReach(p, r) => {
                let present = self.member(r);
                let owner = &mut self.processes[p].owning_mut().unwrap().owner;
                let gone = owner.connecting().find(|member| replica_of(member) == r && *member != present);
                let gone = gone.unwrap();
                owner.failed(gone);
                if !owner.in_sync().contains(&gone) {
                    owner.remove(gone); // Filled, and gone before it came into the set.
                }
                self.take_actions(p);
            }
            Step::Commit(p, block) => self.commit(p, Some(block)),
            Step::Resize(p) => {
                self.faults.resizes -= 1;
                self.commit(p, None);
            }
            Step::Read => self.begin_reading(),
            Step::Ask(i, p, r) => self.ask(i, p, r),
            Step::LookAt(i, r) => self.look_at(i, r),
            Step::ReaderGoesOn(i) => self.reader_goes_on(i),
            Step::HoldExpires(i) => self.hold_expires(i),
            Step::Deliver(p, r) => self.deliver(p, r, Endpoint::is_open),
            Step::DeliverLate(p, r) => self.deliver(p, r, |e| !e.is_open() && !e.in_flight.is_empty()),
            Step::Complete(p, r) => self.complete(p, r),
            Step::Cut(p, r) => {
                self.faults.cuts -= 1;
                self.disconnect(p, r);
            }
            Step::Lose(p, r) => {
                self.faults.losses -= 1;
                self.lose(p, r);
            }
            Step::StopTrying(p, r) => {
                self.faults.losses -= 1;
                let owner = &mut self.processes[p].owning_mut().unwrap().owner;
                let member = owner.connecting().find(|member| replica_of(member) == r).unwrap();
                owner.failed(member);
                self.take_actions(p);
            }
            Step::GiveUp(p) => {
                self.faults.give_ups -= 1;
                self.processes[p].owning_mut().unwrap().owner.give_up().unwrap();
                self.take_actions(p);
            }
            Step::Kill(p) => {
                self.faults.kills -= 1;
                self.end_process(p);
            }
            Step::Dismiss(p, r) => self.dismiss(p, r),
            Step::Recall(p, r) => self.recall(p, r),
            Step::Look(p, r) => self.look(p, r, true),
            Step::LookLost(p, r) => {
                self.faults.partitions -= 1;
                self.look(p, r, false);
            }
            Step::Restart(r) => {
                self.faults.restarts -= 1;
                self.replicas[r].restart();
                self.revoke_all(r);
            }
            Step::LoseMemory(r) => {
                self.faults.memory_losses -= 1;
                self.replicas[r].lose_memory(&self.geometry.clone());
                self.revoke_all(r);
            }
            Step::Repair(p, r) => self.ask_for_repair(p, r),
            Step::RepairArrives(i) => self.serve_repair(i),
            Step::RepairUnanswered(p) => {
                self.faults.lost_repairs -= 1;
                self.lose_repair_answer(p);
            }
            Step::WorkGoesOn(r, i) => self.go_on_with(r, i),
            Step::CopiesAgain(r, i) => {
                self.faults.further_copies -= 1;
                self.copy_again(r, i);
            }
            Step::Repaired(p) => self.join_repaired(p),
            Step::Release(p) => self.release(p),
            Step::LevelArrives(i) => self.serve_level(i),
            Step::LookForOrphan(r) => self.look_for_orphan(r),
            Step::ForgetOrphan(i) => self.forget_orphan(i),
        }
        self.replicas.iter_mut().for_each(Replica::forget_past_turns);
        self.check_forgotten();
        self.check_parting();
        self.endpoints.retain(|endpoint| !endpoint.is_over());
    }

    /// Serves what a process asked of the directory, and keeps the answer.
    fn serve(&mut self, p: usize) {
        let made = match self.processes[p].directory.take() {
            Some(DirectoryRequest::Read) => None,
            Some(DirectoryRequest::Swap(swap)) => Some(self.record.apply(swap).is_ok()),
            other => return self.processes[p].directory = other,
        };
        self.processes[p].directory = Some(DirectoryRequest::Served(made, self.record.clone()));
    }

    fn answer_from_directory(&mut self, p: usize) {
        self.serve(p);
        let Some(DirectoryRequest::Served(made, record)) = self.processes[p].directory.take() else { return };
        match (&mut self.processes[p].stage, made) {
            (Stage::TakingOver(takeover), None) => takeover.record_read(record),
            (Stage::TakingOver(takeover), Some(true)) => takeover.swapped(record.version),
            (Stage::TakingOver(takeover), Some(false)) => takeover.conflicted(record),
            (Stage::Owning(owning), None) => owning.owner.record_read(record),
            (Stage::Owning(owning), Some(true)) => owning.owner.swapped(record.version),
            (Stage::Owning(owning), Some(false)) => owning.owner.conflicted(record),
            _ => {}
        }
        self.take_actions(p);
    }

    fn hear(&mut self, p: usize) {
        let heard = self.processes[p].rumour.take();
        if let (Some(record), Some(owning)) = (heard, self.processes[p].owning_mut()) {
            owning.owner.record_read(record);
            self.take_actions(p);
        }
    }

    fn tell_unknown(&mut self, p: usize) {
        match &mut self.processes[p].stage {
            Stage::TakingOver(takeover) => takeover.swap_unknown(),
            Stage::Owning(owning) => owning.owner.swap_unknown(),
            _ => {}
        }
        self.take_actions(p);
    }

    /// A request reaches a replica's daemon: decide, store, revoke.
    pub(super) fn request(&mut self, r: usize, request: &Request) -> Result<Granted, Refused> {
        let granted = self.replicas[r].decide(request)?;
        if granted.revoke {
            self.revoke_all(r);
        }
        Ok(granted)
    }

    /// The process is gone, and waits for nothing any more.
    pub(super) fn end_process(&mut self, p: usize) {
        self.let_name_go(p);
        self.processes[p].kill();
        self.lose_repair_answer(p);
        self.abandon_all(p);
    }

    pub(super) fn let_name_go(&mut self, p: usize) {
        self.holder.take_if(|holder| *holder == p);
    }

    /// The process lets go of its endpoints. What is in flight may still land.
    pub(super) fn abandon_all(&mut self, p: usize) {
        self.endpoints.iter_mut().filter(|e| e.process == p).for_each(Endpoint::abandon);
    }

    pub(super) fn revoke_all(&mut self, r: usize) {
        self.endpoints.iter_mut().filter(|e| e.replica == r).for_each(Endpoint::revoke);
    }

    /// Carries out what a process's state machine wants.
    pub(super) fn take_actions(&mut self, p: usize) {
        loop {
            let process = &mut self.processes[p];
            match &mut process.stage {
                Stage::TakingOver(takeover) => match takeover.poll() {
                    Some(action) => self.act_for_takeover(p, action),
                    None => return,
                },
                Stage::Owning(owning) => match owning.owner.poll() {
                    Some(action) => self.act_for_owner(p, action),
                    None => return,
                },
                _ => return,
            }
        }
    }
}
