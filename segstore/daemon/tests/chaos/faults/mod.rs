//! Does what the plan says, and undoes it in its time.
//!
//! At most two nodes are in trouble at a time. A node that lost its power comes back without its memory only if every segment has
//! another replica in sync then, which is there; as long as it has no power nobody can tell when its memory went. A node that was drained
//! loses its memory at once, and no other one meanwhile. So of every segment one replica in sync survives all of it, and everything
//! that was acknowledged must be found.

mod hunt;
mod inject;
mod operator;
mod undo;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::ledger::Ledger;
use crate::plan::{Fault, Plan, Step, Story, Whom};
use crate::random::Random;
use crate::segments::{NODES, SEGMENTS};
use crate::watch::Watch;
use hunt::Hunted;
use operator::Drained;
use undo::{Judged, Undo};

/// A fault that cannot come now comes so much later.
const LATER: Duration = Duration::from_millis(200);

/// The faults of a run.
pub(crate) struct Faults {
    began: Instant,
    plan: std::iter::Peekable<Plan>,
    watch: Watch,
    random: Random,
    steps: Vec<(Instant, Step)>,
    undo: Vec<(Instant, Undo)>,
    /// Whether a node may lose its memory.
    judged: (Sender<Judged>, Receiver<Judged>),
    /// What became of a node that was to be drained.
    drained: (Sender<Drained>, Receiver<Drained>),
    /// The node that is being drained, or was: until it is not any more, no other node may lose its memory.
    draining: Option<usize>,
    troubled: [bool; NODES],
    is_parted: bool,
    hunted: Vec<Hunted>,
    /// Since when nothing is in trouble.
    calm_since: Option<Instant>,
    etcd_is_whole_since: Option<Instant>,
    pub(crate) counts: BTreeMap<Fault, u64>,
    /// Nodes that came back with their memory, since no other had what was there.
    pub(crate) spared: u64,
    /// Nodes that were drained, and lost their memory as soon as it was said that they may.
    pub(crate) switched_off: u64,
    /// What was left out, because whom it should have met was in trouble or not there.
    pub(crate) left_out: u64,
}

impl Faults {
    pub(crate) fn new(seed: u64, cluster: &Cluster) -> Self {
        let began = Instant::now();
        Self {
            began,
            plan: Plan::new(seed).peekable(),
            watch: Watch::start((0..NODES).map(|node| cluster.socket(node)).collect()),
            random: Random::new(!seed),
            steps: Vec::new(),
            undo: Vec::new(),
            judged: channel(),
            drained: channel(),
            draining: None,
            troubled: [false; NODES],
            is_parted: false,
            hunted: Vec::new(),
            calm_since: Some(began),
            etcd_is_whole_since: Some(began),
            counts: Fault::ALL.into_iter().map(|fault| (fault, 0)).collect(),
            spared: 0,
            switched_off: 0,
            left_out: 0,
        }
    }

    /// Does and undoes what is due; says what it did.
    pub(crate) fn go_on(&mut self, cluster: &mut Cluster, ledger: &Ledger) -> Vec<String> {
        while let Some(story) = self.plan.next_if(|story| self.began.elapsed() >= story.at) {
            self.begin(story);
        }
        let mut events = self.undo_until(Instant::now(), cluster);
        events.extend(self.hear_of_drained(cluster));
        for step in due(&mut self.steps, Instant::now()) {
            let fault = step.fault;
            if fault == Fault::Drain && !self.may_drain(step.whom, cluster, ledger) {
                // Too many wishes would come to nothing.
                self.steps.push((Instant::now() + LATER, step));
                continue;
            }
            match self.inject(step, cluster, ledger) {
                Some(what) => {
                    *self.counts.entry(fault).or_default() += 1;
                    events.push(format!("{}: {what}", fault.name()));
                }
                // One of each kind comes in any case.
                None if self.counts.get(&fault) == Some(&0) => self.steps.push((Instant::now() + LATER, step)),
                None => self.left_out += 1,
            }
        }
        events.extend(self.hunt(cluster, ledger));
        let is_calm = self.etcd_is_whole_since.is_some() && !self.troubled.contains(&true);
        self.calm_since = self.calm_since.filter(|_| is_calm).or_else(|| is_calm.then(Instant::now));
        events
    }

    /// For how long nothing has been in trouble.
    pub(crate) fn calm(&self) -> Duration {
        self.calm_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Undoes everything; whether all is done.
    pub(crate) fn heal(&mut self, cluster: &mut Cluster) -> (bool, Vec<String>) {
        self.steps.clear();
        self.hunted.clear();
        let far = Instant::now() + Duration::from_secs(3600);
        let mut events = self.undo_until(far, cluster);
        events.extend(self.hear_of_drained(cluster));
        (!self.troubled.contains(&true) && self.draining.is_none(), events)
    }

    fn begin(&mut self, story: Story) {
        let replicas: Vec<_> = (0..SEGMENTS.len()).map(|segment| self.watch.replicas(segment)).collect();
        for step in story.steps {
            let whom = match step.whom {
                Whom::Replica(segment, which) if !replicas[segment].is_empty() => {
                    Whom::Node(replicas[segment][which % replicas[segment].len()])
                }
                whom => whom,
            };
            self.steps.push((self.began + story.at + step.after, Step { whom, ..step }));
        }
    }
}

/// Takes out what is due, in its order.
fn due<T>(all: &mut Vec<(Instant, T)>, now: Instant) -> impl Iterator<Item = T> + use<T> {
    all.sort_by_key(|(at, _)| *at);
    let count = all.partition_point(|(at, _)| *at <= now);
    all.drain(..count).map(|(_, what)| what).collect::<Vec<_>>().into_iter()
}
