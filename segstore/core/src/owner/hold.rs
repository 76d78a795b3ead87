//! Slots that stand still for readers.

use super::Owner;
use crate::id::{Member, Stamp};

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
}
