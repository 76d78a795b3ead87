//! Reading without ownership: an image is copied from a replica while the segment's owner, if there is one, goes on.
//!
//! Nobody is fenced, so a slot may be written while it is read, and its owner may be replaced. A reader therefore looks at the
//! record and at the slot's head before the copy and after it, and begins again if either has changed.
//!
//! Which image is acknowledged only a living owner knows: it names a slot and holds it still ([`Reader::of_hold`]). Where it does
//! not answer, the newest image that is closed can be given to somebody who asks for one that *may be pending*
//! ([`Reader::of_heads`]). Of an owner that is known to be gone nothing is read here: the reader takes over.
//!
//! Where somebody holds the segment's name, and has not opened it, there is no owner to ask, and nobody may take over. What every
//! member of the in-sync set has as its newest image counts as acknowledged then ([`Reader::of_all`]), whoever wrote it: what was
//! acknowledged before is in all of them and not newer, and what anybody loads later is not older.
//!
//! In this order: read the record; ask the owner, or not; read heads; copy table and blocks of [`Reader::place`] and verify them
//! ([`verify_table`](crate::slot::verify_table), [`verify_blocks`](crate::slot::verify_blocks)); read that head again; read the
//! record again; ask [`Reader::copied`] what the copy is worth.

use crate::id::{Member, Stamp};
use crate::layout::{Ownership, SlotHeader};
use crate::owner::Hold;
use crate::record::Versioned;
use crate::rule::{self, Rule};
use crate::slot::{Damage, SlotView, stood_still};
use crate::takeover::{Unusable, members};

/// A slot to copy an image from.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Place {
    /// The replica.
    pub member: Member,
    /// Its slot.
    pub slot: u32,
    /// What stands there.
    pub header: SlotHeader,
}

/// Why nothing was read.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Unread {
    /// Begin again: the record changed.
    #[error("the segment's record changed while it was read (owner {} in term {}); read again", .0.owner, .0.term)]
    RecordChanged(Ownership),
    /// Begin again: somebody answered who is not the owner.
    #[error("owner {} of term {} answered, but the record names owner {} of term {}; read again",
        .answered.owner, .answered.term, .record.owner, .record.term)]
    NotTheOwner {
        /// Who answered.
        answered: Ownership,
        /// Who should have.
        record: Ownership,
    },
    /// Begin again: the hold is over.
    #[error("slot {} of {} holds {} no more, the hold is over; read again", .0.slot, .0.member, .0.image)]
    HoldOver(Hold),
    /// Begin again: the members of the in-sync set do not all answer with the same newest image.
    #[error("the replicas in sync do not all show the same newest image")]
    NotInAll,
    /// Begin again: the slot was written.
    #[error("slot {slot} of {member} was written while it was read; read again")]
    SlotWritten {
        /// The replica.
        member: Member,
        /// Its slot.
        slot: u32,
    },
    /// There is no good copy.
    #[error("no replica holds an image that can be read: {}", members(.0))]
    Unreadable(Vec<(Member, Unusable)>),
}

impl Unread {
    /// Whether the reader should begin again, with the record.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        !matches!(self, Self::Unreadable(_))
    }
}

/// What a copy is worth.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// It is the image of [`Reader::place`], whole.
    Accepted,
    /// It is damaged. Copy what [`Reader::place`] names now.
    Elsewhere,
}

/// One attempt to read a segment's image.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Reader {
    before: Versioned,
    /// What is copied now.
    place: Place,
    /// What is copied if that is damaged, the best last.
    others: Vec<Place>,
    passed_over: Vec<(Member, Unusable)>,
}

impl Reader {
    /// Reads what the segment's owner holds for the reader: its newest acknowledged image. `before` is the record from which the
    /// reader knew the owner, `answered` who gave the hold, `head` the slot's head as read afterwards.
    ///
    /// # Errors
    /// Somebody else answered, the hold is over, or the slot's head is damaged.
    pub fn of_hold(before: Versioned, answered: Ownership, hold: Hold, head: SlotView) -> Result<Self, Unread> {
        let is_checked = rule::holds(Rule::ReadTheHeld);
        let record = before.ownership();
        if answered != record && is_checked {
            return Err(Unread::NotTheOwner { answered, record });
        }
        let damage = Unusable::of_slot(hold.slot, &head);
        let header = match head {
            SlotView::Closed(header) if header.image == hold.image || !is_checked => header,
            _ => return Err(damage.map_or(Unread::HoldOver(hold), |why| Unread::Unreadable(vec![(hold.member, why)]))),
        };
        let place = Place { member: hold.member, slot: hold.slot, header };
        Ok(Self { before, place, others: Vec::new(), passed_over: Vec::new() })
    }

    /// Reads the newest image that is closed on any member of the in-sync set that answers. It may be pending, and there may be
    /// newer ones where [`Reader::passed_over`] says that something could not be read. `answers` has the heads of the members'
    /// slots, the nearest member first.
    ///
    /// # Errors
    /// No member holds a closed image, or one has a slot that another version of this software wrote: if the record has changed, begin again.
    pub fn of_heads(
        before: Versioned,
        answers: Vec<(Member, Result<Vec<SlotView>, Unusable>)>,
    ) -> Result<Self, Unread> {
        let (mut places, mut passed_over) = (Vec::new(), Vec::new());
        // What a takeover left out of the set may hold what nobody may see any more.
        let is_member = |member: &Member| before.record.in_sync.contains(member);
        for (member, answer) in answers.into_iter().filter(|(member, _)| is_member(member)) {
            match answer {
                Ok(slots) => {
                    passed_over.extend(Unusable::of_slots(&slots).into_iter().map(|why| (member, why)));
                    let closed = (0..).zip(slots).filter_map(|(slot, view)| Some((slot, view.into_closed()?)));
                    places.extend(closed.map(|(slot, header)| Place { member, slot, header }));
                }
                Err(why) => passed_over.push((member, why)),
            }
        }
        places.reverse();
        places.sort_by_key(|place| place.header.image);
        let is_of_other_version = |(_, why): &(_, Unusable)| matches!(why, Unusable::OtherVersion { .. });
        match places.pop().filter(|_| !passed_over.iter().any(is_of_other_version)) {
            Some(place) => Ok(Self { before, place, others: places, passed_over }),
            None => Err(Unread::Unreadable(passed_over)),
        }
    }

    /// Reads the image that is the newest closed one of every member of the in-sync set: no acknowledged one is newer, and every takeover
    /// loads it, or what follows it. `answers` as for [`Reader::of_heads`], read after `before` was.
    ///
    /// # Errors
    /// A member does not answer, has another, or a slot that nobody can tell anything of; or the directory is older than what stands there.
    pub fn of_all(before: Versioned, answers: Vec<(Member, Result<Vec<SlotView>, Unusable>)>) -> Result<Self, Unread> {
        let newest_of = |member: &Member| {
            let (_, slots) = answers.iter().find(|(answered, _)| answered == member)?;
            let slots = slots.as_ref().ok().filter(|slots| Unusable::of_slots(slots).is_empty())?;
            slots.iter().filter_map(SlotView::image).max()
        };
        let mut newest = before.record.in_sync.iter().map(newest_of);
        let agreed =
            newest.next().flatten().filter(|image| image.term <= before.record.term).ok_or(Unread::NotInAll)?;
        if newest.any(|image| image != Some(agreed)) && rule::holds(Rule::ReadWhatAllHave) {
            return Err(Unread::NotInAll);
        }
        let only = |mut slots: Vec<SlotView>| {
            let is_other = |view: &&mut SlotView| view.image() != Some(agreed);
            slots.iter_mut().filter(is_other).for_each(|view| *view = SlotView::Blank);
            slots
        };
        Self::of_heads(before, answers.into_iter().map(|(member, slots)| (member, slots.map(only))).collect())
    }

    /// What to copy.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The image that is copied.
    #[must_use]
    pub fn image(&self) -> Stamp {
        self.place.header.image
    }

    /// What could not be read so far, and why.
    #[must_use]
    pub fn passed_over(&self) -> &[(Member, Unusable)] {
        &self.passed_over
    }

    /// The copy was made and verified: `copy`. Since then the slot's head was read again, and after that the record.
    ///
    /// # Errors
    /// Something changed meanwhile, or no good copy is left.
    pub fn copied(&mut self, copy: Result<(), Damage>, head: &SlotView, record: &Versioned) -> Result<Verdict, Unread> {
        let Place { member, slot, ref header } = self.place;
        if *record != self.before && rule::holds(Rule::AskAgain) {
            return Err(Unread::RecordChanged(record.ownership()));
        }
        if !stood_still(header, head) {
            return Err(Unread::SlotWritten { member, slot });
        }
        let Err(damage) = copy else { return Ok(Verdict::Accepted) };
        self.passed_over.push((member, Unusable::Damaged(header.image, damage)));
        match self.others.pop() {
            Some(place) => self.place = place,
            None => return Err(Unread::Unreadable(std::mem::take(&mut self.passed_over))),
        }
        Ok(Verdict::Elsewhere)
    }
}
