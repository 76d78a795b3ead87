//! Segments whose owners die, one after the other: an application that crashes again and again.

use std::time::{Duration, Instant};

use super::Faults;
use crate::cluster::Cluster;
use crate::ledger::Ledger;
use crate::plan::Fault;
use crate::random::Random;
use crate::segments::SEGMENTS;

/// Half of them die as soon as they come. How long the others have: some checkpoints, of which the last may be cut off in its middle.
const LIVE_MILLIS: u64 = 60;

/// A segment whose owners die, and until when.
pub(super) struct Hunted {
    segment: usize,
    until: Instant,
    /// Whose turn it is, and when.
    next: Option<(String, Instant)>,
}

impl Hunted {
    pub(super) fn new(segment: usize, lasts: Duration) -> Self {
        Self { segment, until: Instant::now() + lasts, next: None }
    }

    /// Whether this owner's time has come.
    fn is_due(&mut self, owner: &str, random: &mut Random) -> bool {
        let next = self.next.take().filter(|(next, _)| next == owner);
        let (_, at) = self.next.insert(next.unwrap_or_else(|| {
            let lives = if random.below(2) == 0 { Duration::ZERO } else { random.millis(0..LIVE_MILLIS) };
            (owner.to_owned(), Instant::now() + lives)
        }));
        Instant::now() >= *at
    }
}

impl Faults {
    /// Kills whoever has come to own what is hunted.
    pub(super) fn hunt(&mut self, cluster: &mut Cluster, ledger: &Ledger) -> Vec<String> {
        self.hunted.retain(|hunted| Instant::now() < hunted.until);
        let mut events = Vec::new();
        for hunted in &mut self.hunted {
            let owner = ledger.owner(SEGMENTS[hunted.segment].name).filter(|owner| cluster.node_of(owner).is_some());
            if let Some(owner) = owner.filter(|owner| hunted.is_due(owner, &mut self.random)) {
                cluster.kill_application(owner);
                *self.counts.entry(Fault::Application).or_default() += 1;
                events.push(format!("{}: {owner}, as others before", Fault::Application.name()));
            }
        }
        events
    }
}
