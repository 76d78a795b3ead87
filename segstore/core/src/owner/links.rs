//! The ways to the replicas: had, lost, given up.

use super::follower::{Link, Role};
use super::{Action, Owner};
use crate::id::{Epoch, Member};
use crate::layout::BlockIndex;
use crate::replica::Refused;
use crate::rule::{self, Rule};

impl Owner {
    /// The push of `epoch` to a replica ends before it is complete, and all blocks below `blocks` stand there, with their entries: the next push
    /// into that slot goes on from there. Then call [`Owner::lost`] or [`Owner::failed`].
    pub fn ended_after(&mut self, member: Member, epoch: Epoch, blocks: BlockIndex) {
        if let Some(follower) = self.follower_mut(member) {
            follower.end_after(epoch, blocks);
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

    /// Replicas that are neither reached nor given up, so far or again: checkpoints wait for one or the other.
    pub fn connecting(&self) -> impl Iterator<Item = Member> + '_ {
        self.followers.iter().filter(|f| f.is_connecting()).map(|f| f.member)
    }

    /// Replicas without an endpoint.
    pub fn disconnected(&self) -> impl Iterator<Item = Member> + '_ {
        self.followers.iter().filter(|f| !f.is_connected()).map(|f| f.member)
    }
}
