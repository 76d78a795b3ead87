//! Repair: a replica that was made for it is filled from one in the in-sync set while the owner goes on.
//!
//! The copy may be fuzzy: while it runs, the owner writes the source's slots. It need only be true that every block stands at the
//! base image or later, because the owner then pushes every block modified since the base, and only that push makes a slot
//! valid. For that, a block's table entry is read before the block: an entry may be older than its block, never newer.
//!
//! What was modified meanwhile can be copied as well, by [`Repair::again`], as often as that is less than before: the owner's application
//! waits for what is left to be pushed. A block stays as it is then unless its row at the source says that it was modified since what the
//! copy was at least, which the owner's own push goes by.
//!
//! Where the source stood still meanwhile, the copy is exact and its first slot is closed: an idle segment is repaired without
//! waiting for its next checkpoint.
//!
//! A target that was made out of a former replica holds most blocks already. A block stays as it is there if its row is the source's, and
//! says that it was not modified since an image that the slot held whole and the source's image descends from: so lineage decides, as for
//! a push by difference.

use std::collections::VecDeque;

use crate::id::{Stamp, Term};
use crate::layout::{BlockIndex, Entry, Geometry, SlotHeader};
use crate::rule::{self, Rule};
use crate::slot::{SlotView, stood_still};

/// The next thing to do, in this order. The target's own memory is meant unless the source is named.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// Read the head of the source's slot; then call [`Repair::source_head`].
    ReadHead,
    /// Read these table entries of the source, beside the target's own; then say by [`Repair::compared`] which blocks are to be copied: those
    /// that [`Repair::keeps`] does not keep, or that are not what their entry says.
    Compare {
        /// The first block.
        first: BlockIndex,
        /// How many.
        count: u32,
    },
    /// Read these table entries of the source; then say by [`Repair::compared`] which blocks are to be copied: those that
    /// [`Repair::is_newer`] says.
    Survey {
        /// The first block.
        first: BlockIndex,
        /// How many.
        count: u32,
    },
    /// Read these table entries of the source.
    ReadEntries {
        /// The first block.
        first: BlockIndex,
        /// How many.
        count: u32,
    },
    /// Read these blocks of the source.
    ReadBlocks {
        /// The first block.
        first: BlockIndex,
        /// How many.
        count: u32,
    },
    /// Put these blocks, and then their entries, into every one of `slots`. What follows may be read meanwhile: pieces share nothing. It
    /// is done before the copy is closed or reported.
    Store {
        /// The first block.
        first: BlockIndex,
        /// How many.
        count: u32,
        /// The slots to fill.
        slots: u32,
    },
    /// If every block that was stored is what its entry says, and the table is what this header says, close slot 0 with it.
    Close(Box<SlotHeader>),
    /// The copy is complete; report it to the owner.
    Finished,
    /// The source does not hold what the owner said; report that.
    SourceChanged,
}

/// One repair, from one slot of a source.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Repair {
    geometry: Geometry,
    base: Stamp,
    chunk: u32,
    stage: Stage,
    /// The source's slot as it was before the copy.
    head: Option<SlotHeader>,
    /// What every slot of the target holds at least from before.
    held: Option<Stamp>,
    /// What every slot of the target is at least since the copy before this one.
    since: Option<Stamp>,
    /// Where the blocks begin that nobody has looked at.
    looked_at: BlockIndex,
    /// What is to be copied of those before: first block and count, of which the first is under way.
    pieces: VecDeque<(BlockIndex, u32)>,
}

/// Pieces that are compared at once: their rows fit where one piece does.
pub const COMPARED: u32 = 64;
/// Blocks that are kept between two that are not are copied with them, if they are no more than this part of a piece: further reads cost
/// more.
const GAPS: u32 = 64;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Stage {
    Head,
    Compare,
    Survey,
    Entries,
    Blocks,
    Store,
    HeadAgain,
    Close,
    Finished,
    /// The source's head is looked at for another copy.
    HeadOnceMore(Term),
    SourceChanged,
}

impl Repair {
    /// Copies the image `base`, or what follows it, in pieces of `chunk` blocks.
    #[must_use]
    pub fn new(geometry: Geometry, base: Stamp, chunk: u32) -> Self {
        let (stage, pieces) = (Stage::Head, VecDeque::new());
        Self { geometry, base, chunk: chunk.max(1), stage, head: None, held: None, since: None, looked_at: 0, pieces }
    }

    /// The slots of a former replica, as far as the target can begin with them: those that hold no image which the source's descends from
    /// count as blank. Level them before [`Repair::onto`].
    #[must_use]
    pub fn usable(&self, slots: Vec<SlotView>) -> Vec<SlotView> {
        let lineage = self.head.as_ref().map(|header| header.lineage.extended_by(header.image));
        let base = |view: &SlotView| lineage.as_ref().and_then(|lineage| view.base(lineage));
        // Of the empty image nothing can be kept.
        let is_usable = |view: &SlotView| base(view).is_some_and(|base| base != Stamp::EMPTY);
        slots.into_iter().map(|view| if is_usable(&view) { view } else { SlotView::Blank }).collect()
    }

    /// The target is made out of a former replica, whose slots were these, as far as they are [usable](Self::usable). Said before anything
    /// is copied.
    pub fn onto(&mut self, slots: &[SlotView]) {
        if self.head.is_none() {
            return; // Nothing is known of the source, or it is not what was said.
        }
        let images: Option<Vec<_>> = slots.iter().map(SlotView::image).collect();
        self.held = images.and_then(|images| images.into_iter().min());
        self.pieces.clear();
        self.looked_at = 0;
        self.stage = self.go_on();
    }

    /// Whether a block stays as it is in a slot of the target, since its entry there is `own`, and the source's is `source`.
    #[must_use]
    pub fn keeps(&self, source: &Entry, own: &Entry) -> bool {
        self.held.is_some_and(|held| source == own && source.modified() <= held.epoch)
    }

    /// Of the copy that is [finished](Step::Finished) every slot of the target has every block, stored. Whatever was modified since it was
    /// begun is copied as well, if the source holds a later image now: otherwise it is finished as it was, and can be asked again.
    ///
    /// No image of a later owner than `term`, in whose name it is copied: what that one found unmodified may have been copied from an
    /// attempt that it knows nothing of.
    pub fn again(&mut self, term: Term) {
        if self.stage == Stage::Finished {
            self.stage = Stage::HeadOnceMore(term);
        }
    }

    /// Whether the block with this entry at the source was modified since what the copy before this one was at least.
    #[must_use]
    pub fn is_newer(&self, source: &Entry) -> bool {
        self.since.is_some_and(|since| source.modified() > since.epoch)
    }

    /// Of the compared blocks, in their order: whether one is to be copied.
    pub fn compared(&mut self, are_lacking: &[bool]) {
        if !matches!(self.stage, Stage::Compare | Stage::Survey) {
            return;
        }
        let gap = self.chunk / GAPS;
        for (at, _) in (self.looked_at..).zip(are_lacking).filter(|(_, is_lacking)| **is_lacking) {
            match self.pieces.back_mut() {
                Some((first, count)) if at - *first < self.chunk && at - *first - *count <= gap => {
                    *count = at - *first + 1;
                }
                _ => self.pieces.push_back((at, 1)),
            }
        }
        self.looked_at += u32::try_from(are_lacking.len()).unwrap_or(u32::MAX);
        self.stage = self.go_on();
    }

    /// What the copy is at least.
    #[must_use]
    pub fn base(&self) -> Stamp {
        self.base
    }

    /// How far the first copy is: blocks copied, blocks to copy.
    #[must_use]
    pub fn progress(&self) -> (u32, u32) {
        match self.stage {
            _ if self.since.is_some() => (self.blocks(), self.blocks()),
            Stage::Head => (0, self.blocks()),
            Stage::Compare | Stage::Entries | Stage::Blocks | Stage::Store => {
                (self.pieces.front().map_or(self.looked_at, |(first, _)| *first), self.blocks())
            }
            _ => (self.blocks(), self.blocks()),
        }
    }

    /// The step to perform. It stays the same until [`Repair::advance`], [`Repair::source_head`] or [`Repair::compared`] is called.
    #[must_use]
    pub fn step(&self) -> Step {
        let entries_first = rule::holds(Rule::RepairEntryFirst);
        let (first, count) = self.pieces.front().copied().unwrap_or_default();
        match self.stage {
            Stage::Head | Stage::HeadAgain | Stage::HeadOnceMore(_) => Step::ReadHead,
            Stage::Compare => Step::Compare { first: self.looked_at, count: self.next_rows() },
            Stage::Survey => Step::Survey { first: self.looked_at, count: self.next_rows() },
            Stage::Entries if entries_first => Step::ReadEntries { first, count },
            Stage::Blocks if !entries_first => Step::ReadEntries { first, count },
            Stage::Entries | Stage::Blocks => Step::ReadBlocks { first, count },
            Stage::Store => {
                let slots = if rule::holds(Rule::RepairAllSlots) { self.geometry.slots() } else { 1 };
                Step::Store { first, count, slots }
            }
            Stage::Close => match &self.head {
                Some(header) => Step::Close(Box::new(header.clone())),
                None => Step::SourceChanged,
            },
            Stage::Finished => Step::Finished,
            Stage::SourceChanged => Step::SourceChanged,
        }
    }

    /// The step was performed.
    pub fn advance(&mut self) {
        self.stage = match self.stage {
            Stage::Entries => Stage::Blocks,
            Stage::Blocks => Stage::Store,
            Stage::Store => {
                self.pieces.pop_front();
                self.go_on()
            }
            Stage::Close => Stage::Finished,
            other => other,
        };
    }

    /// The source's slot looks like this.
    pub fn source_head(&mut self, view: SlotView) {
        self.stage = match self.stage {
            // The owner may have gone on meanwhile; whatever it closed there contains the base.
            Stage::Head => match view.into_closed().filter(|header| header.image >= self.base) {
                Some(header) => {
                    self.base = header.image;
                    self.head = Some(header);
                    self.go_on()
                }
                None => Stage::SourceChanged,
            },
            Stage::HeadAgain if self.head.as_ref().is_some_and(|before| stood_still(before, &view)) => Stage::Close,
            Stage::HeadAgain => Stage::Finished,
            Stage::HeadOnceMore(term) => match view.into_closed() {
                Some(header) if header.image > self.base && header.image.term <= term => {
                    self.since = Some(self.base);
                    self.base = header.image;
                    self.head = Some(header);
                    self.looked_at = 0;
                    self.go_on()
                }
                _ => Stage::Finished,
            },
            other => other,
        };
    }

    /// With the next piece, where there is one.
    fn go_on(&mut self) -> Stage {
        if !self.pieces.is_empty() {
            return Stage::Entries;
        }
        match self.next(self.chunk) {
            0 => Stage::HeadAgain,
            _ if self.since.is_some() => Stage::Survey,
            _ if self.held.is_some() => Stage::Compare,
            count => {
                self.pieces.push_back((self.looked_at, count));
                self.looked_at += count;
                Stage::Entries
            }
        }
    }

    fn blocks(&self) -> u32 {
        self.head.as_ref().map_or(0, |header| self.geometry.blocks_of(header.length))
    }

    /// Rows that are looked at together.
    fn next_rows(&self) -> u32 {
        self.next(self.chunk.saturating_mul(COMPARED))
    }

    /// So many blocks that nobody has looked at, or as many as are left.
    fn next(&self, count: u32) -> u32 {
        count.min(self.blocks() - self.looked_at)
    }
}
