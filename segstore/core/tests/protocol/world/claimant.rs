//! A process that takes over: it fences, loads, and hears what came of it.

use segstore_core::changes::Changes;
use segstore_core::id::Member;
use segstore_core::layout::{Entry, SlotHeader};
use segstore_core::replica::Request;
use segstore_core::rule::{self, Rule};
use segstore_core::slot::{verify_blocks, verify_table};
use segstore_core::takeover::{Action, Failure, Unusable};

use super::process::{self, DirectoryRequest, Owning, Process, Stage};
use super::{BLOCK, SEGMENT, Violation, World, replica_of};

impl World {
    pub(super) fn fence(&mut self, p: usize, r: usize) {
        let Some((member, request)) = self.take_fence(p, r) else { return };
        let answer = self.request(r, &request).map(|_| self.replicas[r].views(&self.geometry));
        if let Stage::TakingOver(takeover) = &mut self.processes[p].stage {
            match answer {
                Ok(views) => takeover.fenced(member, views),
                Err(why) => takeover.not_fenced(member, why.into()),
            }
        }
        self.take_actions(p);
    }

    pub(super) fn fence_lost(&mut self, p: usize, r: usize) {
        self.faults.partitions -= 1;
        let Some((member, _)) = self.take_fence(p, r) else { return };
        let views = self.replicas[r].views(&self.geometry);
        if let Stage::TakingOver(takeover) = &mut self.processes[p].stage {
            if rule::holds(Rule::ReadOnlyFenced) {
                takeover.not_fenced(member, Unusable::OutOfReach);
            } else {
                takeover.fenced(member, views);
            }
        }
        self.take_actions(p);
    }

    fn take_fence(&mut self, p: usize, r: usize) -> Option<(Member, Request)> {
        let fences = &mut self.processes[p].fences;
        let at = fences.iter().position(|(member, _)| replica_of(member) == r)?;
        Some(fences.remove(at))
    }

    pub(super) fn load(&mut self, p: usize) {
        let Some((header, sources)) = self.processes[p].load.take() else { return };
        let loaded = self.read_image(&header, &sources);
        let process = &mut self.processes[p];
        if let Stage::TakingOver(takeover) = &mut process.stage {
            match loaded {
                Ok((entries, bytes, damaged)) => {
                    damaged.into_iter().for_each(|(member, slot, why)| takeover.damaged(member, slot, &why));
                    let changes = Changes::of_image(self.geometry, &header, entries);
                    process.loaded = Some((changes, bytes));
                    takeover.loaded();
                }
                Err(unusable) => takeover.unreadable(unusable),
            }
        }
        self.take_actions(p);
    }

    #[allow(clippy::type_complexity, reason = "entries, bytes and what was wrong elsewhere, or only that")]
    pub fn read_image(
        &self,
        header: &SlotHeader,
        sources: &[(Member, u32)],
    ) -> Result<(Vec<Entry>, Vec<u8>, Vec<(Member, u32, Unusable)>), Vec<(Member, Unusable)>> {
        let mut unusable = Vec::new();
        let count = self.geometry.blocks_of(header.length);
        for &(member, slot) in sources {
            let replica = &self.replicas[replica_of(&member)];
            if replica.member() != member {
                unusable.push((member, slot, Unusable::OutOfReach));
                continue;
            }
            let entries = replica.entries(&self.geometry, slot, 0, count);
            let bytes = replica.blocks(&self.geometry, slot, 0, count);
            let block = |i: u32| &bytes[i as usize * BLOCK..(i as usize + 1) * BLOCK];
            match verify_table(header, &entries).and_then(|()| verify_blocks(SEGMENT, &entries, block)) {
                Ok(()) => return Ok((entries, bytes.to_vec(), unusable)),
                Err(why) => unusable.push((member, slot, Unusable::Damaged(header.image, why))),
            }
        }
        Err(unusable.into_iter().map(|(member, _, why)| (member, why)).collect())
    }

    pub(super) fn act_for_takeover(&mut self, p: usize, action: Action) {
        let process = &mut self.processes[p];
        match action {
            Action::ReadRecord => process.directory = Some(DirectoryRequest::Read),
            Action::Swap(swap) => {
                let claims = swap.new.owner != swap.expected.record.owner;
                if process.is_caretaker && claims && self.holder.is_some() {
                    return self.fail(p, "somebody holds its name".into());
                }
                process.directory = Some(DirectoryRequest::Swap(swap));
            }
            Action::Fence { member, request } => process.fences.push((member, request)),
            Action::Load { header, mut sources } => {
                let local =
                    self.local.filter(|_| self.record.record.in_sync.iter().all(|m| Some(replica_of(m)) != self.local));
                if let (Some(r), Stage::TakingOver(takeover)) = (local, &process.stage) {
                    let slot = takeover.local_source(&self.replicas[r].views(&self.geometry));
                    sources.splice(0..0, slot.map(|slot| (self.replicas[r].member(), slot)));
                }
                process.load = Some((header, sources));
            }
            Action::Done(start) => {
                let (changes, memory) = process.loaded.take().unwrap();
                let image = self.journal.took_over(start.ownership.term, start.loaded, &memory);
                let owner = process::owner(p, start, (self.policy, self.collocated));
                process.stage = Stage::Owning(Box::new(Owning::new(owner, changes, memory, image)));
                self.take_in_local(p);
            }
            Action::Failed(failure) => {
                self.judge(p, &failure);
                self.let_name_go(p);
                self.fail(p, failure.to_string());
            }
        }
    }

    fn fail(&mut self, p: usize, why: String) {
        let Process { commits, is_caretaker, .. } = self.processes[p];
        self.processes[p] = Process { stage: Stage::Failed(why), is_caretaker, ..Process::new(p, commits) };
    }

    /// The replica beside the new owner is fenced, looked at, and taken in.
    fn take_in_local(&mut self, p: usize) {
        let Some(r) = self.local else { return };
        let asker = self.processes[p].owning().unwrap().owner.ownership();
        let request = Request { segment: SEGMENT, incarnation: self.replicas[r].incarnation(), asker };
        if self.request(r, &request).is_ok() {
            let (member, slots) = (self.member(r), self.replicas[r].views(&self.geometry));
            self.processes[p].owning_mut().unwrap().owner.add_local_as_found(member, &slots);
        }
    }

    /// Nothing damages memory here: a takeover that finds no good copy in reach was let down by the protocol.
    fn judge(&mut self, p: usize, failure: &Failure) {
        if matches!(failure, Failure::Overtaken(by) if by.owner.is_caretaker()) && self.holder == Some(p) {
            self.journal.broken(Violation::ShutOut);
        }
        let let_down = match failure {
            Failure::NoGoodCopy { replicas, .. } => {
                replicas.iter().all(|(_, why)| matches!(why, Unusable::Damaged(..)))
            }
            Failure::NoneInReach(members) if members.is_empty() => true,
            Failure::NoneInReach(members) => members.iter().any(|(_, why)| *why == Unusable::NoImage),
            Failure::Hidden { .. } | Failure::TermsUsedUp(_) => true,
            Failure::Overtaken(_) | Failure::DirectoryWentBack { .. } => false,
        };
        if let_down {
            self.journal.broken(Violation::Unreadable);
        }
    }
}
