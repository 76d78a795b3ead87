//! Repairs, as the owner orders them and hears of them.

use segstore_core::layout::Ownership;
use segstore_core::repair::Repair;
use segstore_core::replica::Request;

use super::process::Stage;
use super::replica::Repaired;
use super::{SEGMENT, World, replica_of};

impl World {
    pub(super) fn begin_repair(&mut self, p: usize, r: usize) {
        self.faults.repairs -= 1;
        let (source, asker) = match &self.processes[p].stage {
            Stage::Owning(owning) => (owning.owner.repair_source(), owning.owner.ownership()),
            Stage::TakingOver(takeover) => {
                let record = &takeover.claimed().unwrap().record;
                let asker = Ownership { term: record.term, owner: record.owner };
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

    pub(super) fn step_repair(&mut self, r: usize) {
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

    pub(super) fn join_repaired(&mut self, p: usize) {
        let (by, member, base, closed) = self.processes[p].repaired.remove(0);
        let slots = self.geometry.slots();
        self.processes[p].owning_mut().unwrap().owner.repaired(by, member, slots, base, closed);
        self.take_actions(p);
    }
}
