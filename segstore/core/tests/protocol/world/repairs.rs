//! Replicas that are made, filled, levelled and forgotten by the daemons, because an owner asks for it, or nobody needs them.

use segstore_core::forget::{Forgettable, Local};
use segstore_core::id::{Member, Stamp};
use segstore_core::level::Level;
use segstore_core::repair::Repair;
use segstore_core::replica::{Refused, Request};

use super::process::{Owning, Process, Stage};
use super::work::{Fill, Job, Progress, Work, step_level};
use super::{SEGMENT, Violation, World, replica_of};

/// A request for a further replica, on its way to the node that is to make it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RepairRequest {
    /// Who asked, if it still waits for the answer.
    asker: Option<usize>,
    target: usize,
    replaced: Forgettable,
    /// None: nothing can be copied from anywhere, and its owner is to push everything.
    source: Option<(Member, u32, Stamp)>,
}

impl World {
    /// An owner asks, by its daemon, which looks at what the target keeps, and then at the record.
    pub(super) fn ask_for_repair(&mut self, p: usize, r: usize) {
        self.faults.repairs -= 1;
        let (source, by, followers) = match &self.processes[p].stage {
            Stage::Owning(owning) => {
                (owning.owner.repair_sources().next(), owning.owner.ownership(), owning.owner.followers().collect())
            }
            Stage::TakingOver(takeover) => {
                (self.early_repair_source(p), takeover.claimed().unwrap().ownership(), vec![])
            }
            _ => return,
        };
        let kept = Vec::from_iter(self.replicas[r].is_kept.then(|| self.member(r)));
        match Forgettable::of_owner(by, &followers, &kept, &self.record.record) {
            Ok(replaced) => {
                self.repair_requests.push(RepairRequest { asker: Some(p), target: r, replaced, source });
            }
            Err(why) => self.refuse_repair(p, source, &why),
        }
    }

    fn refuse_repair(&mut self, p: usize, source: Option<(Member, u32, Stamp)>, why: &Refused) {
        if let Some(owning) = self.processes[p].owning_mut() {
            // Where there is no source, those who do not answer stand for it.
            let whom = source.map(|(member, ..)| member).or_else(|| owning.owner.in_sync().first().copied());
            whom.into_iter().for_each(|member| owning.owner.refused(member, why));
        }
        self.take_actions(p);
    }

    /// Whether `p` waits for the answer to such a request: it asks for one replica at a time.
    pub(super) fn is_repairing(&self, p: usize) -> bool {
        let fills = self.replicas.iter().flat_map(|replica| &replica.work);
        let asks = |work: &Work| matches!(&work.job, Job::Fill(fill) if fill.asker == Some(p));
        let on_its_way = self.repair_requests.iter().any(|request| request.asker == Some(p));
        on_its_way || fills.into_iter().any(asks) || !self.processes[p].repaired.is_empty()
    }

    /// The connection breaks over which the answer would come. The request, or what it began, goes on.
    pub(super) fn lose_repair_answer(&mut self, p: usize) {
        let requests = self.repair_requests.iter_mut().map(|request| &mut request.asker);
        let fills = self.replicas.iter_mut().flat_map(|replica| &mut replica.work);
        let fills = fills.filter_map(|work| match &mut work.job {
            Job::Fill(fill) => Some(&mut fill.asker),
            Job::Level(_) => None,
        });
        requests.chain(fills).filter(|asker| **asker == Some(p)).for_each(|asker| *asker = None);
        self.processes[p].repaired.clear();
    }

    /// A request for a replica reaches its node: what it names is forgotten there, and the replica is made.
    pub(super) fn serve_repair(&mut self, i: usize) {
        let RepairRequest { asker, target, replaced, source } = self.repair_requests.remove(i);
        let former = self.replicas[target].is_kept.then(|| self.replicas[target].clone());
        match self.forget(target, &replaced) {
            Err(why) => asker.into_iter().for_each(|p| self.refuse_repair(p, source, &why)),
            Ok(()) if self.replicas[target].is_kept => {} // There is no room.
            Ok(()) => {
                let replica = &mut self.replicas[target];
                let turn = replica.make(replaced.by);
                let Some((source, slot, base)) = source else {
                    let made = (replaced.by, self.member(target), None, None);
                    return asker.into_iter().for_each(|p| self.processes[p].repaired.push(made));
                };
                let repair = Repair::new(self.geometry, base, 1);
                let fill = Fill::new(asker, replaced.by, (source, slot), repair, former);
                replica.work.push(Work { turn, job: Job::Fill(Box::new(fill)) });
            }
        }
    }

    pub(super) fn forget(&mut self, r: usize, forgettable: &Forgettable) -> Result<(), Refused> {
        if self.replicas[r].is_covered(forgettable)? {
            let member = self.member(r);
            self.forgotten.push(member);
            self.check_forgotten();
            self.replicas[r].lose_memory(&self.geometry.clone());
            self.revoke_all(r);
        }
        Ok(())
    }

    /// Who was forgotten is in sync nowhere, now or later.
    pub(super) fn check_forgotten(&mut self) {
        if self.forgotten.iter().any(|member| self.record.record.in_sync.contains(member)) {
            self.journal.broken(Violation::ForgottenInSync);
        }
    }

    /// The daemon of `r` does the next step of its work `i`.
    pub(super) fn go_on_with(&mut self, r: usize, i: usize) {
        let mut work = self.replicas[r].work.remove(i);
        let geometry = self.geometry;
        let progress = match &mut work.job {
            Job::Level(level) => step_level(level, &mut self.replicas[r], &geometry),
            Job::Fill(fill) => {
                let source = self.replicas[replica_of(&fill.source)].clone();
                fill.step(&mut self.replicas[r], &geometry, &source)
            }
        };
        match (progress, &work.job) {
            (Progress::Continues, _) => self.replicas[r].work.insert(i, work),
            (Progress::Filled { base, closed }, Job::Fill(fill)) => {
                let member = self.member(r);
                let repaired = (fill.by, member, Some(base), closed);
                fill.asker.into_iter().for_each(|p| self.processes[p].repaired.push(repaired));
            }
            (Progress::Failed, Job::Fill(fill)) => {
                let failed = Forgettable { by: fill.by, members: vec![self.member(r)] };
                let _ = self.forget(r, &failed);
            }
            _ => {}
        }
    }

    pub(super) fn copy_again(&mut self, r: usize, i: usize) {
        if let Job::Fill(fill) = &mut self.replicas[r].work[i].job {
            fill.copy_again();
        }
    }

    pub(super) fn join_repaired(&mut self, p: usize) {
        let (by, member, base, closed) = self.processes[p].repaired.remove(0);
        let slots = self.geometry.slots();
        let owner = &mut self.processes[p].owning_mut().unwrap().owner;
        match base {
            Some(base) => owner.repaired(by, member, slots, base, closed),
            None => owner.made(by, member, slots),
        };
        self.take_actions(p);
    }

    /// An owner lets go of the segment, and has its replicas level their slots.
    pub(super) fn release(&mut self, p: usize) {
        self.faults.releases -= 1;
        let owning = self.processes[p].owning().unwrap();
        let owner = &owning.owner;
        if owner.ownership() == self.record.ownership() {
            self.journal.let_go(owning.built_on);
        }
        let (asker, followers) = (owner.ownership(), owner.followers().collect::<Vec<_>>());
        self.end_process(p);
        let request = |member: Member| {
            (replica_of(&member), Request { segment: SEGMENT, incarnation: member.incarnation, asker })
        };
        self.level_requests.extend(followers.into_iter().map(request));
    }

    pub(super) fn serve_level(&mut self, i: usize) {
        let (r, request) = self.level_requests.remove(i);
        if let Ok(granted) = self.request(r, &request) {
            let level = Level::new(&self.replicas[r].views(&self.geometry), 1);
            self.replicas[r].work.push(Work { turn: granted.turn, job: Job::Level(Box::new(level)) });
        }
    }

    /// The daemon of `r` sees that nobody has needed its replica for long.
    pub(super) fn look_for_orphan(&mut self, r: usize) {
        self.faults.orphans -= 1;
        self.orphans.extend(self.orphan(r).map(|orphan| (r, orphan)));
    }

    /// What nobody has needed for so long that nothing which concerns it is under way.
    pub(super) fn orphan(&self, r: usize) -> Option<Forgettable> {
        let (member, replica) = (self.member(r), &self.replicas[r]);
        // The worst: another owner has come to stay.
        let local = if self.local == Some(r) { Local::Kept { is_held: true } } else { Local::None };
        let is_quiet = replica.is_kept && replica.work.is_empty() && !self.may_be_added(member);
        let orphan = Forgettable::orphan(member, replica.remembered(), &self.record.record, local);
        orphan.filter(|_| is_quiet)
    }

    fn may_be_added(&self, member: Member) -> bool {
        let owns = |owning: &&Owning| owning.owner.ownership() == self.record.ownership();
        let mut owners = self.processes.iter().filter_map(Process::owning).filter(owns);
        let mut filled = self.processes.iter().flat_map(|process| &process.repaired);
        owners.any(|owning| owning.owner.follows(member))
            || filled.any(|(_, repaired, _, _)| *repaired == member)
            || self.late_swaps.iter().any(|swap| swap.new.in_sync.contains(&member))
    }

    pub(super) fn forget_orphan(&mut self, i: usize) {
        let (r, orphan) = self.orphans.remove(i);
        let _ = self.forget(r, &orphan);
    }
}
