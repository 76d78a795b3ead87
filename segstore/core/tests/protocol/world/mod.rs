//! A whole cluster in one value: a directory, replicas, processes that own or want to, and the network between them.
//!
//! The decisions are the product's own state machines and its own bytes; the world only carries messages, and chooses nothing.
//! What may happen next is listed by [`World::enabled`]; a checker explores all of it, a scenario picks its steps.

mod claimant;
mod enabled;
mod hang;
mod journal;
mod network;
mod owning;
mod parting;
mod process;
mod reader;
mod repairs;
mod replica;
mod step;
mod steps;
mod work;

pub use journal::Violation;
pub use process::Stage;
pub use step::Step;

use segstore_core::forget::Forgettable;
use segstore_core::id::{Incarnation, Member, NodeId, OwnerId, SegmentId, Stamp, Term};
use segstore_core::layout::{Geometry, Key};
use segstore_core::owner::{BelowMinimum, Policy};
use segstore_core::record::{Record, RecordVersion, Swap, Versioned};
use segstore_core::replica::Request;

use journal::Journal;
use network::Endpoint;
use process::Process;
use reader::Reader;
use repairs::RepairRequest;
use replica::Replica;

pub const SEGMENT: SegmentId = SegmentId(0x5e6);
pub const BLOCKS: u32 = 2;
pub const BLOCK: usize = 8;

/// What a world starts with, and how much may go wrong in it.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Replicas in sync at the start.
    pub in_sync: usize,
    /// Replicas that are there but not in sync.
    pub spare: usize,
    /// Slots of each replica.
    pub slots: u32,
    /// All processes run on one node that has a replica, too, which counts for nothing.
    pub local: bool,
    /// Process *n* runs on the node of replica *n*.
    pub collocated: bool,
    /// Adjacent blocks are written one by one, so that a push can end between two of them.
    pub piecewise: bool,
    /// Processes: the first owns the segment, each other may take it over once.
    pub processes: usize,
    /// The last process is a caretaker.
    pub caretaker: bool,
    /// Checkpoints that each process may begin, in order of the processes; the last number counts for all that follow.
    pub commits: [u8; 3],
    /// Faults of each kind that may happen.
    pub faults: Faults,
    pub policy: Policy,
}

/// How often each kind of fault may strike.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Faults {
    /// A process is killed.
    pub kills: u8,
    /// An endpoint breaks; what was under way may still land.
    pub cuts: u8,
    /// An endpoint breaks, and its owner tries to get it back, or gives that up.
    pub losses: u8,
    /// A replica cannot be reached by a fence.
    pub partitions: u8,
    /// A directory's answer is lost; the change may be made, then or later, or not.
    pub lost_replies: u8,
    /// A directory's answer takes its time.
    pub late_answers: u8,
    /// An owner hears of its record unasked, and late.
    pub watches: u8,
    /// A replica's daemon restarts with its memory.
    pub restarts: u8,
    /// A replica's node restarts without its memory.
    pub memory_losses: u8,
    /// A process gives an attempt up.
    pub give_ups: u8,
    /// A replica is made and filled in place of what its node keeps of the segment.
    pub repairs: u8,
    /// The answer to such a request is lost; what it began goes on, or has not arrived yet.
    pub lost_repairs: u8,
    /// What was modified while a replica was filled is copied as well, before that is reported.
    pub further_copies: u8,
    /// An owner lets go of the segment, and its replicas level their slots.
    pub releases: u8,
    /// A daemon forgets what nobody needs.
    pub orphans: u8,
    /// Somebody who owns nothing reads the segment.
    pub reads: u8,
    /// An owner is to let go of a replica, or is to keep it after all.
    pub dismissals: u8,
    /// A checkpoint changes the segment's length.
    pub resizes: u8,
}

impl Config {
    /// Two replicas, two slots, an owner and one rival, nothing going wrong.
    pub const fn small() -> Self {
        let policy = Policy { minimum: 1, below: BelowMinimum::Continue };
        let faults = Faults {
            kills: 0,
            cuts: 0,
            losses: 0,
            partitions: 0,
            lost_replies: 0,
            late_answers: 0,
            watches: 0,
            restarts: 0,
            memory_losses: 0,
            give_ups: 0,
            repairs: 0,
            lost_repairs: 0,
            further_copies: 0,
            releases: 0,
            orphans: 0,
            reads: 0,
            dismissals: 0,
            resizes: 0,
        };
        Self {
            in_sync: 2,
            spare: 0,
            slots: 2,
            local: false,
            collocated: false,
            piecewise: false,
            processes: 2,
            caretaker: false,
            commits: [1, 1, 1],
            faults,
            policy,
        }
    }

    pub fn geometry(&self) -> Geometry {
        Geometry::miniature(BLOCK as u32, BLOCKS, self.slots)
    }
}

/// A cluster at one moment.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    geometry: Geometry,
    policy: Policy,
    collocated: bool,
    piecewise: bool,
    /// The replica beside the processes.
    local: Option<usize>,
    /// The process that holds the segment's name.
    holder: Option<usize>,
    record: Versioned,
    /// Changes that were sent and whose sender was told that their outcome is not known.
    late_swaps: Vec<Swap>,
    replicas: Vec<Replica>,
    processes: Vec<Process>,
    endpoints: Vec<Endpoint>,
    readers: Vec<Reader>,
    repair_requests: Vec<RepairRequest>,
    /// Requests to level the slots of a replica, on their way to its node.
    level_requests: Vec<(usize, Request)>,
    /// What daemons are about to forget.
    orphans: Vec<(usize, Forgettable)>,
    /// Replicas that daemons forgot.
    forgotten: Vec<Member>,
    faults: Faults,
    journal: Journal,
}

impl World {
    /// Process 0 owns the segment in term 1, epoch 1 is acknowledged by the whole in-sync set, and every endpoint is open.
    pub fn new(config: &Config) -> Self {
        #[cfg(feature = "sabotage")]
        super::leave_out_what_the_environment_says();
        let geometry = config.geometry();
        let local = config.in_sync + config.spare;
        let replicas: Vec<_> = (0..local + usize::from(config.local)).map(|r| Replica::new(r, &geometry)).collect();
        let in_sync = replicas[..config.in_sync].iter().map(Replica::member).collect();
        let record = Record { segment: SEGMENT, term: Term(1), owner: owner_id(0), in_sync };
        let commits = |p: usize| config.commits[p.min(2)];
        let mut processes: Vec<_> = (0..config.processes).map(|p| Process::new(p, commits(p))).collect();
        let record = Versioned { version: RecordVersion(1), record };
        if let Some(last) = processes.last_mut().filter(|_| config.caretaker) {
            last.is_caretaker = true;
        }
        processes[0] = Process::creator(commits(0) + 1, &record, &geometry, (config.policy, config.collocated));
        let mut world = Self {
            geometry,
            policy: config.policy,
            collocated: config.collocated,
            piecewise: config.piecewise,
            local: config.local.then_some(local),
            holder: Some(0),
            record,
            late_swaps: Vec::new(),
            replicas,
            processes,
            endpoints: Vec::new(),
            readers: Vec::new(),
            repair_requests: Vec::new(),
            level_requests: Vec::new(),
            orphans: Vec::new(),
            forgotten: Vec::new(),
            faults: config.faults,
            journal: Journal::default(),
        };
        for r in 0..config.in_sync {
            world.step(Step::Connect(0, r));
        }
        if config.local {
            let member = world.member(local);
            let bases = vec![Some(Stamp::EMPTY); config.slots as usize];
            world.processes[0].owning_mut().unwrap().owner.add_local(member, bases, None);
            world.step(Step::Connect(0, local));
        }
        world.checkpoint(0, 0);
        assert_eq!(world.journal.acknowledged(), Some(Stamp::new(1, 1)), "the first checkpoint meets no fault");
        world
    }

    /// What was promised and not kept.
    pub fn violation(&self) -> Option<Violation> {
        self.journal.violation()
    }

    /// The newest image that any process was told is acknowledged.
    pub fn acknowledged(&self) -> Option<Stamp> {
        self.journal.acknowledged()
    }

    /// What the last takeover loaded.
    pub fn taken_over(&self) -> Option<Stamp> {
        self.journal.taken_over()
    }

    /// What a reader was given last.
    pub fn last_read(&self) -> Option<Stamp> {
        self.journal.last_read()
    }

    /// Who is in sync, as the directory says.
    pub fn in_sync(&self) -> Vec<usize> {
        self.record.record.in_sync.iter().map(replica_of).collect()
    }

    /// The term in the directory.
    pub fn newest_term(&self) -> Option<Term> {
        Some(self.record.record.term)
    }

    pub fn process(&self, p: usize) -> &Stage {
        &self.processes[p].stage
    }

    pub fn member(&self, r: usize) -> Member {
        self.replicas[r].member()
    }

    /// Performs a checkpoint of `block` by `p`, with every message arriving at once.
    pub fn checkpoint(&mut self, p: usize, block: u32) {
        self.step(Step::Commit(p, block));
        self.settle(p);
    }

    /// Delivers everything that concerns `p` until nothing is left to deliver.
    pub fn settle(&mut self, p: usize) {
        while let Some(step) = self.enabled().into_iter().find(|step| step.is_progress_of(p)) {
            self.step(step);
        }
    }

    /// Lets everything that is in flight from `p` to `r` land, and tells `p`.
    pub fn land(&mut self, p: usize, r: usize) {
        while self.is_enabled(Step::Deliver(p, r)) {
            self.step(Step::Deliver(p, r));
        }
        self.run([Step::Complete(p, r)]);
    }

    /// `p` takes over; every message arrives, but fences reach only `reachable`.
    pub fn take_over(&mut self, p: usize, reachable: &[usize]) {
        self.run([Step::TakeOver(p), Step::Directory(p)]);
        self.finish_takeover(p, reachable);
    }

    /// The rest of a takeover whose claim was not yet sent or has not arrived.
    pub fn finish_takeover(&mut self, p: usize, reachable: &[usize]) {
        let unreachable = |r: &usize| !reachable.contains(r);
        loop {
            let lost = (0..self.replicas.len()).filter(unreachable).find(|&r| self.is_enabled(Step::FenceLost(p, r)));
            let next = lost.map(|r| Step::FenceLost(p, r));
            let next = next.or_else(|| self.enabled().into_iter().find(|step| step.is_progress_of(p)));
            match (next, &self.processes[p].stage) {
                (Some(step), Stage::TakingOver(_)) => self.step(step),
                _ => return,
            }
        }
    }

    /// Flips a bit of `block` in whichever slot of `r` holds `image`.
    pub fn damage(&mut self, r: usize, image: Stamp, block: u32) {
        let geometry = self.geometry;
        let views = self.replicas[r].views(&geometry);
        let slot = views.iter().position(|view| view.image() == Some(image)).unwrap() as u32;
        let byte = self.replicas[r].blocks(&geometry, slot, block, 1)[0] ^ 1;
        let at = geometry.slot(slot) + geometry.block_in_slot(block);
        self.replicas[r].write(&geometry, at as usize, &[byte]);
    }

    /// Flips a bit in the head of whichever slot of `r` holds `image`.
    pub fn damage_head(&mut self, r: usize, image: Stamp, at: usize) {
        let geometry = self.geometry;
        let views = self.replicas[r].views(&geometry);
        let slot = views.iter().position(|view| view.image() == Some(image)).unwrap() as u32;
        let byte = self.replicas[r].head(slot)[at] ^ 1;
        self.replicas[r].write(&geometry, geometry.slot(slot) as usize + at, &[byte]);
    }

    /// The directory as it is, for [`World::restore_directory`].
    pub fn copy_of_directory(&self) -> Versioned {
        self.record.clone()
    }

    /// Somebody restores the directory from an old copy.
    pub fn restore_directory(&mut self, copy: Versioned) {
        self.record = copy;
    }

    /// A slot that passes every check and is no checkpoint.
    pub fn lie(&self) -> Option<(usize, Stamp)> {
        let replicas = self.replicas.iter().enumerate();
        let mut slots =
            replicas.flat_map(|(r, replica)| (0..self.geometry.slots()).map(move |slot| (r, replica, slot)));
        slots.find_map(|(r, replica, slot)| {
            let view = replica.view(&self.geometry, slot);
            let header = view.closed()?;
            let (_, bytes, _) = self.read_image(header, &[(replica.member(), slot)]).ok()?;
            (!self.journal.has(header.image, &bytes)).then_some((r, header.image))
        })
    }

    /// Performs `steps` in turn; each must be possible.
    pub fn run(&mut self, steps: impl IntoIterator<Item = Step>) {
        for step in steps {
            assert!(self.is_enabled(step), "{step:?} is not possible now; possible: {:?}", self.enabled());
            self.step(step);
        }
    }
}

fn owner_id(process: usize) -> OwnerId {
    OwnerId(0x0e0 + process as u128)
}

fn caretaker_id(process: usize) -> OwnerId {
    OwnerId::caretaker(process as u64)
}

fn replica_of(member: &Member) -> usize {
    member.node.0 as usize
}

fn node_id(replica: usize) -> NodeId {
    NodeId(replica as u128)
}

fn incarnation(replica: usize, life: u8) -> Incarnation {
    Incarnation(u128::from(life) * 16 + replica as u128)
}

fn key() -> Key {
    Key::of(SEGMENT)
}
