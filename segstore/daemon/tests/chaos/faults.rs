//! Does what the plan says, and undoes it in its time.
//!
//! At most two nodes are in trouble at a time. A node that lost its power comes back without its memory only if every segment has
//! another replica in sync then, which is there; as long as it has no power nobody can tell when its memory went. So of every segment
//! one replica in sync survives all of it, and everything that was acknowledged must be found.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::cluster::{Cluster, MEMBERS};
use crate::etcd_server::QUICK;
use crate::ledger::Ledger;
use crate::plan::{Fault, Plan, Step, Story, Whom};
use crate::random::Random;
use crate::segments::{NODES, SEGMENTS, Spec};
use crate::watch::{Watch, dispense_with};

/// How many nodes are in trouble at most.
const TROUBLED: usize = 2;
/// How long etcd is left alone after it has had its members back.
const ETCD_RESTS: Duration = Duration::from_secs(3);

/// How long at most it is looked whether a node may lose its memory.
const JUDGEMENT: Duration = Duration::from_secs(3);

/// A node, and why it may not lose its memory.
type Judged = (usize, Result<(), String>);

/// What ends a fault.
enum Undo {
    Start(usize),
    PowerOn(usize),
    Plug(usize),
    Unmute(usize),
    Join(usize, usize),
    Continue(String),
    ContinueDaemon(usize),
    ContinueNode(usize),
    Boot(Vec<usize>),
}

pub(crate) struct Faults {
    began: Instant,
    plan: std::iter::Peekable<Plan>,
    watch: Watch,
    random: Random,
    steps: Vec<(Instant, Step)>,
    undo: Vec<(Instant, Undo)>,
    /// Whether a node may lose its memory.
    judged: (Sender<Judged>, Receiver<Judged>),
    troubled: [bool; NODES],
    is_parted: bool,
    /// Segments whose owners are killed as soon as they come, and until when.
    hunted: Vec<(Instant, usize)>,
    /// Since when nothing is in trouble.
    calm_since: Option<Instant>,
    etcd_is_whole_since: Option<Instant>,
    pub(crate) counts: BTreeMap<Fault, u64>,
    /// Nodes that came back with their memory, since no other had what was there.
    pub(crate) spared: u64,
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
            troubled: [false; NODES],
            is_parted: false,
            hunted: Vec::new(),
            calm_since: Some(began),
            etcd_is_whole_since: Some(began),
            counts: Fault::ALL.into_iter().map(|fault| (fault, 0)).collect(),
            spared: 0,
            left_out: 0,
        }
    }

    /// Does and undoes what is due; says what it did.
    pub(crate) fn go_on(&mut self, cluster: &mut Cluster, ledger: &Ledger) -> Vec<String> {
        while let Some(story) = self.plan.next_if(|story| self.began.elapsed() >= story.at) {
            self.begin(story);
        }
        let mut events = self.undo_until(Instant::now(), cluster);
        for step in due(&mut self.steps, Instant::now()) {
            let fault = step.fault;
            match self.inject(step, cluster, ledger) {
                Some(what) => {
                    *self.counts.entry(fault).or_default() += 1;
                    events.push(format!("{}: {what}", fault.name()));
                }
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
        let events = self.undo_until(far, cluster);
        (!self.troubled.contains(&true), events)
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

    // ---- what is done ----

    /// Does it, unless whom it should meet is in trouble or not there; says what it did.
    fn inject(&mut self, step: Step, cluster: &mut Cluster, ledger: &Ledger) -> Option<String> {
        let Step { fault, whom, lasts, .. } = step;
        match fault {
            Fault::Application | Fault::PauseApplication | Fault::Force => {
                self.meet_owner(fault, whom, lasts, cluster, ledger)
            }
            Fault::Leader | Fault::Majority => self.meet_etcd(fault, lasts, cluster),
            _ => {
                let node = self.node(whom, cluster, ledger)?;
                if self.troubled[node] || self.troubled.iter().filter(|troubled| **troubled).count() >= TROUBLED {
                    return None;
                }
                self.meet_node(fault, node, whom, lasts, cluster)
            }
        }
    }

    fn node(&self, whom: Whom, cluster: &Cluster, ledger: &Ledger) -> Option<usize> {
        match whom {
            Whom::Node(node) => Some(node),
            Whom::Owner(segment) => cluster.node_of(ledger.owner(SEGMENTS[segment].name)?),
            // The story has begun before anything was known of replicas.
            Whom::Replica(..) | Whom::Etcd => None,
        }
    }

    fn meet_owner(
        &mut self,
        fault: Fault,
        whom: Whom,
        lasts: Duration,
        cluster: &mut Cluster,
        ledger: &Ledger,
    ) -> Option<String> {
        let Whom::Owner(segment) = whom else { return None };
        let spec: &'static Spec = &SEGMENTS[segment];
        let owner = ledger.owner(spec.name)?.to_owned();
        let node = cluster.node_of(&owner)?;
        match fault {
            Fault::Application => {
                cluster.kill_application(&owner);
                self.hunted.push((Instant::now() + lasts, segment));
            }
            Fault::PauseApplication => {
                cluster.signal_application(&owner, Signal::SIGSTOP);
                self.undo.push((Instant::now() + lasts, Undo::Continue(owner.clone())));
            }
            _ => {
                let others: Vec<_> = (0..NODES).filter(|other| *other != node && !self.troubled[*other]).collect();
                let other = others[self.random.index(others.len())];
                cluster.force(spec.name, other);
                return Some(format!("on n{other}, from {owner}"));
            }
        }
        Some(owner)
    }

    fn hunt(&mut self, cluster: &mut Cluster, ledger: &Ledger) -> Vec<String> {
        self.hunted.retain(|(until, _)| Instant::now() < *until);
        let mut events = Vec::new();
        for (_, segment) in &self.hunted {
            let owner = ledger.owner(SEGMENTS[*segment].name).filter(|owner| cluster.node_of(owner).is_some());
            if let Some(owner) = owner {
                cluster.kill_application(owner);
                *self.counts.entry(Fault::Application).or_default() += 1;
                events.push(format!("{}: {owner}, as soon as it came", Fault::Application.name()));
            }
        }
        events
    }

    fn meet_node(
        &mut self,
        fault: Fault,
        node: usize,
        whom: Whom,
        lasts: Duration,
        cluster: &mut Cluster,
    ) -> Option<String> {
        let undo = match fault {
            Fault::Daemon => {
                cluster.kill_daemon(node);
                Undo::Start(node)
            }
            Fault::Node => {
                cluster.power_off(node);
                Undo::PowerOn(node)
            }
            Fault::Cut => {
                cluster.network.cut(node, true);
                Undo::Plug(node)
            }
            Fault::Mute => {
                cluster.network.mute(node, true);
                Undo::Unmute(node)
            }
            Fault::Part => {
                let Whom::Owner(segment) = whom else { return None };
                let other = self.watch.replicas(segment).into_iter().find(|other| *other != node)?;
                if std::mem::replace(&mut self.is_parted, true) {
                    return None;
                }
                [node, other].into_iter().for_each(|node| cluster.network.part(node, true));
                Undo::Join(node, other)
            }
            Fault::PauseDaemon => {
                cluster.signal_daemon(node, Signal::SIGSTOP);
                Undo::ContinueDaemon(node)
            }
            _ => {
                cluster.signal_applications_on(node, Signal::SIGSTOP);
                cluster.signal_daemon(node, Signal::SIGSTOP);
                Undo::ContinueNode(node)
            }
        };
        self.troubled[node] = true;
        self.undo.push((Instant::now() + lasts, undo));
        Some(format!("n{node} ({whom}) for {lasts:?}"))
    }

    fn meet_etcd(&mut self, fault: Fault, lasts: Duration, cluster: &mut Cluster) -> Option<String> {
        if self.etcd_is_whole_since?.elapsed() < ETCD_RESTS {
            return None;
        }
        let leader = cluster.etcd.leader();
        let members = match fault {
            Fault::Leader => vec![leader],
            _ => vec![leader, (leader + 1) % MEMBERS],
        };
        members.iter().for_each(|member| cluster.etcd.signal(*member, Signal::SIGKILL));
        let what = format!("m{members:?} for {lasts:?}");
        self.undo.push((Instant::now() + lasts, Undo::Boot(members)));
        self.etcd_is_whole_since = None;
        Some(what)
    }

    // ---- what is undone ----

    fn undo_until(&mut self, until: Instant, cluster: &mut Cluster) -> Vec<String> {
        let mut events: Vec<_> = due(&mut self.undo, until).map(|undo| self.undo(undo, cluster)).collect();
        while let Ok((node, verdict)) = self.judged.1.try_recv() {
            events.push(match verdict {
                Ok(()) => {
                    cluster.lose_memory(node);
                    format!("n{node} is back, without its memory")
                }
                Err(why) => {
                    self.spared += 1;
                    format!("n{node} is back, with its memory: {why}")
                }
            });
            cluster.power_on(node);
            self.troubled[node] = false;
        }
        events
    }

    fn undo(&mut self, undo: Undo, cluster: &mut Cluster) -> String {
        let (node, what) = match undo {
            Undo::PowerOn(node) => {
                self.judge(node, cluster);
                return format!("n{node} is to come back");
            }
            Undo::Continue(process) => {
                cluster.signal_application(&process, Signal::SIGCONT);
                return format!("{process} goes on");
            }
            Undo::Boot(members) => {
                members.iter().for_each(|member| cluster.etcd.boot(*member, &QUICK));
                self.etcd_is_whole_since = Some(Instant::now());
                return "etcd has its members back".to_owned();
            }
            Undo::Start(node) => {
                cluster.start_daemon(node);
                (node, "has its daemon back")
            }
            Undo::Plug(node) => {
                cluster.network.cut(node, false);
                (node, "is plugged in")
            }
            Undo::Unmute(node) => {
                cluster.network.mute(node, false);
                (node, "is heard again")
            }
            Undo::Join(node, other) => {
                [node, other].into_iter().for_each(|node| cluster.network.part(node, false));
                self.is_parted = false;
                (node, "is parted from nobody")
            }
            Undo::ContinueDaemon(node) => {
                cluster.signal_daemon(node, Signal::SIGCONT);
                (node, "has its daemon awake")
            }
            Undo::ContinueNode(node) => {
                cluster.signal_applications_on(node, Signal::SIGCONT);
                cluster.signal_daemon(node, Signal::SIGCONT);
                (node, "is awake")
            }
        };
        self.troubled[node] = false;
        format!("n{node} {what}")
    }

    /// Finds out, beside the run, whether a node may come back without its memory.
    fn judge(&self, node: usize, cluster: &Cluster) {
        let judged = self.judged.0.clone();
        let others: Vec<_> = (0..NODES).filter(|other| *other != node).map(|other| cluster.socket(other)).collect();
        std::thread::spawn(move || {
            let until = Instant::now() + JUDGEMENT;
            let mut asked = others.iter().cycle();
            let verdict = loop {
                let verdict = asked.next().map_or(Ok(()), |socket| dispense_with(node, socket));
                if verdict.is_ok() || Instant::now() >= until {
                    break verdict;
                }
                std::thread::sleep(Duration::from_millis(100));
            };
            let _ = judged.send((node, verdict));
        });
    }
}

/// Takes out what is due, in its order.
fn due<T>(all: &mut Vec<(Instant, T)>, now: Instant) -> impl Iterator<Item = T> + use<T> {
    all.sort_by_key(|(at, _)| *at);
    let count = all.partition_point(|(at, _)| *at <= now);
    all.drain(..count).map(|(_, what)| what).collect::<Vec<_>>().into_iter()
}
