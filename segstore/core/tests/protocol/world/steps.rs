//! What may happen next, and how it happens.

use segstore_core::changes::Changes;
use segstore_core::id::{Member, Stamp};
use segstore_core::layout::{Entry, SlotHeader};
use segstore_core::owner::{Action as OwnerAction, BelowMinimum};
use segstore_core::push::Source;
use segstore_core::record::Swap;
use segstore_core::repair::Repair;
use segstore_core::replica::{Granted, Refused, Request};
use segstore_core::rule::{self, Rule};
use segstore_core::slot::{verify_blocks, verify_table};
use segstore_core::takeover::{Action as TakeoverAction, Failure, Unusable};

use super::network::{Endpoint, Write};
use super::process::{DirectoryRequest, Owning, Stage};
use super::replica::Repaired;
use super::{BLOCK, SEGMENT, Violation, World, key, replica_of};

/// One thing that happens. Processes and replicas are named by their numbers, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// A process begins a takeover.
    TakeOver(usize),
    /// The directory serves a process's request, and the process hears of it.
    Directory(usize),
    /// The directory makes a process's change, but the answer is lost.
    ReplyLost(usize),
    /// A process stops waiting for its change, which is still on its way.
    ReplyLate(usize),
    /// A change that its sender no longer waits for reaches the directory.
    LateSwap(usize),
    /// A replica is fenced.
    Fence(usize, usize),
    /// A replica cannot be reached by a fence.
    FenceLost(usize, usize),
    /// The chosen image is loaded.
    Load(usize),
    /// An owner opens an endpoint to a replica.
    Connect(usize, usize),
    /// An owner learns that a replica that it wants to connect to has lost its memory.
    OutOfReach(usize, usize),
    /// The application changes a block and begins a checkpoint.
    Commit(usize, u32),
    /// The application changes the segment's length and begins a checkpoint.
    Resize(usize),
    /// A reader begins: it reads the record.
    Read,
    /// A reader (the first number) asks a process to hold its newest image at a replica.
    Ask(usize, usize, usize),
    /// A reader whose owner does not answer looks at what a replica has.
    LookAt(usize, usize),
    /// A reader takes the next look, or copies the next piece.
    ReaderGoesOn(usize),
    /// A reader's time is up, and it does not know it yet.
    HoldExpires(usize),
    /// The next write of an open endpoint lands.
    Deliver(usize, usize),
    /// The next write of an endpoint that its owner has given up, or died with, lands.
    DeliverLate(usize, usize),
    /// An owner hears that all its writes have landed, or that its endpoint was revoked.
    Complete(usize, usize),
    /// An owner's endpoint breaks. What is in flight may still land.
    Cut(usize, usize),
    /// An owner's endpoint breaks, and it tries to get it back. What is in flight may still land.
    Lose(usize, usize),
    /// An owner that tries to connect to a replica gives it up.
    StopTrying(usize, usize),
    /// An owner gives its attempt up.
    GiveUp(usize),
    /// A process is killed. What is in flight may still land.
    Kill(usize),
    /// A replica's daemon restarts, with its memory.
    Restart(usize),
    /// A replica's node restarts, without its memory.
    LoseMemory(usize),
    /// An owner has a replica repaired.
    Repair(usize, usize),
    /// The repair of a replica goes one step on.
    RepairGoesOn(usize),
    /// An owner hears that a repair has ended.
    Repaired(usize),
}

impl Step {
    /// Whether `process` does this, or it is done to it.
    pub fn is_of(self, process: usize) -> bool {
        match self {
            Self::TakeOver(p) | Self::ReplyLost(p) | Self::ReplyLate(p) | Self::Commit(p, _) => p == process,
            Self::FenceLost(p, _) | Self::Cut(p, _) | Self::GiveUp(p) | Self::Kill(p) | Self::Repair(p, _) => {
                p == process
            }
            Self::DeliverLate(p, _)
            | Self::Resize(p)
            | Self::Ask(_, p, _)
            | Self::Lose(p, _)
            | Self::StopTrying(p, _) => p == process,
            Self::RepairGoesOn(_) | Self::LateSwap(_) | Self::Restart(_) | Self::LoseMemory(_) => false,
            progress => progress.is_progress_of(process),
        }
    }

    /// Whether this is what happens if nothing goes wrong and nothing new begins, and concerns `process`.
    pub fn is_progress_of(self, process: usize) -> bool {
        match self {
            Self::Directory(p) | Self::Load(p) | Self::Repaired(p) => p == process,
            Self::OutOfReach(p, _) => p == process,
            Self::Fence(p, _) | Self::Connect(p, _) | Self::Deliver(p, _) | Self::Complete(p, _) => p == process,
            Self::RepairGoesOn(_) => true,
            _ => false,
        }
    }
}

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
            if replica.repair.is_some() {
                steps.push(Step::RepairGoesOn(r));
            }
            if self.faults.restarts > 0 && self.is_in_use(r) {
                steps.push(Step::Restart(r));
            }
            if self.faults.memory_losses > 0 && self.is_in_use(r) {
                steps.push(Step::LoseMemory(r));
            }
        }
        steps.extend((0..self.late_swaps.len()).map(Step::LateSwap));
        if self.faults.reads > 0 {
            steps.push(Step::Read);
        }
        for (i, reader) in self.readers.iter().enumerate() {
            self.enabled_for_reader(i, reader, &mut steps);
        }
        steps
    }

    fn is_in_use(&self, r: usize) -> bool {
        self.record.record.in_sync.contains(&self.member(r)) || self.replicas[r].repair.is_some()
    }

    fn enabled_for_process(&self, p: usize, steps: &mut Vec<Step>) {
        let process = &self.processes[p];
        match &process.directory {
            Some(DirectoryRequest::Read) => steps.push(Step::Directory(p)),
            Some(DirectoryRequest::Swap(_)) => {
                steps.push(Step::Directory(p));
                if self.faults.lost_replies > 0 {
                    steps.extend([Step::ReplyLost(p), Step::ReplyLate(p)]);
                }
            }
            None => {}
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
            Stage::Owning(owning) if owning.owner.fenced().is_none() => self.enabled_for_owner(p, owning, steps),
            _ => {}
        }
        if self.faults.kills > 0 && matches!(process.stage, Stage::Owning(_) | Stage::TakingOver(_)) {
            steps.push(Step::Kill(p));
        }
    }

    /// A claimant has nothing to start a repair from, unless the rule that says so is left out.
    fn enabled_for_claimant(&self, p: usize, steps: &mut Vec<Step>) {
        if !rule::holds(Rule::RepairAfterTakeover) && self.faults.repairs > 0 && self.early_repair_source(p).is_some() {
            let out = |r: &usize| !self.record.record.in_sync.contains(&self.member(*r));
            steps.extend((0..self.replicas.len()).filter(out).map(|r| Step::Repair(p, r)));
        }
    }

    fn early_repair_source(&self, p: usize) -> Option<(Member, u32, Stamp)> {
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
        if self.faults.repairs > 0 && owning.owner.repair_source().is_some() {
            let out = |r: &usize| {
                let member = self.member(*r);
                !owning.owner.in_sync().contains(&member)
                    && !owning.owner.followers().any(|follower| follower == member)
                    && self.replicas[*r].repair.is_none()
                    && !process.repaired.iter().any(|(_, repaired, _, _)| *repaired == member)
            };
            steps.extend((0..self.replicas.len()).filter(out).map(|r| Step::Repair(p, r)));
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

    /// Lets `step` happen.
    pub fn step(&mut self, step: Step) {
        match step {
            Step::TakeOver(p) => {
                self.processes[p].begin_takeover();
                self.take_actions(p);
            }
            Step::Directory(p) => self.serve_directory(p),
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
                owner.failed(gone.unwrap());
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
                self.processes[p].kill();
                self.endpoints.iter_mut().filter(|e| e.process == p).for_each(|e| e.abandoned = true);
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
            Step::Repair(p, r) => self.begin_repair(p, r),
            Step::RepairGoesOn(r) => self.step_repair(r),
            Step::Repaired(p) => self.join_repaired(p),
        }
        self.endpoints.retain(|endpoint| !endpoint.is_over());
    }

    // ---- the directory ----

    fn serve_directory(&mut self, p: usize) {
        let Some(request) = self.processes[p].directory.take() else { return };
        let outcome = match request {
            DirectoryRequest::Read => None,
            DirectoryRequest::Swap(swap) => Some(self.record.apply(swap)),
        };
        let record = self.record.clone();
        match (&mut self.processes[p].stage, outcome) {
            (Stage::TakingOver(takeover), None) => takeover.record_read(record),
            (Stage::TakingOver(takeover), Some(Ok(()))) => takeover.swapped(record.version),
            (Stage::TakingOver(takeover), Some(Err(_))) => takeover.conflicted(record),
            (Stage::Owning(owning), None) => owning.owner.record_read(record),
            (Stage::Owning(owning), Some(Ok(()))) => owning.owner.swapped(record.version),
            (Stage::Owning(owning), Some(Err(_))) => owning.owner.conflicted(record),
            _ => {}
        }
        self.take_actions(p);
    }

    fn tell_unknown(&mut self, p: usize) {
        match &mut self.processes[p].stage {
            Stage::TakingOver(takeover) => takeover.swap_unknown(),
            Stage::Owning(owning) => owning.owner.swap_unknown(),
            _ => {}
        }
        self.take_actions(p);
    }

    // ---- takeover ----

    fn fence(&mut self, p: usize, r: usize) {
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

    fn fence_lost(&mut self, p: usize, r: usize) {
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

    /// A request reaches a replica's daemon: decide, store, revoke.
    fn request(&mut self, r: usize, request: &Request) -> Result<Granted, Refused> {
        let granted = self.replicas[r].decide(request)?;
        if granted.revoke {
            self.revoke_all(r);
        }
        Ok(granted)
    }

    fn revoke_all(&mut self, r: usize) {
        self.endpoints.iter_mut().filter(|e| e.replica == r).for_each(Endpoint::revoke);
    }

    fn load(&mut self, p: usize) {
        let Some((header, sources)) = self.processes[p].load.take() else { return };
        let loaded = self.read_image(&header, &sources);
        let process = &mut self.processes[p];
        if let Stage::TakingOver(takeover) = &mut process.stage {
            match loaded {
                Ok((entries, bytes, damaged)) => {
                    damaged.into_iter().for_each(|(member, why)| takeover.damaged(member, &why));
                    let epoch = header.image.epoch;
                    let changes = Changes::of_image(key(), self.geometry, header.length, entries, epoch);
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
    ) -> Result<(Vec<Entry>, Vec<u8>, Vec<(Member, Unusable)>), Vec<(Member, Unusable)>> {
        let mut unusable = Vec::new();
        let count = self.geometry.blocks_of(header.length);
        for &(member, slot) in sources {
            let replica = &self.replicas[replica_of(&member)];
            if replica.member() != member {
                unusable.push((member, Unusable::OutOfReach));
                continue;
            }
            let entries = replica.entries(&self.geometry, slot, 0, count);
            let bytes = replica.blocks(&self.geometry, slot, 0, count);
            let block = |i: u32| &bytes[i as usize * BLOCK..(i as usize + 1) * BLOCK];
            match verify_table(header, &entries).and_then(|()| verify_blocks(SEGMENT, &entries, block)) {
                Ok(()) => return Ok((entries, bytes.to_vec(), unusable)),
                Err(why) => unusable.push((member, Unusable::Damaged(header.image, why))),
            }
        }
        Err(unusable)
    }

    // ---- the owner ----

    fn connect(&mut self, p: usize, r: usize) {
        let member = self.member(r);
        let Some(owning) = self.processes[p].owning() else { return };
        let asker = owning.owner.ownership();
        let answer = self.request(r, &Request { segment: SEGMENT, incarnation: member.incarnation, asker });
        let owner = &mut self.processes[p].owning_mut().unwrap().owner;
        match answer {
            Ok(_) => owner.connected(member),
            Err(why) => owner.refused(member, &why),
        }
        if answer.is_ok() {
            self.endpoints.push(Endpoint::new(p, r, member));
        }
        self.take_actions(p);
    }

    fn commit(&mut self, p: usize, block: Option<u32>) {
        let process = &mut self.processes[p];
        process.commits -= 1;
        let value = (p as u8 + 1) * 16 + process.commits;
        let owning = process.owning_mut().unwrap();
        let term = owning.owner.ownership().term;
        let epoch = match block {
            Some(block) => owning.commit(block, value),
            None => owning.resize(),
        };
        if let Some(epoch) = epoch {
            let stamp = Stamp { term, epoch };
            let image = self.journal.attempted(stamp, owning.built_on, owning.content());
            owning.built_on = Some(image);
            owning.attempt = Some(image);
        }
        self.take_actions(p);
    }

    fn endpoint(&self, p: usize, r: usize, wanted: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        self.endpoints.iter().position(|e| e.process == p && e.replica == r && wanted(e))
    }

    fn deliver(&mut self, p: usize, r: usize, which: impl Fn(&Endpoint) -> bool) {
        let Some(at) = self.endpoint(p, r, which) else { return };
        let is_open = self.endpoints[at].is_open();
        let Some(write) = self.endpoints[at].in_flight.pop_front() else { return };
        let memory = self.processes[p].owning().filter(|_| is_open).map(|owning| &owning.memory);
        let sent = write.source.and_then(|offset| memory?.get(offset..offset + write.bytes.len()));
        self.replicas[r].write(&self.geometry, write.at, sent.unwrap_or(&write.bytes));
    }

    /// Of the next write from `p` to `r`, only the bytes in `part` land.
    pub fn tear(&mut self, p: usize, r: usize, part: std::ops::Range<usize>) {
        let Some(at) = self.endpoint(p, r, Endpoint::is_open) else { return };
        let Some(write) = self.endpoints[at].in_flight.pop_front() else { return };
        self.replicas[r].write(&self.geometry, write.at + part.start, &write.bytes[part]);
    }

    /// How many bytes each write has that is in flight from `p` to `r`.
    pub fn in_flight(&self, p: usize, r: usize) -> Vec<usize> {
        let endpoints = self.endpoints.iter().filter(|e| e.process == p && e.replica == r);
        endpoints.flat_map(|e| e.in_flight.iter().map(|write| write.bytes.len())).collect()
    }

    fn complete(&mut self, p: usize, r: usize) {
        let Some(at) = self.endpoint(p, r, Endpoint::is_open) else { return };
        if self.endpoints[at].revoked {
            return self.disconnect(p, r);
        }
        let member = self.endpoints[at].member;
        if let Some(epoch) = self.endpoints[at].awaited.take() {
            self.processes[p].owning_mut().unwrap().owner.completed(member, epoch);
        }
        self.take_actions(p);
    }

    fn abandon(&mut self, p: usize, r: usize) -> Option<Member> {
        let at = self.endpoint(p, r, Endpoint::is_open)?;
        self.endpoints[at].abandoned = true;
        Some(self.endpoints[at].member)
    }

    fn lose(&mut self, p: usize, r: usize) {
        let Some(member) = self.abandon(p, r) else { return };
        if let Some(owning) = self.processes[p].owning_mut() {
            owning.owner.lost(member);
        }
        self.take_actions(p);
    }

    fn disconnect(&mut self, p: usize, r: usize) {
        let Some(member) = self.abandon(p, r) else { return };
        if let Some(owning) = self.processes[p].owning_mut() {
            owning.owner.failed(member);
        }
        self.take_actions(p);
    }

    // ---- repair ----

    fn begin_repair(&mut self, p: usize, r: usize) {
        self.faults.repairs -= 1;
        let (source, asker) = match &self.processes[p].stage {
            Stage::Owning(owning) => (owning.owner.repair_source(), owning.owner.ownership()),
            Stage::TakingOver(takeover) => {
                let record = &takeover.claimed().unwrap().record;
                let asker = segstore_core::layout::Ownership { term: record.term, owner: record.owner };
                (self.early_repair_source(p), asker)
            }
            _ => return,
        };
        let Some((source, slot, base)) = source else { return };
        let request = Request { segment: SEGMENT, incarnation: self.replicas[r].incarnation(), asker };
        if self.request(r, &request).is_ok() {
            let repair = Repair::new(self.geometry, base, 1);
            self.replicas[r].begin_repair((p, asker), (source, slot), repair);
        }
    }

    fn step_repair(&mut self, r: usize) {
        let Some(job) = &self.replicas[r].repair else { return };
        let (process, source) = (job.process, self.replicas[replica_of(&job.source)].clone());
        let replica = &mut self.replicas[r];
        if let Repaired::Finished { by, base, closed } = replica.step_repair(&self.geometry, &source) {
            let member = replica.member();
            if !matches!(self.processes[process].stage, Stage::Killed | Stage::Failed(_)) {
                self.processes[process].repaired.push((by, member, base, closed));
            }
        }
    }

    fn join_repaired(&mut self, p: usize) {
        let (by, member, base, closed) = self.processes[p].repaired.remove(0);
        let slots = self.geometry.slots();
        self.processes[p].owning_mut().unwrap().owner.repaired(by, member, slots, base, closed);
        self.take_actions(p);
    }

    // ---- actions ----

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

    fn act_for_takeover(&mut self, p: usize, action: TakeoverAction) {
        let process = &mut self.processes[p];
        match action {
            TakeoverAction::ReadRecord => process.directory = Some(DirectoryRequest::Read),
            TakeoverAction::Swap(swap) => process.directory = Some(DirectoryRequest::Swap(swap)),
            TakeoverAction::Fence { member, request } => process.fences.push((member, request)),
            TakeoverAction::Load { header, sources } => process.load = Some((header, sources)),
            TakeoverAction::Done(start) => {
                let (changes, memory) = process.loaded.take().unwrap();
                let image = self.journal.took_over(start.ownership.term, start.loaded, &memory);
                let owner = super::process::owner(p, start, (self.policy, self.collocated));
                process.stage = Stage::Owning(Box::new(Owning::new(owner, changes, memory, image)));
            }
            TakeoverAction::Failed(failure) => {
                self.judge(&failure);
                let commits = self.processes[p].commits;
                let failed = Stage::Failed(failure.to_string());
                self.processes[p] = super::Process { stage: failed, ..super::Process::new(p, commits) };
            }
        }
    }

    /// Nothing damages memory here: a takeover that finds no good copy in reach was let down by the protocol.
    fn judge(&mut self, failure: &Failure) {
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

    fn act_for_owner(&mut self, p: usize, action: OwnerAction) {
        match action {
            OwnerAction::Push { member, epoch, target } => {
                let geometry = self.geometry;
                let owning = self.processes[p].owning().unwrap();
                let mut writes = Vec::new();
                owning.checkpoint().plan(&owning.changes, target, &mut |at: u64, source: Source<'_>| {
                    let (bytes, source) = match source {
                        Source::Bytes(bytes) => (bytes.to_vec(), None),
                        Source::Working { offset, length } => {
                            let (offset, length) = (offset as usize, length as usize);
                            (owning.memory[offset..offset + length].to_vec(), Some(offset))
                        }
                    };
                    debug_assert!(at >= geometry.slot(0));
                    writes.push(Write { at: at as usize, bytes, source });
                });
                if let Some(at) = self.endpoint(p, replica_of(&member), |e| e.is_open() && e.member == member) {
                    self.endpoints[at].awaited = Some(epoch);
                    if !self.endpoints[at].revoked {
                        self.endpoints[at].in_flight.extend(writes);
                    }
                }
            }
            OwnerAction::Swap(swap) => self.processes[p].directory = Some(DirectoryRequest::Swap(swap)),
            OwnerAction::ReadRecord => self.processes[p].directory = Some(DirectoryRequest::Read),
            OwnerAction::Committed { in_sync, elsewhere, .. } => {
                let own = |member: &&Member| self.collocated && replica_of(member) == p;
                let known = self.processes[p].owning().unwrap().owner.in_sync();
                assert_eq!((known.len(), known.len() - known.iter().filter(own).count()), (in_sync, elsewhere));
                if self.policy.below == BelowMinimum::Stop && elsewhere < self.policy.minimum {
                    self.journal.broken(Violation::TooFew);
                }
                let image = self.processes[p].owning_mut().unwrap().attempt.take();
                self.journal.acknowledge(image.unwrap());
            }
            OwnerAction::Removed(member) => {
                let to_it = |e: &&mut Endpoint| e.process == p && e.member == member;
                self.endpoints.iter_mut().filter(to_it).for_each(|e| e.abandoned = true);
            }
            OwnerAction::Fenced(_) => {
                self.endpoints.iter_mut().filter(|e| e.process == p).for_each(|e| e.abandoned = true);
            }
            OwnerAction::Added(_) => {}
        }
    }
}
