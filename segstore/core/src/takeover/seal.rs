//! The end of a takeover: the in-sync set becomes what was fenced and holds the loaded image.

use super::{Action, Stage, Takeover};
use crate::id::{Member, Stamp};
use crate::layout::{Ownership, SlotHeader};
use crate::lineage::Lineage;
use crate::owner::Start;
use crate::record::{Swap, Versioned};
use crate::rule::{self, Rule};
use crate::slot::SlotView;

impl Takeover {
    /// The image is loaded and verified.
    pub fn loaded(&mut self) {
        let (Stage::Loading, Some(claimed), Some(chosen)) = (&self.stage, &self.claimed, &self.chosen) else { return };
        let holders = self.holders(chosen.image);
        if holders.is_empty() {
            // It was loaded from beside the in-sync set, of which every copy is damaged: the directory would name nobody.
            return self.unreadable(self.unusable());
        }
        let swap = Swap { expected: claimed.clone(), new: claimed.record.with_in_sync(holders) };
        let unchanged = swap.new == claimed.record;
        if unchanged && rule::holds(Rule::ConfirmClaim) {
            self.stage = Stage::Confirming(swap);
            self.actions.push_back(Action::ReadRecord);
        } else if unchanged || !rule::holds(Rule::Seal) {
            self.finish(claimed.clone());
        } else {
            self.send_seal(swap);
        }
    }

    pub(super) fn send_seal(&mut self, swap: Swap) {
        self.stage = Stage::Sealing(swap.clone());
        self.actions.push_back(Action::Swap(swap));
    }

    /// The record is still ours, and the seal stands in it, may yet come, or met another change.
    pub(super) fn seal_again(&mut self, swap: &Swap, current: Versioned) {
        if current.record == swap.new {
            self.finish(current);
        } else {
            let new = current.record.with_in_sync(swap.new.in_sync.clone());
            self.send_seal(Swap { expected: current, new });
        }
    }

    pub(super) fn finish(&mut self, record: Versioned) {
        let Some(SlotHeader { image, lineage: ancestry, .. }) = self.chosen.take() else { return };
        self.stage = Stage::Over;
        let lineage = ancestry.extended_by(image);
        let followers = self.holders(image).into_iter().map(|member| self.follower(member, image, &lineage)).collect();
        let start = Start {
            segment: record.record.segment,
            ownership: Ownership { term: record.record.term, owner: self.owner },
            record,
            loaded: image,
            ancestry,
            followers,
        };
        self.actions.push_back(Action::Done(start));
    }

    fn follower(&self, member: Member, image: Stamp, lineage: &Lineage) -> (Member, Vec<Option<Stamp>>, u32) {
        let slots = || self.slots().filter(move |(holder, _, _)| *holder == member);
        let is_newest = |(holder, index, slot): &(Member, u32, &SlotView)| {
            slot.image() == Some(image) || self.unmarked == Some((*holder, *index))
        };
        let newest = slots().find(is_newest).map_or(0, |(_, index, _)| index);
        let base =
            |place: (Member, u32, &SlotView)| if is_newest(&place) { Some(image) } else { place.2.base(lineage) };
        (member, slots().map(base).collect(), newest)
    }
}
