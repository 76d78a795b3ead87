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
    /// Something of a lower term was acknowledged, or seen by a load, after a takeover that lacks it.
    NotFenced,
    /// A reader was given as acknowledged what nobody had acknowledged.
    Unacknowledged,
    /// An image that a reader held was written.
    HeldAndWritten,
    /// Something was acknowledged by fewer replicas than the policy asks for.
    TooFew,
    /// A daemon forgot a replica that the record lists.
    ForgottenInSync,
    /// A healthy replica was let go, and none of those who stay holds what is acknowledged.
    LetGo,
    /// An owner that waits for nothing is not done with letting go of a replica.
    NotLetGo,
    /// An owner took over what another had let go, and found something else than that one's last checkpoint.
    NotAsLeft,
    /// Who holds the segment's name was kept from it by a caretaker.
    ShutOut,
    /// Two images were acknowledged of which neither contains the other.
    Forked,
}

/// The place of an image in the journal. A stamp would not do: a number that is used twice names two images.
pub type Index = u8;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Image {
    stamp: Stamp,
    /// What working memory held before.
    parent: Option<Index>,
    content: Vec<u8>,
}

/// Everything that was attempted, acknowledged and loaded.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Journal {
    images: Vec<Image>,
    acknowledged: Option<Index>,
    /// The takeover of the highest term that has returned, and what it loaded.
    takeover: Option<(Term, Index)>,
    /// What a reader was given last.
    read: Option<Index>,
    /// The last checkpoint of an owner that has let go, until somebody begins another.
    left: Option<Index>,
    violation: Option<Violation>,
}

impl Journal {
    pub fn violation(&self) -> Option<Violation> {
        self.violation
    }

    pub fn acknowledged(&self) -> Option<Stamp> {
        self.acknowledged.map(|index| self.images[index as usize].stamp)
    }

    /// What the last takeover loaded.
    pub fn taken_over(&self) -> Option<Stamp> {
        self.takeover.map(|(_, index)| self.images[index as usize].stamp)
    }

    /// What a reader was given last.
    pub fn last_read(&self) -> Option<Stamp> {
        self.read.map(|index| self.images[index as usize].stamp)
    }

    /// Whether `content` was ever to be the image `stamp`. The empty image is always there.
    pub fn has(&self, stamp: Stamp, content: &[u8]) -> bool {
        stamp == Stamp::EMPTY && content.is_empty()
            || self.images.iter().any(|image| image.stamp == stamp && image.content == content)
    }

    /// The newest image that is acknowledged.
    pub fn newest(&self) -> Option<Index> {
        self.acknowledged
    }

    /// Somebody who began when `since` was acknowledged has read `content` as the image `stamp`, which was said to be
    /// acknowledged, or may be pending.
    pub fn read(&mut self, stamp: Stamp, content: &[u8], since: Option<Index>, is_acknowledged: bool) {
        let Some(image) = self.find(stamp, content) else { return self.broken(Violation::Torn) };
        let takeover = self.takeover;
        self.read = Some(image);
        if since.is_some_and(|before| !self.contains(image, before)) {
            self.broken(Violation::Forgotten);
        }
        if takeover.is_some_and(|(later, loaded)| later > stamp.term && !self.contains(loaded, image)) {
            self.broken(Violation::NotFenced);
        }
        let known = [self.acknowledged, takeover.map(|(_, loaded)| loaded)];
        if is_acknowledged && !known.into_iter().flatten().any(|newer| self.contains(newer, image)) {
            self.broken(Violation::Unacknowledged);
        }
    }

    fn find(&self, stamp: Stamp, content: &[u8]) -> Option<Index> {
        let found = self.images.iter().position(|image| image.stamp == stamp && image.content == content);
        found.map(|index| index as Index)
    }

    /// A checkpoint of `content` was begun, in memory that was at `parent`.
    pub fn attempted(&mut self, stamp: Stamp, parent: Option<Index>, content: &[u8]) -> Index {
        self.left = None;
        self.images.push(Image { stamp, parent, content: content.to_vec() });
        self.images.len() as Index - 1
    }

    /// The owner that the record names lets go, its memory at `image`: what it attempted last, or loaded.
    pub fn let_go(&mut self, image: Option<Index>) {
        self.left = image.filter(|_| image == self.acknowledged);
    }

    /// A process was told that its attempt `image` is acknowledged.
    pub fn acknowledge(&mut self, image: Index) {
        match self.acknowledged {
            Some(before) if self.contains(image, before) => self.acknowledged = Some(image),
            Some(before) if !self.contains(before, image) => self.broken(Violation::Forked),
            Some(_) => {}
            None => self.acknowledged = Some(image),
        }
        let term = self.images[image as usize].stamp.term;
        if self.takeover.is_some_and(|(later, loaded)| later > term && !self.contains(loaded, image)) {
            self.broken(Violation::NotFenced);
        }
    }

    /// A takeover at `term` has returned with `content` as the image `stamp`.
    pub fn took_over(&mut self, term: Term, stamp: Stamp, content: &[u8]) -> Option<Index> {
        let Some(image) = self.find(stamp, content) else {
            self.broken(Violation::Torn);
            return None;
        };
        if self.acknowledged.is_some_and(|before| !self.contains(image, before)) {
            self.broken(Violation::Forgotten);
        }
        if self.left.is_some_and(|left| left != image) {
            self.broken(Violation::NotAsLeft);
        }
        match self.takeover {
            Some((before, loaded)) if before < term && !self.contains(image, loaded) => {
                self.broken(Violation::NotFenced);
            }
            Some((later, loaded)) if later > term && !self.contains(loaded, image) => self.broken(Violation::NotFenced),
            _ => {}
        }
        if self.takeover.is_none_or(|(before, _)| before < term) {
            self.takeover = Some((term, image));
        }
        Some(image)
    }

    pub fn broken(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// Whether `image` is `ancestor` or was built on it.
    fn contains(&self, image: Index, ancestor: Index) -> bool {
        let parents = std::iter::successors(Some(image), |&index| self.images[index as usize].parent);
        parents.into_iter().any(|index| index == ancestor)
    }
}
