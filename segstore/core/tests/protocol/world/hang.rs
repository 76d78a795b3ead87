//! Who waits for something that never comes.

use segstore_core::owner::Blocked;

use super::process::{Owning, Stage};
use super::{Step, World};

impl World {
    /// A process that waits, though all that was under way has come and nothing goes wrong any more, and what it says it waits for.
    pub fn hang(&self) -> Option<(usize, Option<Blocked>)> {
        let mut waiting = self.processes.iter().enumerate().filter_map(|(p, process)| match &process.stage {
            Stage::TakingOver(_) => Some((p, None)),
            Stage::Owning(owning) => Some((p, Some(unjustified(owning)?))),
            _ => None,
        });
        let something_comes = |p: usize| self.enabled().into_iter().any(|step| comes_to(p, step));
        waiting.find(|(p, _)| !something_comes(*p))
    }
}

/// What an owner waits for, if it is not what only an operator, a reader or a replica that comes back can give.
fn unjustified(owning: &Owning) -> Option<Blocked> {
    let owner = &owning.owner;
    let blocked = owner.blocked().filter(|_| owner.end().is_none())?;
    let is_justified = match &blocked {
        Blocked::Needed(members) | Blocked::Connecting(members) => members.iter().all(|m| owner.in_sync().contains(m)),
        Blocked::BelowMinimum { .. } | Blocked::Held(_) => true,
        Blocked::Replicas(_) | Blocked::Removal(_) => false,
    };
    (!is_justified).then_some(blocked)
}

/// Whether `step` is of something under way that concerns `p`. A replica that is connected again is not: it may stay away for good.
fn comes_to(p: usize, step: Step) -> bool {
    step.is_progress_of(p) && !matches!(step, Step::Connect(..))
}
