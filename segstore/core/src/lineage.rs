//! Which images an image descends from.
//!
//! Terms fork: an owner that was cut off may have completed a push that no takeover ever saw. So two images cannot be compared
//! by their epochs alone. An image's lineage lists, for each earlier term that it descends from, the last epoch of that term that
//! it contains.

use std::sync::Arc;

use crate::id::{Stamp, Term};

/// How many ancestors a slot header has room for. Older ones are forgotten, which is safe: a slot whose term is not in the
/// lineage is filled in full.
pub const CAPACITY: usize = 51;

/// The last epoch of each term that leads to an image, oldest first, terms rising. Cheap to clone: every header carries it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Lineage(Arc<[Stamp]>);

/// A lineage read from memory that does not make sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LineageError {
    /// More ancestors than a header has room for.
    #[error("a lineage of {0} entries, at most {CAPACITY} fit")]
    TooLong(usize),
    /// Terms must rise from entry to entry, and so must epochs.
    #[error("lineage entry {after:?} does not follow {before:?}")]
    NotRising {
        /// The entry before.
        before: Stamp,
        /// The entry that should have been above it.
        after: Stamp,
    },
}

impl Lineage {
    /// The lineage of an image of the first term.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Checks entries that came from memory or from the wire.
    ///
    /// # Errors
    /// Too many entries, or entries out of order.
    pub fn from_entries(entries: Vec<Stamp>) -> Result<Self, LineageError> {
        if entries.len() > CAPACITY {
            return Err(LineageError::TooLong(entries.len()));
        }
        match entries.windows(2).find(|pair| pair[0].term >= pair[1].term || pair[0].epoch > pair[1].epoch) {
            Some(pair) => Err(LineageError::NotRising { before: pair[0], after: pair[1] }),
            None => Ok(Self(entries.into())),
        }
    }

    /// The lineage of images that are built on `image`, whose own lineage this is.
    #[must_use]
    pub fn extended_by(&self, image: Stamp) -> Self {
        if image == Stamp::EMPTY {
            return self.clone();
        }
        let forgotten = (self.0.len() + 1).saturating_sub(CAPACITY);
        Self(self.0[forgotten..].iter().copied().chain([image]).collect())
    }

    /// Whether an image built on this lineage contains everything that `image` does. Every lineage contains the empty image.
    #[must_use]
    pub fn contains(&self, image: Stamp) -> bool {
        image == Stamp::EMPTY || self.last_epoch_of(image.term).is_some_and(|last| image.epoch <= last.epoch)
    }

    /// Whether the lineage reaches back to `term`: if not, what it does not contain may only have been forgotten.
    #[must_use]
    pub fn knows(&self, term: Term) -> bool {
        self.0.len() < CAPACITY || self.0.first().is_some_and(|oldest| oldest.term <= term)
    }

    /// The newest image of `term` that this lineage contains.
    #[must_use]
    pub fn last_epoch_of(&self, term: Term) -> Option<Stamp> {
        self.0.iter().copied().find(|entry| entry.term == term)
    }

    /// The entries, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[Stamp] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_only_what_the_branch_saw() {
        let lineage = Lineage::root().extended_by(Stamp::new(1, 5)).extended_by(Stamp::new(3, 9));
        assert!(lineage.contains(Stamp::EMPTY));
        assert!(lineage.contains(Stamp::new(1, 5)));
        assert!(!lineage.contains(Stamp::new(1, 6)), "term 1 went on after the takeover had read epoch 5");
        assert!(!lineage.contains(Stamp::new(2, 6)), "nothing of term 2 was taken over");
        assert!(lineage.contains(Stamp::new(3, 7)));
    }

    #[test]
    fn forgets_the_oldest_when_full() {
        let mut lineage = Lineage::root();
        for n in 1..=CAPACITY as u64 + 3 {
            lineage = lineage.extended_by(Stamp::new(n, n));
        }
        assert_eq!(lineage.entries().len(), CAPACITY);
        assert!(!lineage.contains(Stamp::new(3, 3)) && !lineage.knows(Term(3)));
        assert!(lineage.knows(Term(4)));
        assert!(lineage.contains(Stamp::new(4, 4)));
    }

    #[test]
    fn rejects_what_cannot_be_a_lineage() {
        let falling = vec![Stamp::new(2, 1), Stamp::new(1, 2)];
        assert!(matches!(Lineage::from_entries(falling), Err(LineageError::NotRising { .. })));
        let long = (0..52).map(|n| Stamp::new(n, n)).collect();
        assert_eq!(Lineage::from_entries(long), Err(LineageError::TooLong(52)));
    }
}
