//! Loads an image: its block table, then its blocks, straight into working memory, verified.
//!
//! Pieces of the image are pulled with several reads in flight; while one arrives, the one before is verified. A block that does not
//! match is asked of the next copy.

pub(crate) mod source;

use std::collections::VecDeque;
use std::ops::Range;

use segstore_core::changes::{Changes, runs};
use segstore_core::id::{Epoch, Member, SegmentId};
use segstore_core::layout::{BlockIndex, Entry, Geometry, Key, SlotHeader};
use segstore_core::slot::{Damage, verify_table};
use segstore_core::takeover::Unusable;
use segstore_transport::{Error as TransportError, Memory};

use crate::causes::Causes;
use crate::control::message::Place;
use crate::error::Result;
use crate::session::Inner as Session;
use crate::working::Working;
use source::Source;

/// One copy of the image.
pub(crate) struct Origin {
    pub(crate) place: Place,
    pub(crate) slot: u32,
}

/// What was loaded.
pub(crate) struct Loaded {
    length: u64,
    epoch: Epoch,
    entries: Vec<Entry>,
}

impl Loaded {
    /// The owner's table after this load.
    pub(crate) fn changes(self, geometry: Geometry, segment: SegmentId) -> Changes {
        Changes::of_image(Key::of(segment), geometry, self.length, self.entries, self.epoch)
    }
}

/// Loads from the first copy that is good, block by block.
pub(crate) struct Loader<'s> {
    session: &'s Session,
    name: &'s str,
    geometry: Geometry,
    origins: VecDeque<Origin>,
    problems: Vec<(Member, u32, Unusable)>,
    causes: Causes,
}

impl<'s> Loader<'s> {
    pub(crate) fn new(session: &'s Session, name: &'s str, geometry: Geometry, origins: Vec<Origin>) -> Self {
        Self { session, name, geometry, origins: origins.into(), problems: Vec::new(), causes: Causes::default() }
    }

    /// What was wrong with copies so far, and in which slots.
    pub(crate) fn problems(&self) -> &[(Member, u32, Unusable)] {
        &self.problems
    }

    /// What kept copies out of reach.
    pub(crate) fn take_causes(&mut self) -> Causes {
        std::mem::take(&mut self.causes)
    }

    /// Brings the image into `working`, which holds zeros or what an earlier attempt left; `None`: no copy is good, see the problems.
    /// Blocks that were verified there against these rows are read only where the image has another row.
    pub(crate) fn load(
        &mut self,
        header: &SlotHeader,
        working: &mut Working,
        rows: &[Entry],
    ) -> Result<Option<Loaded>> {
        working.reaches(header.length);
        let scratch = source::scratch(&self.geometry)?;
        let mut entries: Option<Vec<Entry>> = None;
        let mut missing = Vec::new();
        while let Some(origin) = self.origins.pop_front() {
            let (member, slot) = (origin.place.member, origin.slot);
            let has_other_way = self.session.domains.distrusted.news_of(member.node);
            let mut source = match self.open(&origin, working, &scratch) {
                Ok(source) => source,
                Err(why) => {
                    tracing::warn!(segment = self.name, "a copy cannot be read: {why}");
                    self.causes.note_unreached(member, why.to_string());
                    self.problems.push((member, slot, Unusable::OutOfReach));
                    continue;
                }
            };
            match self.pull(header, &mut source, working, &mut entries, &mut missing, rows) {
                Ok(bad) if bad.is_empty() => {
                    let entries = entries.unwrap_or_default();
                    working.clear_beyond(header.length);
                    return Ok(Some(Loaded { length: header.length, epoch: header.image.epoch, entries }));
                }
                Ok(bad) => {
                    self.problems.push((member, slot, Unusable::Damaged(header.image, Damage::Blocks(bad.clone()))));
                    missing = bad.into_iter().map(|block| block..block + 1).collect();
                }
                Err(Broken::Unusable(why)) => self.problems.push((member, slot, why)),
                Err(Broken::Lost(error)) => {
                    tracing::warn!(segment = self.name, "the copy that was being read is out of reach: {error}");
                    if has_other_way() {
                        self.origins.push_front(origin);
                        continue;
                    }
                    self.causes.note_unreached(member, error.to_string());
                    self.problems.push((member, slot, Unusable::OutOfReach));
                }
            }
        }
        Ok(None)
    }

    fn open(&self, origin: &Origin, working: &Working, scratch: &Memory) -> Result<Source> {
        Source::open(self.session, self.name, &self.geometry, &origin.place, origin.slot, working, scratch)
    }

    /// Pulls the `missing` blocks, which are told with the table; gives those that do not match.
    fn pull(
        &self,
        header: &SlotHeader,
        source: &mut Source,
        working: &Working,
        entries: &mut Option<Vec<Entry>>,
        missing: &mut Vec<Range<BlockIndex>>,
        rows: &[Entry],
    ) -> std::result::Result<Vec<BlockIndex>, Broken> {
        if entries.is_none() {
            let table = source.pull_table(&self.geometry, header)?;
            verify_table(header, &table).map_err(|damage| Broken::Unusable(Unusable::Damaged(header.image, damage)))?;
            let stands = |i: &BlockIndex| rows.get(*i as usize) == Some(&table[*i as usize]);
            let blocks = 0..self.geometry.blocks_of(header.length);
            runs(blocks.filter(|i| !stands(i)), |first, count| missing.push(first..first + count));
            *entries = Some(table);
        }
        let table = entries.as_deref().unwrap_or_default();
        let key = Key::of(header.segment);
        let mut bad = Vec::new();
        let mut check = |blocks: Range<BlockIndex>| {
            bad.extend(blocks.filter(|&i| !table[i as usize].describes(key, i, working.block(i))));
        };
        source.pull_blocks(&self.geometry, missing, &mut check)?;
        Ok(bad)
    }
}

/// Why the pulling of a copy came to nothing.
enum Broken {
    Unusable(Unusable),
    Lost(TransportError),
}

impl From<TransportError> for Broken {
    fn from(error: TransportError) -> Self {
        Self::Lost(error)
    }
}
