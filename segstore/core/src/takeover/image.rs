//! Which image is loaded: the newest that can be read, if nothing newer can have been acknowledged.

use super::{Action, Failure, Stage, Takeover, Unusable};
use crate::id::{Member, Stamp};
use crate::layout::Mark;
use crate::rule::{self, Rule};
use crate::slot::SlotView;

impl Takeover {
    pub(super) fn slots(&self) -> impl Iterator<Item = (Member, u32, &SlotView)> {
        let fenced = self.answers.iter().filter_map(|(member, answer)| Some((*member, answer.as_ref().ok()?)));
        fenced.flat_map(|(member, slots)| (0..).zip(slots).map(move |(index, slot)| (member, index, slot)))
    }

    /// Loads the newest image that was not given up.
    pub(super) fn choose(&mut self) {
        let images = self.slots().filter_map(|(_, _, slot)| slot.candidate());
        let newest = images.filter(|header| !self.given_up.contains(&header.image)).max_by_key(|header| header.image);
        let Some(header) = newest.cloned() else { return self.fail(self.nothing_to_load()) };
        if let Some(hidden) = self.hidden_above(header.image) {
            return self.fail(hidden);
        }
        let mut sources: Vec<_> = self.closed_on(header.image).collect();
        self.unmarked = None;
        if sources.is_empty() {
            // Whether such a slot is whole is known only once all of it was read from there: one at a time.
            self.unmarked = self.unmarked_on(header.image);
            sources.extend(self.unmarked);
        }
        self.stage = Stage::Loading;
        self.chosen = Some(header.clone());
        self.actions.push_back(Action::Load { header, sources });
    }

    fn closed_on(&self, image: Stamp) -> impl Iterator<Item = (Member, u32)> {
        let closed = self.slots().filter(move |(_, _, slot)| slot.image() == Some(image));
        closed.map(|(member, index, _)| (member, index))
    }

    /// A slot whose mark is damaged, whose header says `image`, and which was not tried.
    fn unmarked_on(&self, image: Stamp) -> Option<(Member, u32)> {
        let says_so =
            |slot: &SlotView| slot.closed().is_none() && slot.candidate().map(|header| header.image) == Some(image);
        let mut places = self.slots().filter(|(_, _, slot)| says_so(slot)).map(|(member, index, _)| (member, index));
        places.find(|place| !self.tried.contains(place))
    }

    /// Damaged heads that may hide something above `readable`, if no member in sync proves that there is nothing.
    fn hidden_above(&self, readable: Stamp) -> Option<Failure> {
        let hiding = self.slots().filter(|(_, _, slot)| slot.may_hide_above(readable));
        let hiding = hiding.filter_map(|(member, index, slot)| Some((member, Unusable::of_slot(index, slot)?)));
        let replicas: Vec<_> = hiding.collect();
        let at_most = |slot: &SlotView| slot.upper_bound().is_some_and(|bound| bound <= readable);
        let is_proven = self.fenced_members().any(|slots| slots.iter().all(at_most));
        let is_hidden = !replicas.is_empty() && !is_proven && rule::holds(Rule::ProveOlder);
        is_hidden.then_some(Failure::Hidden { readable, replicas })
    }

    fn fenced_members(&self) -> impl Iterator<Item = &Vec<SlotView>> {
        self.answers.iter().filter_map(|(_, answer)| answer.as_ref().ok())
    }

    pub(super) fn nothing_to_load(&self) -> Failure {
        match self.given_up.first() {
            Some(&image) => Failure::NoGoodCopy { image, replicas: self.unreadable.clone() },
            None => Failure::NoneInReach(self.unusable()),
        }
    }

    /// What is wrong with each member.
    pub(super) fn unusable(&self) -> Vec<(Member, Unusable)> {
        let why = |(member, answer): &(Member, Result<Vec<SlotView>, Unusable>)| {
            let wrong = answer.as_ref().map_or_else(|why| vec![why.clone()], |slots| Unusable::of_slots(slots));
            wrong.into_iter().map(|why| (*member, self.found(*member, why))).collect::<Vec<_>>()
        };
        self.answers.iter().flat_map(why).collect()
    }

    /// What the load has found in a slot says more than what became of its head here.
    fn found(&self, member: Member, why: Unusable) -> Unusable {
        let Unusable::HeadDamaged(slot) = why else { return why };
        let found = self.damage.iter().find(|(whose, which, _)| (*whose, *which) == (member, slot));
        found.map_or(why, |(_, _, found)| found.clone())
    }

    /// Of a replica beside the claimant that is not in the in-sync set: the slot that may serve as one more source of the image to
    /// load. It need not be fenced, since whatever is read there is checked against a header that was.
    #[must_use]
    pub fn local_source(&self, slots: &[SlotView]) -> Option<u32> {
        // Under a damaged mark only the copying of that very slot shows whether it is whole.
        let chosen = self.chosen.as_ref().filter(|_| self.stage == Stage::Loading && self.unmarked.is_none())?;
        (0..).zip(slots).find(|(_, slot)| slot.closed() == Some(chosen)).map(|(index, _)| index)
    }

    /// The copy in this slot turned out to be unusable, whether or not another was loaded instead. A slot that is damaged is filled in
    /// full before it counts again; the others of that replica are what they were. A replica that is out of reach is in sync no more. Of
    /// one that never was, nothing follows.
    pub fn damaged(&mut self, member: Member, slot: u32, why: &Unusable) {
        let Some((_, answer)) = self.answers.iter_mut().find(|(answered, _)| *answered == member) else { return };
        let view = answer.as_mut().ok().and_then(|slots| slots.get_mut(slot as usize));
        match (why, view) {
            (Unusable::Damaged(image, _), Some(view)) => {
                let mark = Mark { image: *image, former: None, is_closed: true };
                *view = SlotView::Damaged { mark: Some(mark), header: None };
                self.damage.push((member, slot, why.clone()));
            }
            _ => *answer = Err(why.clone()),
        }
    }

    /// No source gave a good copy of some part of the image: what is wrong with each.
    pub fn unreadable(&mut self, sources: Vec<(Member, Unusable)>) {
        let (Stage::Loading, Some(image)) = (&self.stage, self.chosen.as_ref().map(|header| header.image)) else {
            return;
        };
        self.unreadable.extend(sources);
        self.tried.extend(self.unmarked);
        if self.unmarked.is_some() && self.unmarked_on(image).is_some() {
            return self.choose();
        }
        self.given_up.push(image);
        if self.is_proven_unacknowledged(image) {
            self.choose();
        } else {
            self.stage = Stage::Unreadable;
            self.actions.push_back(Action::ReadRecord);
        }
    }

    /// Whether some in-sync member never held `image`: then it was never acknowledged, and an older one may be chosen.
    fn is_proven_unacknowledged(&self, image: Stamp) -> bool {
        let is_proven = self.fenced_members().any(|slots| slots.iter().all(|slot| slot.never_held(image)));
        is_proven || !rule::holds(Rule::ProveOlder)
    }

    /// The fenced members whose newest whole image is `image`.
    pub(super) fn holders(&self, image: Stamp) -> Vec<Member> {
        if let Some((member, _)) = self.unmarked {
            return vec![member];
        }
        let fenced = self.answers.iter().filter_map(|(member, answer)| Some((member, answer.as_ref().ok()?)));
        let holders = fenced.filter(|(_, slots)| slots.iter().filter_map(SlotView::image).max() == Some(image));
        holders.map(|(member, _)| *member).collect()
    }
}
