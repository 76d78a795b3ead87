//! What goes wrong, and when: a seed tells all of it. Pure.
//!
//! Most stories are a single fault. Some are those that take several in the right order, which would hardly come by themselves.

use std::fmt;
use std::time::Duration;

use crate::random::Random;
use crate::segments::{NODES, SEGMENTS};

/// What is done to something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Fault {
    /// The application that owns a segment is killed, and for as long as this lasts whoever comes to own it, at once or after a moment.
    Application,
    /// A daemon is killed, and started again.
    Daemon,
    /// A node loses its power, and comes back without its memory.
    Node,
    /// A node's cable is out.
    Cut,
    /// What a node sends is lost.
    Mute,
    /// The owner's node and one of its replicas' do not reach each other.
    Part,
    /// The application that owns a segment stands still.
    PauseApplication,
    /// A daemon stands still.
    PauseDaemon,
    /// Everything on a node stands still.
    PauseNode,
    /// etcd's leader is killed, and started again.
    Leader,
    /// So many of etcd's members are killed that nothing is agreed on, and started again.
    Majority,
    /// One of etcd's members, often the leader, stands still.
    PauseMember,
    /// The cable of one of them is out.
    CutMember,
    /// Somebody takes a segment from its living owner.
    Force,
    /// An operator has a segment handed over to another node.
    Move,
    /// An operator has everything moved off a node, and switches it off as soon as he is told that he may.
    Drain,
    /// An operator wishes for one replica more of a segment, for a while.
    Replicas,
}

impl Fault {
    pub(crate) const ALL: [Self; 17] = [
        Self::Application,
        Self::Daemon,
        Self::Node,
        Self::Cut,
        Self::Mute,
        Self::Part,
        Self::PauseApplication,
        Self::PauseDaemon,
        Self::PauseNode,
        Self::Leader,
        Self::Majority,
        Self::PauseMember,
        Self::CutMember,
        Self::Force,
        Self::Move,
        Self::Drain,
        Self::Replicas,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Daemon => "daemon",
            Self::Node => "node",
            Self::Cut => "cut",
            Self::Mute => "mute",
            Self::Part => "part",
            Self::PauseApplication => "pause_application",
            Self::PauseDaemon => "pause_daemon",
            Self::PauseNode => "pause_node",
            Self::Leader => "etcd_leader",
            Self::Majority => "etcd_majority",
            Self::PauseMember => "pause_etcd",
            Self::CutMember => "cut_etcd",
            Self::Force => "force",
            Self::Move => "move",
            Self::Drain => "drain",
            Self::Replicas => "replicas",
        }
    }
}

/// Whom it meets: found when it is done, but for replicas, which are found when their story begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Whom {
    Node(usize),
    /// The node whose application owns the segment of this number.
    Owner(usize),
    /// The node of one of its replicas.
    Replica(usize, usize),
    /// None of the nodes.
    Etcd,
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "n{node}"),
            Self::Owner(segment) => write!(f, "the owner of {}", SEGMENTS[*segment].name),
            Self::Replica(segment, which) => write!(f, "replica {which} of {}", SEGMENTS[*segment].name),
            Self::Etcd => write!(f, "etcd"),
        }
    }
}

/// One fault of a story.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    /// After the beginning of the story.
    pub(crate) after: Duration,
    pub(crate) fault: Fault,
    pub(crate) whom: Whom,
    pub(crate) lasts: Duration,
}

/// Faults that belong together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Story {
    /// After the beginning of the run.
    pub(crate) at: Duration,
    pub(crate) steps: Vec<Step>,
}

/// After so many stories there is nothing for a moment, in which everything comes back.
const CALM: u64 = 10;

/// Of so many stories, drawn by chance, each kind has its share: where they begin. A run begins with one of each, in any order, and with two of
/// those that may come to nothing.
const STORIES: u64 = 120;
const KINDS: [u64; 22] = [0, 12, 24, 34, 46, 54, 57, 62, 66, 70, 78, 83, 84, 88, 96, 100, 100, 105, 105, 108, 112, 116];

/// So many segments, the first ones, have two replicas each.
const PAIRS: usize = 3;

/// Every story of a run, without an end.
pub(crate) struct Plan {
    random: Random,
    at: Duration,
    /// When all of it so far is over.
    ends: Duration,
    told: u64,
    /// Kinds that have not come so far.
    to_come: Vec<u64>,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), at: Duration::ZERO, ends: Duration::ZERO, told: 0, to_come: KINDS.to_vec() }
    }

    fn steps(&mut self) -> Vec<Step> {
        let segment = self.random.index(SEGMENTS.len());
        let story = match self.to_come.len() {
            0 => self.random.below(STORIES),
            left => self.to_come.swap_remove(self.random.index(left)),
        };
        match story {
            0..12 => self.kills(),
            12..24 => vec![self.step(0, Fault::Application, Whom::Owner(segment), 100..4000)],
            24..34 => self.single(segment, Fault::Daemon, 200..4000),
            34..46 => self.single(segment % PAIRS, Fault::Node, 1500..5000),
            46..54 => self.single(segment, Fault::Cut, 200..5000),
            54..57 => self.single(segment, Fault::Mute, 200..4000),
            57..62 => vec![self.step(0, Fault::Part, Whom::Owner(segment), 200..4000)],
            62..66 => vec![self.step(0, Fault::PauseApplication, Whom::Owner(segment), 1000..5000)],
            66..70 => self.single(segment, Fault::PauseDaemon, 500..5000),
            70..78 => vec![self.step(0, Fault::PauseNode, Whom::Owner(segment), 2500..6000)],
            78..83 => vec![self.step(0, Fault::Leader, Whom::Etcd, 500..3000)],
            83..84 => vec![self.step(0, Fault::Majority, Whom::Etcd, 2000..5000)],
            84..88 => self.force(segment),
            88..96 => self.see_saw(segment % PAIRS),
            96..100 => self.in_the_dark(segment % PAIRS),
            100..105 => self.moves(segment),
            105..108 => self.single(segment, Fault::Drain, 5000..12000),
            108..112 => vec![self.step(0, Fault::Replicas, Whom::Owner(segment), 1000..5000)],
            112..116 => self.silent_member(segment, Fault::PauseMember),
            _ => self.silent_member(segment, Fault::CutMember),
        }
    }

    fn step(&mut self, after: u64, fault: Fault, whom: Whom, lasts: std::ops::Range<u64>) -> Step {
        Step { after: Duration::from_millis(after), fault, whom, lasts: self.random.millis(lasts) }
    }

    /// It meets an owner, a replica or anybody.
    fn single(&mut self, segment: usize, fault: Fault, lasts: std::ops::Range<u64>) -> Vec<Step> {
        let whom = match self.random.below(4) {
            0 => Whom::Owner(segment),
            1 | 2 => Whom::Replica(segment, self.random.index(2)),
            _ => Whom::Node(self.random.index(NODES)),
        };
        vec![self.step(0, fault, whom, lasts)]
    }

    /// Owners of any segments are killed, one after the other.
    fn kills(&mut self) -> Vec<Step> {
        let mut after = 0;
        let mut steps = Vec::new();
        for _ in 0..1 + self.random.below(6) {
            let segment = self.random.index(SEGMENTS.len());
            steps.push(self.step(after, Fault::Application, Whom::Owner(segment), 0..1));
            after += 50 + self.random.below(300);
        }
        steps
    }

    /// It is taken back and forth, sometimes from somebody who stands still.
    fn force(&mut self, segment: usize) -> Vec<Step> {
        let pause = self.step(0, Fault::PauseApplication, Whom::Owner(segment), 1000..3000);
        let force = (1..4).map(|i| self.step(i * 300, Fault::Force, Whom::Owner(segment), 1..2)).collect::<Vec<_>>();
        let stands_still = self.random.below(2) == 0;
        stands_still.then_some(pause).into_iter().chain(force).collect()
    }

    /// It is handed over again and again; sometimes its owner dies in the middle of that.
    fn moves(&mut self, segment: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        for i in 0..1 + self.random.below(3) {
            steps.push(self.step(i * 400, Fault::Move, Whom::Owner(segment), 0..1));
            if self.random.below(2) == 0 {
                let after = i * 400 + self.random.below(40);
                steps.push(self.step(after, Fault::Application, Whom::Owner(segment), 0..1));
            }
        }
        steps
    }

    /// The owner loses sight of one replica, and dies before it goes on without; its successors see only that one, and die as soon as they
    /// have taken over, or a moment later, until both are seen again.
    fn see_saw(&mut self, segment: usize) -> Vec<Step> {
        let [one, other] = self.both(segment);
        let swap = 300 + self.random.below(500);
        vec![
            self.step(0, Fault::Cut, one, swap..swap + 1),
            self.step(swap - 1, Fault::Cut, other, 3500..4500),
            self.step(swap, Fault::Application, Whom::Owner(segment), 3500..5000),
        ]
    }

    /// One of etcd's members neither answers nor refuses; often an owner dies meanwhile.
    fn silent_member(&mut self, segment: usize, fault: Fault) -> Vec<Step> {
        let mut steps = vec![self.step(0, fault, Whom::Etcd, 1000..6000)];
        if self.random.below(2) == 0 {
            let after = self.random.below(1500);
            steps.push(self.step(after, Fault::Application, Whom::Owner(segment), 0..1));
        }
        steps
    }

    fn both(&mut self, segment: usize) -> [Whom; 2] {
        let first = self.random.index(2);
        [first, 1 - first].map(|which| Whom::Replica(segment, which))
    }

    /// The owner loses one replica while nothing can be agreed on, then the owner and the other replica are gone when that one is back.
    fn in_the_dark(&mut self, segment: usize) -> Vec<Step> {
        let [one, other] = self.both(segment);
        vec![
            self.step(0, Fault::Majority, Whom::Etcd, 4000..5000),
            self.step(300, Fault::Daemon, one, 2500..3000),
            self.step(3400, Fault::Cut, other, 3000..4000),
            self.step(3500, Fault::Application, Whom::Owner(segment), 0..1),
        ]
    }
}

impl Iterator for Plan {
    type Item = Story;

    fn next(&mut self) -> Option<Story> {
        let steps = self.steps();
        let at = if self.told.is_multiple_of(CALM) {
            self.ends + self.random.millis(1500..3500)
        } else {
            self.at + self.random.millis(100..1500)
        };
        let ends = steps.iter().map(|step| at + step.after + step.lasts).max();
        // Of some stories the next one begins before the end.
        self.at = at + steps.last().map_or(Duration::ZERO, |step| step.after);
        self.ends = self.ends.max(ends.unwrap_or(at));
        self.told += 1;
        Some(Story { at, steps })
    }
}
