//! Replication as the owner runs it: attempts, acknowledgement, and the in-sync set.
//!
//! A checkpoint is *attempted* under a number of its own and pushed to every connected replica. It is acknowledged when all of the
//! in-sync set have it. A replica that fails is first removed from the set in the directory, by compare-and-swap; only then is
//! the checkpoint acknowledged without it. So whoever takes over later finds, in any one member of the set, everything that was
//! acknowledged.
//!
//! [`Owner`] decides; whoever drives it performs the [`Action`]s and reports what came of them. A checkpoint that meets no failure
//! allocates nothing here.

mod checkpoint;
mod directory;
mod follower;
mod hold;
mod links;
mod membership;
mod outcome;
mod parting;
mod replicas;
mod start;

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use crate::id::{Epoch, Member, NodeId, SegmentId, Stamp};
use crate::layout::Ownership;
use crate::lineage::Lineage;
use crate::push::Target;
use crate::record::Swap;

pub use checkpoint::BeginError;
use directory::Directory;
use follower::{Follower, Role};
pub use hold::Hold;
pub use outcome::{Blocked, Outcome};
pub use start::Start;

/// What to do when fewer replicas are in sync than the policy's minimum.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BelowMinimum {
    /// Acknowledge nothing until enough are in sync again.
    Stop,
    /// Go on with what is left, visibly.
    Continue,
}

/// How many copies an acknowledgement stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Policy {
    /// The fewest replicas in sync on other nodes than the owner's.
    pub minimum: usize,
    /// What to do below that.
    pub below: BelowMinimum,
}

/// What the owner wants done.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Push the attempt `epoch` to a replica; then call [`Owner::completed`], [`Owner::lost`] or [`Owner::failed`].
    Push {
        /// The replica.
        member: Member,
        /// The attempt.
        epoch: Epoch,
        /// The slot, and what it lacks.
        target: Target,
    },
    /// Change the record; then call [`Owner::swapped`], [`Owner::conflicted`] or [`Owner::swap_unknown`].
    Swap(Swap),
    /// Read the record, again until there is an answer; then call [`Owner::record_read`].
    ReadRecord,
    /// The attempt is acknowledged.
    Committed {
        /// Its number.
        epoch: Epoch,
        /// How many members of the in-sync set hold it.
        in_sync: usize,
        /// How many of those are on other nodes than the owner's: they survive it.
        elsewhere: usize,
    },
    /// Look which closed images a replica holds, from now on; then call [`Owner::seen`].
    Look {
        /// The replica.
        member: Member,
        /// Names this look.
        look: u64,
    },
    /// The replica has left the in-sync set, and is let go. End what is still under way to it.
    Removed(Member),
    /// The replica has come into the in-sync set.
    Added(Member),
    /// The replica is no member any more, but is well: it takes part, and is added again once it holds what is acknowledged.
    Rejoins(Member),
    /// Nothing will be acknowledged any more. End what is under way to every replica before the application hears of it.
    Ended(End),
}

/// Why an ownership is over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum End {
    /// Somebody else owns the segment.
    Fenced(Ownership),
    /// The segment was unlinked: there is no record of it any more.
    Unlinked,
}

/// One ownership of one segment.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Owner {
    segment: SegmentId,
    ownership: Ownership,
    policy: Policy,
    node: Option<NodeId>,
    /// What images of this term descend from.
    lineage: Lineage,
    acknowledged: Stamp,
    next: Epoch,
    attempt: Option<Epoch>,
    /// Attempts that ended without an acknowledgement: one range for each outage.
    abandoned: Vec<RangeInclusive<Epoch>>,
    followers: Vec<Follower>,
    directory: Directory,
    holds: Vec<Hold>,
    holds_given: u64,
    looks: u64,
    end: Option<End>,
    actions: VecDeque<Action>,
}

impl Owner {
    /// Begins an ownership. No replica is connected yet.
    #[must_use]
    pub fn new(start: Start, policy: Policy) -> Self {
        let followers = start.followers.into_iter();
        let followers =
            followers.map(|(member, bases, newest)| Follower::new(member, Role::InSync, bases, Some(newest)));
        Self {
            segment: start.segment,
            ownership: start.ownership,
            policy,
            node: None,
            lineage: start.ancestry.extended_by(start.loaded),
            acknowledged: start.loaded,
            next: start.loaded.epoch.next(),
            attempt: None,
            abandoned: Vec::new(),
            followers: followers.collect(),
            directory: Directory::new(start.record),
            holds: Vec::new(),
            holds_given: 0,
            looks: 0,
            end: None,
            actions: VecDeque::with_capacity(8),
        }
    }

    /// Says which node the owner runs on. A member of the in-sync set there dies with it, so it does not count towards the
    /// policy's minimum; an owner that is on no node of the cluster need not say anything.
    #[must_use]
    pub fn on_node(mut self, node: NodeId) -> Self {
        self.node = Some(node);
        self
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Lets go of the followers that do not stay, and of what was held on them: if one of them comes back, its slots are others.
    fn keep(&mut self, stays: impl Fn(&Follower) -> bool) {
        self.followers.retain(stays);
        let followers = &self.followers;
        self.holds.retain(|hold| followers.iter().any(|f| f.member == hold.member));
    }

    /// The segment's life.
    #[must_use]
    pub fn segment(&self) -> SegmentId {
        self.segment
    }

    /// The term and its owner.
    #[must_use]
    pub fn ownership(&self) -> Ownership {
        self.ownership
    }

    /// The newest acknowledged image.
    #[must_use]
    pub fn acknowledged(&self) -> Stamp {
        self.acknowledged
    }

    /// What images of this term descend from.
    #[must_use]
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Why nothing is acknowledged any more.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The in-sync set as it was confirmed last.
    #[must_use]
    pub fn in_sync(&self) -> &[Member] {
        &self.directory.record().record.in_sync
    }

    /// Every replica that takes part.
    pub fn followers(&self) -> impl Iterator<Item = Member> + '_ {
        self.followers.iter().map(|f| f.member)
    }

    /// Whether a replica takes part.
    #[must_use]
    pub fn follows(&self, member: Member) -> bool {
        self.followers().any(|follower| follower == member)
    }

    fn contains(&self, image: Stamp) -> bool {
        image.term == self.ownership.term || self.lineage.contains(image)
    }

    fn follower_mut(&mut self, member: Member) -> Option<&mut Follower> {
        self.followers.iter_mut().find(|follower| follower.member == member)
    }

    /// Does whatever the last event has made possible.
    fn advance(&mut self) {
        if self.end.is_some() {
            return;
        }
        self.start_pushes();
        self.part();
        self.acknowledge();
        // Nobody pushes any more, perhaps.
        self.part();
        self.promote();
        self.change_set();
    }

    fn in_sync_followers(&self) -> impl Iterator<Item = &Follower> {
        self.followers.iter().filter(|f| f.role == Role::InSync)
    }

    fn fence(&mut self, holder: Ownership) {
        self.end_with(End::Fenced(holder));
    }

    fn end_with(&mut self, end: End) {
        if self.end.is_none() {
            self.end = Some(end);
            self.abandon();
            self.actions.push_back(Action::Ended(end));
        }
    }
}
