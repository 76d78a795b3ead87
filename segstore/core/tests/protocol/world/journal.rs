//! What was promised to whom: kept beside the cluster, and unknown to it.

use segstore_core::id::{Stamp, Term};

/// A promise that was broken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Violation {
    /// A load gave bytes that are no checkpoint's.
    Torn,
    /// A load gave an image that lacks what was acknowledged.
    Forgotten,
    /// A load found no whole image in a replica that was in sync.
    Unreadable,
    /// A lower term was acknowledged after a takeover that lacks it.
    NotFenced,
    /// Two images were acknowledged of which neither contains the other.
    Forked,
    /// The directory had gone back, and nobody said so.
    WentBack,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Image {
    stamp: Stamp,
    parent: Option<Stamp>,
    content: Vec<u8>,
}

/// Everything that was attempted, acknowledged and loaded.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Journal {
    images: Vec<Image>,
    acknowledged: Option<Stamp>,
    /// The takeover of the highest term that has returned, and what it loaded.
    takeover: Option<(Term, Stamp)>,
    takeovers: usize,
    violation: Option<Violation>,
}

impl Journal {
    pub fn violation(&self) -> Option<Violation> {
        self.violation
    }

    pub fn acknowledged(&self) -> Option<Stamp> {
        self.acknowledged
    }

    pub fn takeovers(&self) -> usize {
        self.takeovers
    }

    /// A checkpoint of `content` was begun on top of `parent`.
    pub fn attempted(&mut self, stamp: Stamp, parent: Option<Stamp>, content: &[u8]) {
        self.images.push(Image { stamp, parent, content: content.to_vec() });
        self.images.sort_unstable_by_key(|image| image.stamp);
    }

    /// A process was told that `stamp` is acknowledged.
    pub fn acknowledge(&mut self, stamp: Stamp) {
        match self.acknowledged {
            Some(before) if self.contains(stamp, before) => self.acknowledged = Some(stamp),
            Some(before) if !self.contains(before, stamp) => self.broken(Violation::Forked),
            Some(_) => {}
            None => self.acknowledged = Some(stamp),
        }
        if self.takeover.is_some_and(|(term, loaded)| term > stamp.term && !self.contains(loaded, stamp)) {
            self.broken(Violation::NotFenced);
        }
    }

    /// A takeover at `term` has returned with `content` as the image `stamp`.
    pub fn took_over(&mut self, term: Term, stamp: Stamp, content: &[u8]) {
        self.takeovers += 1;
        // A number that was used twice has two contents; a load may give either.
        if !self.images.iter().any(|image| image.stamp == stamp && image.content == content) {
            self.broken(Violation::Torn);
        }
        if self.acknowledged.is_some_and(|before| !self.contains(stamp, before)) {
            self.broken(Violation::Forgotten);
        }
        if self.takeover.is_none_or(|(before, _)| before < term) {
            self.takeover = Some((term, stamp));
        }
    }

    pub fn broken(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// Whether `image` is `ancestor` or was built on it.
    fn contains(&self, image: Stamp, ancestor: Stamp) -> bool {
        let mut at = Some(image);
        while let Some(stamp) = at {
            if stamp == ancestor {
                return true;
            }
            at = self.images.iter().find(|image| image.stamp == stamp).and_then(|image| image.parent);
        }
        false
    }
}
