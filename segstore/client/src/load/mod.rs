//! Loads an image: its block table, then its blocks, straight into working memory, verified.
//!
//! Pieces of the image are pulled with several reads in flight; while one arrives, the one before is verified. A block that does not
//! match is asked of the next copy.

pub(crate) mod source;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::mpsc::{TryRecvError, channel};

use segstore_core::changes::{Changes, runs};
use segstore_core::id::Member;
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

/// Bytes that are verified on a core of their own.
const LARGE: u64 = 4 << 20;

/// One copy of the image.
pub(crate) struct Origin {
    pub(crate) place: Place,
    pub(crate) slot: u32,
}

/// Where an image is brought.
pub(crate) struct Target {
    /// Zeros, or what an earlier attempt left, or what was copied ahead.
    pub(crate) working: Working,
    /// For block tables.
    pub(crate) scratch: Memory,
    /// Rows of blocks that stand there, each verified against its own; the default of a block that does not.
    pub(crate) rows: Vec<Entry>,
}

impl Target {
    /// Zeros.
    pub(crate) fn new(geometry: &Geometry) -> Result<Self> {
        Ok(Self { working: Working::new(geometry)?, scratch: source::scratch(geometry)?, rows: Vec::new() })
    }
}

/// What was loaded.
pub(crate) struct Loaded {
    header: SlotHeader,
    entries: Vec<Entry>,
}

impl Loaded {
    /// The owner's table after this load.
    pub(crate) fn changes(self, geometry: Geometry) -> Changes {
        Changes::of_image(geometry, &self.header, self.entries)
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

    /// Brings the image into `to`; `None`: no copy is good, see the problems.
    pub(crate) fn load(&mut self, header: &SlotHeader, to: &mut Target) -> Result<Option<Loaded>> {
        to.working.reaches(header.length);
        let (mut entries, mut missing) = (None, Vec::new());
        while let Some(origin) = self.origins.pop_front() {
            let (member, slot) = (origin.place.member, origin.slot);
            let has_other_way = self.session.domains.distrusted.news_of(member.node);
            let mut source = match self.open(&origin, to) {
                Ok(source) => source,
                Err(why) => {
                    tracing::warn!(segment = self.name, "a copy cannot be read: {why}");
                    self.causes.note_unreached(member, why.to_string());
                    self.problems.push((member, slot, Unusable::OutOfReach));
                    continue;
                }
            };
            match self.pull(header, &mut source, to, (&mut entries, &mut missing)) {
                Ok(bad) if bad.is_empty() => {
                    to.working.clear_beyond(header.length);
                    source.let_go(to.working.bytes().len());
                    return Ok(Some(Loaded { header: header.clone(), entries: entries.unwrap_or_default() }));
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

    fn open(&self, origin: &Origin, to: &Target) -> Result<Source> {
        let Origin { place, slot } = origin;
        Source::open(self.session, self.name, &self.geometry, place, *slot, &to.working, &to.scratch)
    }

    /// Pulls the `missing` blocks, which are told with the table; gives those that do not match.
    fn pull(
        &self,
        header: &SlotHeader,
        source: &mut Source,
        to: &mut Target,
        (entries, missing): (&mut Option<Vec<Entry>>, &mut Vec<Range<BlockIndex>>),
    ) -> std::result::Result<Vec<BlockIndex>, Broken> {
        let table = match entries {
            Some(table) => table,
            None => {
                // Where it comes in part, or is damaged, nothing is known any more of what stands.
                let table = self.pull_table(header, source, std::mem::take(&mut to.rows), missing)?;
                verify_table(header, &table)
                    .map_err(|damage| Broken::Unusable(Unusable::Damaged(header.image, damage)))?;
                entries.insert(table)
            }
        };
        let (key, working) = (Key::of(header.segment), &to.working);
        let is_bad = |i: &BlockIndex| !table[*i as usize].describes(key, *i, working.block(*i));
        let count: u32 = missing.iter().map(|blocks| blocks.end - blocks.start).sum();
        let is_large = u64::from(count) * u64::from(self.geometry.block_size()) >= LARGE;
        std::thread::scope(|scope| {
            let (arrived, pieces) = channel::<Range<BlockIndex>>();
            // Another core has memory made ready before bytes come, and looks at what has arrived. Over TCP that pays where the sender
            // needs a core of the same two as well: it waits for whoever looks between two reads.
            let ahead = &*missing;
            let check = move || {
                let mut bad = Vec::new();
                for blocks in source::pieces(&self.geometry, ahead) {
                    working.populate(blocks);
                    match pieces.try_recv() {
                        Ok(arrived) => bad.extend(arrived.filter(is_bad)),
                        Err(TryRecvError::Empty) => {}
                        // All have come, or no more will.
                        Err(TryRecvError::Disconnected) => return bad,
                    }
                }
                bad.extend(pieces.into_iter().flatten().filter(is_bad));
                bad
            };
            let checking = std::thread::Builder::new().name("segstore-verify".into());
            let has_spare_core = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
            let checking = (is_large && has_spare_core).then(|| checking.spawn_scoped(scope, check).ok()).flatten();
            let Some(checking) = checking else {
                let mut bad = Vec::new();
                source.pull_blocks(&self.geometry, missing, &mut |blocks| bad.extend(blocks.filter(is_bad)))?;
                return Ok(bad);
            };
            source.pull_blocks(&self.geometry, missing, &mut |blocks| drop(arrived.send(blocks)))?;
            drop(arrived);
            // It ends by a panic only.
            Ok(checking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    /// Pulls the table over the rows of what stands; tells the blocks that do not.
    fn pull_table(
        &self,
        header: &SlotHeader,
        source: &mut Source,
        mut rows: Vec<Entry>,
        missing: &mut Vec<Range<BlockIndex>>,
    ) -> std::result::Result<Vec<Entry>, TransportError> {
        let none = Entry::default();
        rows.resize(self.geometry.blocks_of(header.length) as usize, none);
        missing.clear();
        let mut from = 0;
        source.pull_rows(&self.geometry, header, |found| {
            let known = &mut rows[from as usize..][..found.len()];
            let blocks = from..from + u32::try_from(found.len()).unwrap_or(u32::MAX);
            from = blocks.end;
            // Mostly they are all the same. What does not stand is missing, whatever row is found.
            if known != found || known.contains(&none) {
                let is_missing = |(old, new): (&Entry, &Entry)| old != new || *old == none;
                let all = blocks.zip(known.iter().zip(found));
                let lacking = all.filter(|(_, rows)| is_missing(*rows)).map(|(i, _)| i);
                runs(lacking, |first, count| missing.push(first..first + count));
                known.copy_from_slice(found);
            }
        })?;
        Ok(rows)
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
