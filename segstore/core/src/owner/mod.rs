//! Replication as the owner runs it: attempts, acknowledgement, and the in-sync set.
//!
//! A checkpoint is *attempted* under a number of its own and pushed to every connected replica. It is acknowledged when all of the
//! in-sync set have it. A replica that fails is first removed from the set in the directory, by compare-and-swap; only then is
//! the checkpoint acknowledged without it. So whoever takes over later finds, in any one member of the set, everything that was
//! acknowledged.
//!
//! [`Owner`] decides; whoever drives it performs the [`Action`]s and reports what came of them. A checkpoint that meets no failure
//! allocates nothing here.

mod directory;
mod follower;
mod outcome;

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use crate::changes::Changes;
use crate::id::{Epoch, Member, NodeId, SegmentId, Stamp};
use crate::layout::{Ownership, SlotHeader};
use crate::lineage::Lineage;
use crate::push::Target;
use crate::record::{RecordVersion, Swap, Versioned};
use crate::replica::Refused;
use crate::rule::{self, Rule};

use directory::Directory;
use follower::{Follower, Link, Role};
pub use outcome::{Blocked, Outcome};

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
    /// The replica has left the in-sync set. End what is still under way to it.
    Removed(Member),
    /// The replica has come into the in-sync set.
    Added(Member),
    /// Somebody else owns the segment: nothing will be acknowledged any more. End what is under way to every replica before the
    /// application hears of it.
    Fenced(Ownership),
}

/// Why an attempt cannot begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BeginError {
    /// One attempt at a time.
    #[error("epoch {0} is still under way")]
    UnderWay(Epoch),
    /// No number is left.
    #[error("no epoch number is left: the next would be {0}; copy the state into a new segment")]
    NumbersUsedUp(Epoch),
    /// The segment was taken over.
    #[error("fenced: the segment was taken over in term {}", .0.term)]
    Fenced(Ownership),
}

/// Where an ownership starts: what a takeover, or the creation of the segment, leaves behind.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Start {
    /// The segment's life.
    pub segment: SegmentId,
    /// The term and its owner.
    pub ownership: Ownership,
    /// The record as it was confirmed last.
    pub record: Versioned,
    /// The image that working memory holds.
    pub loaded: Stamp,
    /// What that image descends from.
    pub ancestry: Lineage,
    /// For each member of the in-sync set, what each of its slots can be brought up to date from, and the slot that holds the
    /// loaded image.
    pub followers: Vec<(Member, Vec<Option<Stamp>>, u32)>,
}

impl Start {
    /// The start of a segment that was just created, with `record` in the directory and freshly formatted replicas.
    #[must_use]
    pub fn of_new_segment(record: Versioned, slots: u32) -> Self {
        let formatted = |&member: &Member| (member, vec![Some(Stamp::EMPTY); slots as usize], 0);
        Self {
            segment: record.record.segment,
            ownership: Ownership { term: record.record.term, owner: record.record.owner },
            loaded: Stamp::EMPTY,
            ancestry: Lineage::root(),
            followers: record.record.in_sync.iter().map(formatted).collect(),
            record,
        }
    }
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
    fenced: Option<Ownership>,
    actions: VecDeque<Action>,
}

/// A slot that stands still for a reader.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Hold {
    /// What releases it.
    pub number: u64,
    /// The replica.
    pub member: Member,
    /// The slot.
    pub slot: u32,
    /// What it holds.
    pub image: Stamp,
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
            fenced: None,
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

    // ---- checkpoints ----

    /// Begins a checkpoint of the working memory as it is: it must stay so until the attempt ends. Its number is used up,
    /// whatever comes of it.
    ///
    /// # Errors
    /// Another attempt is under way, the segment was taken over, or there is no number left.
    pub fn begin(&mut self) -> Result<Epoch, BeginError> {
        if let Some(ownership) = self.fenced {
            return Err(BeginError::Fenced(ownership));
        }
        if let Some(epoch) = self.attempt {
            return Err(BeginError::UnderWay(epoch));
        }
        let epoch = self.next;
        if epoch == epoch.next() {
            return Err(BeginError::NumbersUsedUp(epoch));
        }
        if rule::holds(Rule::NoNumberTwice) {
            self.next = epoch.next();
        }
        self.attempt = Some(epoch);
        if self.in_sync_followers().any(Follower::has_failed) {
            self.directory.doubt();
        }
        self.advance();
        Ok(epoch)
    }

    /// Ends the attempt without an acknowledgement: it stays pending, until a later one supersedes it.
    ///
    /// # Errors
    /// Pushes to these replicas still read working memory: end them, report them as lost or failed, and try again.
    pub fn give_up(&mut self) -> Result<Option<Epoch>, Vec<Member>> {
        let busy: Vec<_> = self.followers.iter().filter(|f| f.is_busy()).map(|f| f.member).collect();
        if !busy.is_empty() {
            return Err(busy);
        }
        let epoch = self.abandon();
        self.advance();
        Ok(epoch)
    }

    fn abandon(&mut self) -> Option<Epoch> {
        let epoch = self.attempt.take()?;
        match self.abandoned.last_mut().filter(|range| range.end().next() == epoch) {
            Some(range) => *range = *range.start()..=epoch,
            None => self.abandoned.push(epoch..=epoch),
        }
        Some(epoch)
    }

    /// The push of `epoch` to a replica has completed: its memory has it. Completions of endpoints that were reported as lost or
    /// failed must not be reported.
    pub fn completed(&mut self, member: Member, epoch: Epoch) {
        let image = Stamp { term: self.ownership.term, epoch };
        if let Some(follower) = self.follower_mut(member) {
            follower.complete(image);
            self.advance();
        }
    }

    /// The endpoint to a replica is gone, and the driver is trying to get it back: a daemon that restarts keeps its memory.
    /// Nobody is removed yet, and the attempt under way waits for [`Owner::connected`] or [`Owner::failed`].
    pub fn lost(&mut self, member: Member) {
        if self.disconnect(member, Link::Connecting) {
            self.advance();
        }
    }

    /// A replica is given up: its endpoint is gone, or could not be had. If an attempt needs it, it is removed.
    pub fn failed(&mut self, member: Member) {
        if self.disconnect(member, Link::Failed) {
            self.keep(|f| f.member != member || f.role != Role::Local);
            self.directory.doubt();
            self.advance();
        }
    }

    /// Forgets what was to be pushed to a replica; whether it takes part.
    fn disconnect(&mut self, member: Member, link: Link) -> bool {
        self.actions.retain(|action| !matches!(action, Action::Push { member: to, .. } if *to == member));
        self.follower_mut(member).map(|follower| follower.disconnect(link)).is_some()
    }

    /// A replica refused to open an endpoint. One that has seen a later term says all there is to say: nothing of this term will
    /// be acknowledged any more.
    pub fn refused(&mut self, member: Member, why: &Refused) {
        match *why {
            Refused::TermOver { remembered, .. } if rule::holds(Rule::RefuseLowerTerms) => self.fence(remembered),
            _ => self.failed(member),
        }
    }

    /// An endpoint to a replica was opened in this term.
    pub fn connected(&mut self, member: Member) {
        if let Some(follower) = self.follower_mut(member) {
            follower.connect();
            self.advance();
        }
    }

    // ---- replicas ----

    /// Lets go of a replica. One of the in-sync set is removed from it, if it is not the last.
    pub fn remove(&mut self, member: Member) {
        self.keep(|f| f.member != member || matches!(f.role, Role::InSync | Role::Adding));
        if let Some(follower) = self.follower_mut(member) {
            follower.leaving = true;
        }
        self.advance();
    }

    /// Where a repair can copy from: a member of the in-sync set, its slot with the newest acknowledged image, and that image.
    #[must_use]
    pub fn repair_source(&self) -> Option<(Member, u32, Stamp)> {
        let mut sources = self.followers.iter().filter(|f| f.role == Role::InSync && f.is_connected() && !f.leaving);
        sources.find_map(|f| Some((f.member, f.newest_slot()?, f.newest_image()?)))
    }

    /// A repair has ended: every slot of `member` has the blocks that were last modified up to `base`. With `closed`, that slot
    /// is the whole image `base`, closed. The replica gets the next pushes, and is added once it holds what is acknowledged.
    ///
    /// What was copied for another ownership counts for nothing: `false`.
    pub fn repaired(&mut self, by: Ownership, member: Member, slots: u32, base: Stamp, closed: Option<u32>) -> bool {
        // A replica that was repaired again holds nothing of what it held.
        self.keep(|f| f.member != member || f.role != Role::Joining);
        let counts = by == self.ownership && self.contains(base) && self.follower_mut(member).is_none();
        if counts {
            let base = if rule::holds(Rule::PushSinceRepair) { base } else { self.acknowledged };
            let bases = vec![Some(base); slots as usize];
            self.followers.push(Follower::new(member, Role::Joining, bases, closed));
        }
        counts
    }

    /// Takes in a replica on the owner's own node, which counts for nothing.
    pub fn add_local(&mut self, member: Member, bases: Vec<Option<Stamp>>, newest: Option<u32>) {
        if self.follower_mut(member).is_none() {
            self.followers.push(Follower::new(member, Role::Local, bases, newest));
        }
    }

    /// Lets go of the followers that do not stay, and of what was held on them: if one of them comes back, its slots are others.
    fn keep(&mut self, stays: impl Fn(&Follower) -> bool) {
        self.followers.retain(stays);
        let followers = &self.followers;
        self.holds.retain(|hold| followers.iter().any(|f| f.member == hold.member));
    }

    /// Keeps the slot of `member` that holds the newest acknowledged image until it is released.
    pub fn hold(&mut self, member: Member) -> Option<Hold> {
        let image = self.acknowledged;
        let follower = self.follower_mut(member).filter(|f| f.newest_image() == Some(image))?;
        let slot = follower.newest_slot()?;
        follower.pin(slot);
        self.holds_given += 1;
        let hold = Hold { number: self.holds_given, member, slot, image };
        self.holds.push(hold);
        Some(hold)
    }

    /// Ends the hold of that number. One that is not there, or no longer, is no error: readers are not trusted to count.
    pub fn release(&mut self, number: u64) {
        let Some(at) = self.holds.iter().position(|hold| hold.number == number) else { return };
        let hold = self.holds.swap_remove(at);
        if let Some(follower) = self.follower_mut(hold.member) {
            follower.unpin(hold.slot);
            self.advance();
        }
    }

    // ---- the directory ----

    /// The change was made; the record has this version now.
    pub fn swapped(&mut self, version: RecordVersion) {
        if let Some(swap) = self.directory.take_swap() {
            self.adopt(Versioned { version, record: swap.new });
        }
    }

    /// The change was not made, since the record had changed to `current`.
    pub fn conflicted(&mut self, current: Versioned) {
        if self.directory.take_swap().is_some() {
            self.adopt(current);
        }
    }

    /// Whether the change was made is not known. It may still be.
    pub fn swap_unknown(&mut self) {
        if self.directory.unsettle() {
            self.actions.push_back(Action::ReadRecord);
        }
    }

    /// The record as the directory has it.
    pub fn record_read(&mut self, current: Versioned) {
        let ours = current.record.owner == self.ownership.owner;
        if ours && !self.directory.awaits(&current) {
            return; // An answer that was given before, or is older than what is known.
        }
        if ours && self.directory.may_still_land(&current) {
            // Only a change of the version keeps the one under way from landing later.
            let in_sync = self.desired_set();
            let swap = self.directory.swap_to(in_sync);
            self.actions.push_back(Action::Swap(swap));
        } else {
            self.adopt(current);
        }
    }

    // ---- what is known ----

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

    /// The attempt under way.
    #[must_use]
    pub fn attempt(&self) -> Option<Epoch> {
        self.attempt
    }

    /// Who took the segment over.
    #[must_use]
    pub fn fenced(&self) -> Option<Ownership> {
        self.fenced
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

    /// Replicas that are neither reached nor given up, so far or again: checkpoints wait for one or the other.
    pub fn connecting(&self) -> impl Iterator<Item = Member> + '_ {
        self.followers.iter().filter(|f| f.is_connecting()).map(|f| f.member)
    }

    /// Replicas without an endpoint.
    pub fn disconnected(&self) -> impl Iterator<Item = Member> + '_ {
        self.followers.iter().filter(|f| !f.is_connected()).map(|f| f.member)
    }

    /// What the header of the attempt `epoch` says, given the changes that were sealed for it.
    #[must_use]
    pub fn header(&self, epoch: Epoch, changes: &Changes) -> SlotHeader {
        SlotHeader {
            segment: self.segment,
            owner: self.ownership.owner,
            group: 0,
            image: Stamp { term: self.ownership.term, epoch },
            acknowledged: self.acknowledged,
            lineage: self.lineage.clone(),
            length: changes.sealed_length(),
            capacity: changes.geometry().capacity(),
            block_size: changes.geometry().block_size(),
            table_sum: changes.table_sum(),
        }
    }

    fn contains(&self, image: Stamp) -> bool {
        image.term == self.ownership.term || self.lineage.contains(image)
    }

    fn follower_mut(&mut self, member: Member) -> Option<&mut Follower> {
        self.followers.iter_mut().find(|follower| follower.member == member)
    }

    // ---- decisions ----

    /// Does whatever the last event has made possible.
    fn advance(&mut self) {
        if self.fenced.is_some() {
            return;
        }
        self.start_pushes();
        self.acknowledge();
        self.promote();
        self.change_set();
    }

    fn start_pushes(&mut self) {
        let Some(epoch) = self.attempt else { return };
        for follower in &mut self.followers {
            if let Some(target) = follower.start(epoch) {
                self.actions.push_back(Action::Push { member: follower.member, epoch, target });
            }
        }
    }

    fn acknowledge(&mut self) {
        let Some(epoch) = self.attempt.filter(|&epoch| self.is_complete(epoch)) else { return };
        self.attempt = None;
        self.next = epoch.next();
        self.acknowledged = Stamp { term: self.ownership.term, epoch };
        self.followers.iter_mut().for_each(|follower| follower.spare(epoch));
        let holders = || self.in_sync_followers().filter(|f| f.has_done(epoch)).map(|f| f.member);
        let (in_sync, elsewhere) = (holders().count(), self.elsewhere(holders()));
        self.actions.push_back(Action::Committed { epoch, in_sync, elsewhere });
    }

    fn is_complete(&self, epoch: Epoch) -> bool {
        let confirmed = |f: &Follower| f.is_connected() || rule::holds(Rule::ConfirmRemoval);
        let in_sync = || self.in_sync_followers().map(|f| f.member);
        self.followers.iter().filter(|f| f.is_awaited() && confirmed(f)).all(|f| f.has_done(epoch))
            && (in_sync().count() > 0 || !rule::holds(Rule::KeepTheLast))
            && self.is_enough(in_sync())
    }

    fn is_enough(&self, in_sync: impl Iterator<Item = Member>) -> bool {
        self.policy.below == BelowMinimum::Continue
            || self.elsewhere(in_sync) >= self.policy.minimum
            || !rule::holds(Rule::Minimum)
    }

    /// How many of `members` survive the owner's node.
    fn elsewhere(&self, members: impl Iterator<Item = Member>) -> usize {
        members.filter(|member| Some(member.node) != self.node || !rule::holds(Rule::OwnNode)).count()
    }

    fn in_sync_followers(&self) -> impl Iterator<Item = &Follower> {
        self.followers.iter().filter(|f| f.role == Role::InSync)
    }

    /// A joining replica that holds what is acknowledged, or the attempt under way, which contains it, may be added.
    fn promote(&mut self) {
        if !self.directory.is_idle() {
            return;
        }
        let own = self.acknowledged.term == self.ownership.term;
        let enough = [self.attempt, own.then_some(self.acknowledged.epoch)];
        let candidates =
            self.followers.iter_mut().filter(|f| f.role == Role::Joining && f.is_connected() && !f.leaving);
        for follower in candidates {
            if let Some(epoch) = enough.into_iter().flatten().find(|&epoch| follower.has_done(epoch)) {
                follower.spare(epoch);
                follower.role = Role::Adding;
            } else if follower.newest_image() == Some(self.acknowledged) {
                follower.role = Role::Adding;
            }
        }
    }

    fn change_set(&mut self) {
        let wanting = |f: &Follower| f.leaving || f.role == Role::Adding || self.is_failing(f);
        if !self.directory.is_idle() || !self.followers.iter().any(wanting) {
            return;
        }
        let in_sync = self.desired_set();
        if in_sync != self.in_sync() {
            let swap = self.directory.swap_to(in_sync);
            self.actions.push_back(Action::Swap(swap));
        } else if self.followers.iter().any(|f| self.is_failing(f)) && self.directory.check() {
            // Nothing can be removed, so no swap would tell that another owner came: ask.
            self.actions.push_back(Action::ReadRecord);
        }
    }

    /// Whether the attempt under way cannot complete because of this replica.
    fn is_failing(&self, follower: &Follower) -> bool {
        let done = self.attempt.is_none_or(|epoch| follower.has_done(epoch));
        follower.role == Role::InSync && follower.has_failed() && !done
    }

    /// The in-sync set as it should be: without what fails the attempt under way, with what is being added. Nobody is removed if
    /// nothing could be acknowledged afterwards: a link that comes back is cheaper than a full copy.
    fn desired_set(&self) -> Vec<Member> {
        let stays = |f: &Follower| f.role == Role::InSync && !f.leaving && !self.is_failing(f);
        let joins = |f: &Follower| f.role == Role::Adding && f.is_connected() && !f.leaving;
        let mut desired: Vec<_> = self.followers.iter().filter(|f| stays(f) || joins(f)).map(|f| f.member).collect();
        let someone_stays = self.followers.iter().any(|f| stays(f) && f.is_connected());
        if (!someone_stays && rule::holds(Rule::KeepTheLast)) || !self.is_enough(desired.iter().copied()) {
            let all = self.followers.iter().filter(|f| f.role == Role::InSync || joins(f));
            desired = all.map(|f| f.member).collect();
        }
        desired.sort_unstable();
        desired
    }

    fn fence(&mut self, holder: Ownership) {
        if self.fenced.is_none() {
            self.fenced = Some(holder);
            self.abandon();
            self.actions.push_back(Action::Fenced(holder));
        }
    }

    /// Takes over what the directory says.
    fn adopt(&mut self, current: Versioned) {
        let holder = current.ownership();
        if holder != self.ownership {
            return self.fence(holder);
        }
        for follower in &mut self.followers {
            let is_member = current.record.in_sync.contains(&follower.member);
            match follower.role {
                Role::Adding if is_member => {
                    follower.role = Role::InSync;
                    self.actions.push_back(Action::Added(follower.member));
                }
                Role::Adding => follower.role = Role::Joining,
                Role::InSync if !is_member => self.actions.push_back(Action::Removed(follower.member)),
                _ => {}
            }
        }
        let in_sync = current.record.in_sync.as_slice();
        self.keep(|f| match f.role {
            Role::InSync => in_sync.contains(&f.member),
            Role::Joining => !f.leaving,
            Role::Adding | Role::Local => true,
        });
        self.directory.settle(current);
        self.advance();
    }
}
