//! Takeover: claim the next term, fence the replicas, choose the newest image, load it, seal.
//!
//! The claim alone keeps nobody out; the fence does. The seal keeps a member that was not fenced, and that the old owner may
//! still be writing to, from ever being read as if it were in sync. Where the seal would change nothing it is not written, but
//! the record is read once more: a claimant that was itself overtaken while it loaded must not return what is old by then.

use std::collections::VecDeque;

use crate::id::{Member, OwnerId, Stamp, Term};
use crate::layout::{self, Ownership, SlotHeader};
use crate::lineage::Lineage;
use crate::owner::Start;
use crate::record::{Record, RecordVersion, Swap, Versioned};
use crate::replica::{Refused, Request};
use crate::rule::{self, Rule};
use crate::slot::{Damage, SlotView};

/// What a takeover wants done.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Read the record, again until there is an answer; then call [`Takeover::record_read`].
    ReadRecord,
    /// Change the record; then call [`Takeover::swapped`], [`Takeover::conflicted`] or [`Takeover::swap_unknown`].
    Swap(Swap),
    /// Fence a replica and read its slots' heads; then call [`Takeover::fenced`] or [`Takeover::not_fenced`].
    Fence {
        /// The replica.
        member: Member,
        /// What to ask it.
        request: Request,
    },
    /// Load this image, any block of it from any of these slots; then call [`Takeover::loaded`] or [`Takeover::unreadable`].
    Load {
        /// What the image is.
        header: SlotHeader,
        /// Where it stands.
        sources: Vec<(Member, u32)>,
    },
    /// The segment is the claimant's: go on from here.
    Done(Start),
    /// It is not.
    Failed(Failure),
}

/// Why a member could not be used.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Unusable {
    /// It did not answer.
    #[error("out of reach")]
    OutOfReach,
    /// It answered that it will not.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It holds no whole image.
    #[error("holds no whole image")]
    NoImage,
    /// The head of a slot is damaged: what stands in it is not known.
    #[error("the head of its slot {0} is damaged")]
    HeadDamaged(u32),
    /// A slot was written by another version of this software.
    #[error(
        "its slot {slot} has format version {version}, this version reads {}: use a version that reads it",
        layout::VERSION
    )]
    OtherVersion {
        /// The slot.
        slot: u32,
        /// The version of its format.
        version: u32,
    },
    /// It holds the image, damaged.
    #[error("holds {0}, but {1}")]
    Damaged(Stamp, Damage),
}

impl Unusable {
    /// What keeps the head of slot `slot` from being read, if anything does.
    #[must_use]
    pub fn of_slot(slot: u32, view: &SlotView) -> Option<Self> {
        match *view {
            SlotView::Damaged { .. } => Some(Self::HeadDamaged(slot)),
            SlotView::OtherVersion(version) => Some(Self::OtherVersion { slot, version }),
            SlotView::Closed(_) | SlotView::Open(_) | SlotView::Blank => None,
        }
    }

    /// Everything that is wrong with the heads of a replica's slots: that none is closed, at least, if none is.
    #[must_use]
    pub fn of_slots(slots: &[SlotView]) -> Vec<Self> {
        let mut wrong: Vec<_> = (0..).zip(slots).filter_map(|(slot, view)| Self::of_slot(slot, view)).collect();
        if wrong.is_empty() && slots.iter().all(|view| view.closed().is_none()) {
            wrong.push(Self::NoImage);
        }
        wrong
    }
}

/// Why a takeover ended without the segment.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Failure {
    /// Another claimant was faster.
    #[error("owner {} took the segment over in term {}", .0.owner, .0.term)]
    Overtaken(Ownership),
    /// No number is left.
    #[error("the record has term {0}, after which none can be counted: the directory is damaged, restore a copy of it")]
    TermsUsedUp(Term),
    /// No member of the in-sync set could be fenced.
    #[error("no replica in sync can be used: {}", members(.0))]
    NoneInReach(Vec<(Member, Unusable)>),
    /// No copy of the newest image can be used, and it may have been acknowledged.
    #[error("no good copy of {image}, which may have been acknowledged: {}", members(.replicas))]
    NoGoodCopy {
        /// The image.
        image: Stamp,
        /// What is wrong with each replica.
        replicas: Vec<(Member, Unusable)>,
    },
    /// The newest image that can be read may not be the newest that was acknowledged.
    #[error("something newer than {readable} may have been acknowledged: {}", members(.replicas))]
    Hidden {
        /// The newest image that can be read.
        readable: Stamp,
        /// Where something newer may stand.
        replicas: Vec<(Member, Unusable)>,
    },
    /// The directory was restored from an old copy.
    #[error(
        "the directory went back: its record has term {}, but {member} remembers term {}; restore a newer copy of the directory",
        .record.term, .remembered.term
    )]
    DirectoryWentBack {
        /// What the directory says.
        record: Ownership,
        /// The replica that knows better.
        member: Member,
        /// What it remembers.
        remembered: Ownership,
    },
}

pub(crate) fn members(replicas: &[(Member, Unusable)]) -> String {
    replicas.iter().map(|(member, why)| format!("{member}: {why}")).collect::<Vec<_>>().join("; ")
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Stage {
    Reading,
    Claiming(Swap),
    ClaimUnknown(Swap),
    Fencing,
    /// A replica knows of a later term: another claimant, or a directory that went back?
    Doubting(Member, Ownership),
    Loading,
    /// No good copy: or did somebody who came later overwrite it?
    Unreadable,
    /// The claim is being taken back, so that the next one is refused as well.
    Retreating(Failure),
    /// The set stays as it is, so no write tells whether another claimant came meanwhile: ask.
    Confirming(Swap),
    Sealing(Swap),
    SealUnknown(Swap),
    Over,
}

/// One takeover of one segment.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Takeover {
    owner: OwnerId,
    stage: Stage,
    /// The record before the claim.
    before: Option<Record>,
    /// The record as claimed.
    claimed: Option<Versioned>,
    answers: Vec<(Member, Result<Vec<SlotView>, Unusable>)>,
    /// The image that was chosen.
    chosen: Option<SlotHeader>,
    /// The slot that it is loaded from, if that one's mark is damaged.
    unmarked: Option<(Member, u32)>,
    /// Such slots that turned out to hold nothing whole.
    tried: Vec<(Member, u32)>,
    /// Images of which no good copy was found.
    given_up: Vec<Stamp>,
    /// What was wrong with the copies.
    unreadable: Vec<(Member, Unusable)>,
    actions: VecDeque<Action>,
}

impl Takeover {
    /// Begins to take a segment over as `owner`, an id that was never used before.
    #[must_use]
    pub fn new(owner: OwnerId) -> Self {
        Self {
            owner,
            stage: Stage::Reading,
            before: None,
            claimed: None,
            answers: Vec::new(),
            chosen: None,
            unmarked: None,
            tried: Vec::new(),
            given_up: Vec::new(),
            unreadable: Vec::new(),
            actions: VecDeque::from([Action::ReadRecord]),
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The record as claimed, once it is.
    #[must_use]
    pub fn claimed(&self) -> Option<&Versioned> {
        self.claimed.as_ref()
    }

    // ---- the directory ----

    /// The record as the directory has it.
    pub fn record_read(&mut self, current: Versioned) {
        let ours = current.record.owner == self.owner;
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Reading => self.claim(&current),
            Stage::ClaimUnknown(_) if ours => self.hold(current),
            Stage::ClaimUnknown(swap) => self.claim_again(&swap, &current),
            Stage::Doubting(member, remembered) => self.settle_doubt(current, member, remembered),
            Stage::Retreating(failure) => self.fail(failure),
            Stage::Unreadable if ours => self.fail(self.nothing_to_load()),
            Stage::Unreadable => self.overtaken(&current),
            Stage::Confirming(swap) | Stage::SealUnknown(swap) if ours => self.seal_again(&swap, current),
            Stage::Confirming(_) | Stage::SealUnknown(_) => self.overtaken(&current),
            other => self.stage = other,
        }
    }

    /// The change was made; the record has this version now.
    pub fn swapped(&mut self, version: RecordVersion) {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Claiming(swap) => self.hold(Versioned { version, record: swap.new }),
            Stage::Sealing(swap) => self.finish(Versioned { version, record: swap.new }),
            Stage::Retreating(failure) => self.fail(failure),
            other => self.stage = other,
        }
    }

    /// The change was not made, since the record had changed to `current`.
    pub fn conflicted(&mut self, current: Versioned) {
        let ours = current.record.owner == self.owner;
        match std::mem::replace(&mut self.stage, Stage::Over) {
            // One's own, sent twice.
            Stage::Claiming(_) if ours => self.hold(current),
            Stage::Sealing(swap) if ours => self.seal_again(&swap, current),
            Stage::Claiming(swap) => self.claim_again(&swap, &current),
            Stage::Sealing(_) => self.overtaken(&current),
            Stage::Retreating(failure) => self.fail(failure),
            other => self.stage = other,
        }
    }

    /// Whether the change was made is not known. It may still be.
    pub fn swap_unknown(&mut self) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Claiming(swap) => Stage::ClaimUnknown(swap),
            Stage::Sealing(swap) => Stage::SealUnknown(swap),
            other => other, // Of a claim that is taken back, nothing hangs on the answer.
        };
        self.actions.push_back(Action::ReadRecord);
    }

    fn claim(&mut self, current: &Versioned) {
        let term = current.record.term;
        if term == term.next() {
            return self.fail(Failure::TermsUsedUp(term));
        }
        let swap = Swap { expected: current.clone(), new: current.record.claimed_by(self.owner) };
        self.before = Some(current.record.clone());
        self.stage = Stage::Claiming(swap.clone());
        self.actions.push_back(Action::Swap(swap));
    }

    /// The old owner may have changed the set meanwhile: that is no rival.
    fn claim_again(&mut self, swap: &Swap, current: &Versioned) {
        if current.record.owner == swap.expected.record.owner {
            self.claim(current);
        } else {
            self.overtaken(current);
        }
    }

    fn hold(&mut self, claimed: Versioned) {
        let asker = Ownership { term: claimed.record.term, owner: self.owner };
        for &member in &claimed.record.in_sync {
            let request = Request { segment: claimed.record.segment, incarnation: member.incarnation, asker };
            self.actions.push_back(Action::Fence { member, request });
        }
        let nobody = claimed.record.in_sync.is_empty();
        self.claimed = Some(claimed);
        self.stage = Stage::Fencing;
        if nobody {
            self.choose();
        }
    }

    fn settle_doubt(&mut self, current: Versioned, member: Member, remembered: Ownership) {
        let ours = current.record.owner == self.owner;
        if !ours && current.record.term >= remembered.term {
            return self.overtaken(&current);
        }
        let failure = Failure::DirectoryWentBack { record: current.ownership(), member, remembered };
        match self.before.take().filter(|_| ours) {
            // Left as it is, the claim's term would let the next claimant pass for newer than what the replica remembers.
            Some(before) => {
                self.stage = Stage::Retreating(failure);
                self.actions.push_back(Action::Swap(Swap { expected: current, new: before }));
            }
            None => self.fail(failure),
        }
    }

    fn overtaken(&mut self, current: &Versioned) {
        self.fail(Failure::Overtaken(current.ownership()));
    }

    fn fail(&mut self, failure: Failure) {
        self.stage = Stage::Over;
        self.actions.push_back(Action::Failed(failure));
    }

    // ---- the fence ----

    /// The replica is fenced; these are its slots.
    pub fn fenced(&mut self, member: Member, slots: Vec<SlotView>) {
        self.answered(member, Ok(slots));
    }

    /// The replica could not be fenced.
    pub fn not_fenced(&mut self, member: Member, why: Unusable) {
        if let Unusable::Refused(Refused::TermOver { remembered, .. } | Refused::TermTaken { remembered, .. }) = why
            && self.stage == Stage::Fencing
            && rule::holds(Rule::DirectoryWentBack)
        {
            self.stage = Stage::Doubting(member, remembered);
            self.actions.push_back(Action::ReadRecord);
        }
        self.answered(member, Err(why));
    }

    fn answered(&mut self, member: Member, answer: Result<Vec<SlotView>, Unusable>) {
        let Some(claimed) = &self.claimed else { return };
        let is_news = !self.answers.iter().any(|(answered, _)| *answered == member);
        if !is_news || !claimed.record.in_sync.contains(&member) {
            return;
        }
        self.answers.push((member, answer));
        if self.stage == Stage::Fencing && self.answers.len() == claimed.record.in_sync.len() {
            self.choose();
        }
    }

    fn slots(&self) -> impl Iterator<Item = (Member, u32, &SlotView)> {
        let fenced = self.answers.iter().filter_map(|(member, answer)| Some((*member, answer.as_ref().ok()?)));
        fenced.flat_map(|(member, slots)| (0..).zip(slots).map(move |(index, slot)| (member, index, slot)))
    }

    // ---- the image ----

    /// Loads the newest image that was not given up.
    fn choose(&mut self) {
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

    fn nothing_to_load(&self) -> Failure {
        let why = |(member, answer): &(Member, Result<Vec<SlotView>, Unusable>)| {
            let wrong = answer.as_ref().map_or_else(|why| vec![why.clone()], |slots| Unusable::of_slots(slots));
            wrong.into_iter().map(|why| (*member, why)).collect::<Vec<_>>()
        };
        match self.given_up.first() {
            Some(&image) => Failure::NoGoodCopy { image, replicas: self.unreadable.clone() },
            None => Failure::NoneInReach(self.answers.iter().flat_map(why).collect()),
        }
    }

    /// The copy of `member` turned out to be damaged, whether or not another was loaded instead: it is in sync no more.
    pub fn damaged(&mut self, member: Member, why: &Unusable) {
        let answers = self.answers.iter_mut().filter(|(answered, _)| *answered == member);
        answers.for_each(|(_, answer)| *answer = Err(why.clone()));
    }

    /// The image is loaded and verified.
    pub fn loaded(&mut self) {
        let (Stage::Loading, Some(claimed), Some(chosen)) = (&self.stage, &self.claimed, &self.chosen) else { return };
        let swap = Swap { expected: claimed.clone(), new: claimed.record.with_in_sync(self.holders(chosen.image)) };
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

    // ---- the seal ----

    /// The fenced members whose newest whole image is `image`.
    fn holders(&self, image: Stamp) -> Vec<Member> {
        if let Some((member, _)) = self.unmarked {
            return vec![member];
        }
        let fenced = self.answers.iter().filter_map(|(member, answer)| Some((member, answer.as_ref().ok()?)));
        let holders = fenced.filter(|(_, slots)| slots.iter().filter_map(SlotView::image).max() == Some(image));
        holders.map(|(member, _)| *member).collect()
    }

    fn send_seal(&mut self, swap: Swap) {
        self.stage = Stage::Sealing(swap.clone());
        self.actions.push_back(Action::Swap(swap));
    }

    /// The record is still ours, and the seal stands in it, may yet come, or met another change.
    fn seal_again(&mut self, swap: &Swap, current: Versioned) {
        if current.record == swap.new {
            self.finish(current);
        } else {
            let new = current.record.with_in_sync(swap.new.in_sync.clone());
            self.send_seal(Swap { expected: current, new });
        }
    }

    fn finish(&mut self, record: Versioned) {
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
