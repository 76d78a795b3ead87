//! One checkpoint at a time: begun under a number of its own, pushed, acknowledged or given up.

use super::follower::Follower;
use super::{Action, BelowMinimum, End, Owner};
use crate::changes::Changes;
use crate::id::{Epoch, Member, Stamp};
use crate::layout::SlotHeader;
use crate::rule::{self, Rule};

/// Why an attempt cannot begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BeginError {
    /// One attempt at a time.
    #[error("epoch {0} is still under way")]
    UnderWay(Epoch),
    /// No number is left.
    #[error("no epoch number is left: the next would be {0}; copy the state into a new segment")]
    NumbersUsedUp(Epoch),
    /// The ownership is over.
    #[error("the ownership is over: {0:?}")]
    Ended(End),
}

impl Owner {
    /// Begins a checkpoint of the working memory as it is: it must stay so until the attempt ends. Its number is used up,
    /// whatever comes of it.
    ///
    /// # Errors
    /// Another attempt is under way, the segment was taken over, or there is no number left.
    pub fn begin(&mut self) -> Result<Epoch, BeginError> {
        if let Some(end) = self.end {
            return Err(BeginError::Ended(end));
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

    pub(super) fn abandon(&mut self) -> Option<Epoch> {
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

    /// The attempt under way.
    #[must_use]
    pub fn attempt(&self) -> Option<Epoch> {
        self.attempt
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

    pub(super) fn start_pushes(&mut self) {
        let Some(epoch) = self.attempt else { return };
        for follower in &mut self.followers {
            if let Some(target) = follower.start(epoch) {
                self.actions.push_back(Action::Push { member: follower.member, epoch, target });
            }
        }
    }

    pub(super) fn acknowledge(&mut self) {
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

    pub(super) fn is_enough(&self, in_sync: impl Iterator<Item = Member>) -> bool {
        self.policy.below == BelowMinimum::Continue
            || self.elsewhere(in_sync) >= self.policy.minimum
            || !rule::holds(Rule::Minimum)
    }

    /// How many of `members` survive the owner's node.
    pub(super) fn elsewhere(&self, members: impl Iterator<Item = Member>) -> usize {
        members.filter(|member| Some(member.node) != self.node || !rule::holds(Rule::OwnNode)).count()
    }
}
