//! Takeover: claim the next term, fence the replicas, choose the newest image, load it, seal.
//!
//! The claim alone keeps nobody out; the fence does. The seal keeps a member that was not fenced, and that the old owner may
//! still be writing to, from ever being read as if it were in sync. Where the seal would change nothing it is not written, but
//! the record is read once more: a claimant that was itself overtaken while it loaded must not return what is old by then.
//!
//! Who claims as a [caretaker](OwnerId::caretaker) asks between reading the record and claiming whether somebody has the segment open,
//! and then leaves it: whoever claimed before that is seen, and whoever comes later claims over it.

mod failure;
mod image;
mod seal;

use std::collections::VecDeque;

use crate::id::{Member, OwnerId, Stamp};
use crate::layout::{Ownership, SlotHeader};
use crate::owner::Start;
use crate::record::{Record, RecordVersion, Swap, Versioned};
use crate::replica::{Refused, Request};
use crate::rule::{self, Rule};
use crate::slot::SlotView;

pub(crate) use failure::members;
pub use failure::{Failure, Unusable};

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
    /// Load this image, any block of it from any of these slots, or from what [`Takeover::local_source`] adds to them; then call [`Takeover::loaded`] or [`Takeover::unreadable`].
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
    /// Slots that turned out to be damaged when they were loaded.
    damage: Vec<(Member, u32, Unusable)>,
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
            damage: Vec::new(),
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

    /// The old owner may have changed the set meanwhile, or a caretaker have come, which looked before this name was held: these are no rivals.
    fn claim_again(&mut self, swap: &Swap, current: &Versioned) {
        let claimant = current.record.owner;
        let is_caretaker = claimant.is_caretaker() && rule::holds(Rule::CaretakerIsNoRival);
        if claimant == swap.expected.record.owner || is_caretaker && !self.owner.is_caretaker() {
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
}
