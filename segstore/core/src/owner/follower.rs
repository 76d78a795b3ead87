//! What the owner knows of one replica: its slots, its link, its part in the attempt under way.

use std::collections::VecDeque;

use super::Action;
use crate::id::{Epoch, Member, Stamp};
use crate::layout::BlockIndex;
use crate::push::{Begun, Target};
use crate::rule::{self, Rule};

/// How a replica takes part.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Role {
    /// In the directory's in-sync set: every acknowledgement waits for it.
    InSync,
    /// Was repaired and gets the pushes; acknowledgements do not rely on it.
    Joining,
    /// Holds what is acknowledged; its add may stand in the directory or may not. Every acknowledgement waits for it.
    Adding,
    /// On the owner's own node: makes a restart there instant, and counts for nothing.
    Local,
    /// Healthy, and no member any more: gets the pushes, until those who are members have shown that they do without it.
    Parting,
}

/// Whether a replica that stays has shown that it holds what is acknowledged, since another one is to be let go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Proof {
    /// It has not.
    Missing,
    /// It is being looked at, under this number.
    Asked(u64),
    /// By a push that it took, or as it was looked at.
    Given,
}

/// The way to a replica. While it is [`Link::Connecting`] nobody is removed for that: the attempt under way waits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Link {
    /// No endpoint, so far or again; the driver is trying.
    Connecting,
    /// There is an endpoint to push through.
    Connected,
    /// The driver has given the replica up.
    Failed,
}

/// One slot of the replica.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Slot {
    /// The image that the slot has every block of; blocks modified later may stand there too. `None`: not known.
    base: Option<Stamp>,
    /// How far a push into it came that was ended.
    begun: Option<Begun>,
    /// How many readers hold it.
    pins: u32,
}

/// The push of one epoch into one slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Push {
    epoch: Epoch,
    slot: u32,
    done: bool,
}

/// A replica as the owner sees it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Follower {
    pub(super) member: Member,
    pub(super) role: Role,
    link: Link,
    /// To be let go even if no attempt needs that.
    pub(super) leaving: bool,
    proof: Proof,
    slots: Vec<Slot>,
    /// The slot that holds the newest acknowledged image, or a newer one that may stand in for it.
    newest: Option<u32>,
    push: Option<Push>,
}

impl Follower {
    /// `bases` says for each slot what it can be brought up to date from.
    pub(super) fn new(member: Member, role: Role, bases: Vec<Option<Stamp>>, newest: Option<u32>) -> Self {
        let slots = bases.into_iter().map(|base| Slot { base, begun: None, pins: 0 }).collect();
        Self { member, role, link: Link::Connecting, leaving: false, proof: Proof::Missing, slots, newest, push: None }
    }

    /// Whether acknowledgements wait for this replica: because they rely on it, or because a push to it still reads working
    /// memory, which the application may change once the call has returned.
    pub(super) fn is_awaited(&self) -> bool {
        match self.role {
            Role::InSync => true,
            Role::Adding if rule::holds(Rule::WaitWhileAdding) => true,
            Role::Adding | Role::Joining | Role::Local | Role::Parting => {
                self.is_busy() && rule::holds(Rule::MemoryRests)
            }
        }
    }

    /// Whether the push of `epoch` stands here.
    pub(super) fn has_done(&self, epoch: Epoch) -> bool {
        self.push.is_some_and(|push| push.done && push.epoch == epoch)
    }

    /// Whether a push is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.push.is_some_and(|push| !push.done)
    }

    /// The image in the slot that is spared.
    pub(super) fn newest_image(&self) -> Option<Stamp> {
        self.newest.and_then(|slot| self.slots[slot as usize].base)
    }

    /// The slot that is spared.
    pub(super) fn newest_slot(&self) -> Option<u32> {
        self.newest
    }

    /// Starts the push of `epoch`, if the replica can take it now: the target, or `None`. A push that failed is repeated when
    /// the replica is connected again: the same bytes into the same slot, and the earlier endpoint is revoked by then.
    pub(super) fn start(&mut self, epoch: Epoch) -> Option<Target> {
        let taken = self.push.is_some_and(|push| push.epoch == epoch);
        if !self.is_connected() || self.is_busy() || taken {
            return None;
        }
        let slot = self.free_slot()?;
        self.push = Some(Push { epoch, slot, done: false });
        let Slot { base, begun, .. } = self.slots[slot as usize];
        Some(Target { slot, base, begun })
    }

    /// The slot to write: not the one that holds the newest acknowledged image, none that is read. Of several the one that
    /// lags least, so that a slot once used for a hold does not take part for ever.
    fn free_slot(&self) -> Option<u32> {
        let spared = self.newest.filter(|_| rule::holds(Rule::SpareTheNewest));
        let free = (0..)
            .zip(&self.slots)
            .filter(|(index, slot)| Some(*index) != spared && (slot.pins == 0 || !rule::holds(Rule::RespectPins)));
        free.max_by_key(|(index, slot)| (slot.base, std::cmp::Reverse(*index))).map(|(index, _)| index)
    }

    /// The push of this image, if it is the one under way, has completed.
    pub(super) fn complete(&mut self, image: Stamp) {
        if let Some(push) = self.push.as_mut().filter(|push| !push.done && push.epoch == image.epoch) {
            push.done = true;
            let slot = &mut self.slots[push.slot as usize];
            (slot.base, slot.begun) = (Some(image), None);
            self.proof = Proof::Given;
        }
    }

    /// The push of `epoch`, if it is the one under way, ends after all blocks below this one.
    pub(super) fn end_after(&mut self, epoch: Epoch, blocks: BlockIndex) {
        let Some(push) = self.push.filter(|push| !push.done && push.epoch == epoch) else { return };
        let begun = &mut self.slots[push.slot as usize].begun;
        // An earlier one may have come further: what it left stands.
        if blocks > 0 && begun.is_none_or(|begun| begun.blocks <= blocks) {
            *begun = Some(Begun { epoch, blocks });
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.link == Link::Connected
    }

    pub(super) fn is_connecting(&self) -> bool {
        self.link == Link::Connecting
    }

    pub(super) fn has_failed(&self) -> bool {
        self.link == Link::Failed
    }

    pub(super) fn connect(&mut self) {
        self.link = Link::Connected;
    }

    /// The endpoint is gone; `link` says whether the driver goes on trying. What was under way may have left anything of its
    /// blocks in the slot; all of them are above the slot's base, so the base stands.
    pub(super) fn disconnect(&mut self, link: Link) {
        self.link = link;
        self.push.take_if(|push| !push.done);
    }

    /// Whether it is a member and is to be let go, or was one and has not been let go so far.
    pub(super) fn is_parting(&self) -> bool {
        self.role == Role::Parting || self.role == Role::InSync && self.leaving
    }

    /// Whether it is a member, and is to remain one.
    pub(super) fn stays(&self) -> bool {
        self.role == Role::InSync && !self.leaving
    }

    /// What it has shown is from before what it is to show.
    pub(super) fn forget_proof(&mut self) {
        self.proof = Proof::Missing;
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proof == Proof::Given || !rule::holds(Rule::ProveWhoStays)
    }

    /// It is looked at under this number, if it has shown nothing and nobody looks so far.
    pub(super) fn ask(&mut self, number: u64) -> bool {
        let is_missing = self.proof == Proof::Missing;
        if is_missing {
            self.proof = Proof::Asked(number);
        }
        is_missing
    }

    /// Who looked under this number has seen that it holds what is acknowledged. Whether that was still asked for.
    pub(super) fn prove(&mut self, number: u64) -> bool {
        let is_asked = self.proof == Proof::Asked(number);
        if is_asked {
            self.proof = Proof::Given;
        }
        is_asked
    }

    /// It counts again: at once, or when it was added.
    pub(super) fn recall(&mut self, actions: &mut VecDeque<Action>) {
        self.leaving = false;
        if self.role == Role::Parting {
            self.role = Role::Joining;
            actions.push_back(Action::Rejoins(self.member));
        }
    }

    /// From now on the slot that `epoch` was pushed to is the one to spare.
    pub(super) fn spare(&mut self, epoch: Epoch) {
        if let Some(push) = self.push.filter(|push| push.done && push.epoch == epoch) {
            self.newest = Some(push.slot);
        }
    }

    /// Keeps `slot` as it is until it is released.
    pub(super) fn pin(&mut self, slot: u32) {
        self.slots[slot as usize].pins += 1;
    }

    /// One reader less.
    pub(super) fn unpin(&mut self, slot: u32) {
        let pins = &mut self.slots[slot as usize].pins;
        *pins = pins.saturating_sub(1);
    }
}
