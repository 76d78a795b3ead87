//! Loads a checkpoint without owning the segment.
//!
//! A living owner is asked for its newest acknowledged checkpoint and holds that slot. So that it holds it for a short time only,
//! most of the image is copied before: what the owner changes meanwhile is copied again under the hold.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use segstore_core::changes::runs;
use segstore_core::id::{Epoch, Member, Stamp};
use segstore_core::layout::{BlockIndex, Entry, Geometry, Key, SlotHeader};
use segstore_core::owner::Hold;
use segstore_core::reader::{Reader, Unread, Verdict};
use segstore_core::slot::{Damage, SlotView, verify_table};
use segstore_core::takeover::Unusable;
use segstore_transport::{Error as TransportError, Memory};

use crate::causes::Causes;
use crate::control::message::{Answer, Fault, FaultKind, Held, Holder, Place, Request, SegmentInfo};
use crate::error::{Error, Result};
use crate::load::source::{self, Source};
use crate::name::HeldName;
use crate::options::LoadOptions;
use crate::session::{self, Inner as Session};
use crate::takeover::{self, unexpected, views};
use crate::working::{Working, in_memory};

/// How long a slot is held at most: a reader that died does not hold it for longer.
const HOLD: Duration = Duration::from_secs(10);
/// How long to begin again when something changed meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// A checkpoint, in this process's memory.
pub struct Image {
    working: Working,
    stamp: Stamp,
    length: usize,
    is_acknowledged: bool,
    warnings: Vec<String>,
}

impl Image {
    /// The state.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.working.bytes()[..self.length]
    }

    /// Which checkpoint it is.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.stamp.epoch
    }

    /// Whether it is known to be acknowledged; otherwise it may be pending.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.is_acknowledged
    }

    /// What could not be read on the way, for people.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// What is being copied, and what of it stands.
struct Copy {
    geometry: Geometry,
    working: Working,
    scratch: Memory,
    entries: Vec<Entry>,
    causes: Causes,
}

/// Loads the checkpoint that `options` ask for.
pub(crate) fn load(session: &Arc<Session>, name: &str, options: &LoadOptions) -> Result<Image> {
    let until = Instant::now() + PATIENCE;
    let mut passed_over = Vec::new();
    loop {
        let info = session.lookup(name)?;
        let result = match (&info.holder, options.epoch) {
            (_, Some(epoch)) => of_epoch(session, &info, epoch),
            // An owner that answers is not disturbed, whatever may be done to one that does not.
            (Some(holder), None) => match of_owner(session, &info, &mut passed_over) {
                Err(Failure::Owner(_)) if options.take_over => by_takeover(session, name, true),
                Err(Failure::Owner(_)) if options.pending => of_anybody(session, &info),
                // It reads as well, or holds the name for a program that has not opened the segment.
                Err(Failure::Owner(fault)) if fault.kind == FaultKind::NotHeld => of_all(session, &info, holder),
                other => other,
            },
            // A takeover finds one image in several slots that are damaged, each elsewhere.
            _ if options.pending => match of_anybody(session, &info) {
                Err(Failure::Unreadable(replicas, causes)) => {
                    by_takeover(session, name, false).map_err(|_| Failure::Unreadable(replicas, causes))
                }
                read => read,
            },
            // Nothing is to be forced where nobody holds it.
            _ => by_takeover(session, name, false),
        };
        match result {
            Ok(image) => return Ok(image),
            Err(Failure::Passing(why)) if Instant::now() < until => {
                tracing::debug!(segment = name, "reading again: {why}");
                std::thread::sleep(PAUSE);
            }
            Err(Failure::Passing(why)) => return Err(Error::Unreachable(format!("segment {name}: {why}"))),
            Err(Failure::Owner(fault)) => return Err(silent_owner(&info, &fault)),
            Err(Failure::Unreadable(replicas, causes)) => {
                let why = causes.describe(&info.places, &replicas);
                let text = format!("segment {name}: no replica holds an image that can be read: {why}");
                let is_lost = causes.are_lost(&replicas);
                return Err(if is_lost { Error::NoGoodCopy(text) } else { Error::Unreachable(text) });
            }
            Err(Failure::Final(error)) => return Err(error),
        }
    }
}

enum Failure {
    /// Begin again.
    Passing(String),
    /// The owner does not answer.
    Owner(Fault),
    /// No good copy is left, and what is known of why.
    Unreadable(Vec<(Member, Unusable)>, Causes),
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

fn silent_owner(info: &SegmentInfo, fault: &Fault) -> Error {
    let name = &info.name;
    Error::Unreachable(format!(
        "segment {name}: its owner is not known to be gone and does not say which checkpoint is acknowledged ({fault}); \
         wait, take the segment over, or ask for the newest checkpoint that may be pending"
    ))
}

/// An owner that is gone: what is loaded is what everybody will load. No replica is opened for writing, so the next takeover
/// need not fence this process.
fn by_takeover(session: &Arc<Session>, name: &str, force: bool) -> std::result::Result<Image, Failure> {
    let held = match HeldName::acquire(session, name, Some(Duration::ZERO), force) {
        Err(Error::Owned { holder, .. }) => {
            return Err(Failure::Passing(format!("process {} came meanwhile", holder.pid)));
        }
        other => other?,
    };
    let info = session.lookup(name)?;
    let geometry = session::geometry(&info)?;
    let taken = takeover::take_over(session, info, geometry, "read", None)?;
    // Where it is not known to be done, the end of the session does it.
    let _ = held.release();
    let (stamp, length) = (taken.start.loaded, in_memory(taken.changes.length()));
    Ok(Image { working: taken.working, stamp, length, is_acknowledged: true, warnings: Vec::new() })
}

/// The newest acknowledged checkpoint of a living owner, from none of the replicas that were passed over.
fn of_owner(
    session: &Session,
    info: &SegmentInfo,
    passed_over: &mut Vec<(Member, Unusable)>,
) -> std::result::Result<Image, Failure> {
    let mut copy = Copy::new(info)?;
    copy.beforehand(session, info);
    let time = u64::try_from(HOLD.as_millis()).unwrap_or(u64::MAX);
    let without = passed_over.iter().map(|(member, _)| *member).collect();
    let request = Request::Hold { name: info.name.clone(), time, without };
    let held = match session.channel.ask(request, Some(ANSWER)) {
        Ok(Answer::Held(held)) => held,
        Ok(other) => return Err(unexpected(&other).into()),
        // It let go meanwhile.
        Err(fault) if fault.kind == FaultKind::NotFound => return Err(Failure::Passing(fault.message)),
        Err(fault) if fault.kind == FaultKind::Unreachable && is_damage_among(passed_over) => {
            return Err(Failure::Unreadable(std::mem::take(passed_over), Causes::default()));
        }
        Err(fault) => return Err(Failure::Owner(fault)),
    };
    let has_other_way = session.domains.distrusted.news_of(held.member.node);
    let read = of_hold(session, info, copy, held);
    // A hold that is not ended now ends by itself.
    let _ = session.channel.ask(Request::EndHold { name: info.name.clone(), number: held.number }, Some(ANSWER));
    match read {
        Err(Failure::Unreadable(wrong, _)) => {
            passed_over.extend(wrong);
            Err(Failure::Passing(format!("{} holds it damaged; another replica is asked", held.member)))
        }
        Err(Failure::Passing(why)) if has_other_way() => Err(Failure::Passing(why)),
        Err(Failure::Passing(why)) => {
            passed_over.push((held.member, Unusable::OutOfReach));
            Err(Failure::Passing(why))
        }
        read => read,
    }
}

fn is_damage_among(passed_over: &[(Member, Unusable)]) -> bool {
    passed_over.iter().any(|(_, why)| !matches!(why, Unusable::OutOfReach))
}

fn of_hold(session: &Session, info: &SegmentInfo, copy: Copy, held: Held) -> std::result::Result<Image, Failure> {
    let Held { ownership, number, member, slot, image } = held;
    let place = place(info, member)?;
    let mut source = copy.open(session, info, place, slot).map_err(passing)?;
    let head = source.pull_head(&copy.geometry, info.record.record.segment).map_err(|error| passing(&error))?;
    let hold = Hold { number, member, slot, image };
    let reader = Reader::of_hold(info.record.clone(), ownership, hold, head).map_err(unread(&copy.causes))?;
    copy.read(session, info, reader, Some(source), true)
}

/// The newest checkpoint that verifies on any replica that answers: it may be pending.
fn of_anybody(session: &Session, info: &SegmentInfo) -> std::result::Result<Image, Failure> {
    let (heads, causes) = heads(session, info);
    let reader = Reader::of_heads(info.record.clone(), heads).map_err(unread(&causes))?;
    Copy { causes, ..Copy::new(info)? }.read(session, info, reader, None, false)
}

/// The newest checkpoint of all replicas in sync, where nobody who might go on says which one is acknowledged.
fn of_all(session: &Session, info: &SegmentInfo, holder: &Holder) -> std::result::Result<Image, Failure> {
    let (heads, causes) = heads(session, info);
    let reader = Reader::of_all(info.record.clone(), heads).map_err(|why| {
        Failure::Passing(format!(
            "process {} on node {} holds the name and has not opened the segment, and {why}, so nobody says which checkpoint is \
             acknowledged; ask for the newest, which may be pending",
            holder.pid, holder.node_name
        ))
    })?;
    Copy { causes, ..Copy::new(info)? }.read(session, info, reader, None, true)
}

/// The checkpoint of this number, while it stands somewhere.
fn of_epoch(session: &Session, info: &SegmentInfo, epoch: Epoch) -> std::result::Result<Image, Failure> {
    let (mut answers, causes) = heads(session, info);
    for slots in answers.iter_mut().filter_map(|(_, answer)| answer.as_mut().ok()) {
        let is_other = |view: &SlotView| view.image().is_none_or(|image| image.epoch != epoch);
        slots.iter_mut().filter(|view| is_other(view)).for_each(|view| *view = SlotView::Blank);
    }
    let stands = answers
        .iter()
        .any(|(_, answer)| answer.as_ref().is_ok_and(|slots| slots.iter().any(|view| view.image().is_some())));
    if !stands {
        let text =
            format!("epoch {epoch} of segment {} stands in no replica: hold it while it is the newest", info.name);
        return Err(Error::NotFound(text).into());
    }
    let reader = Reader::of_heads(info.record.clone(), answers).map_err(unread(&causes))?;
    Copy { causes, ..Copy::new(info)? }.read(session, info, reader, None, false)
}

type Heads = Vec<(Member, std::result::Result<Vec<SlotView>, Unusable>)>;

/// The heads of every member in sync, those on this machine first, and what was said instead.
fn heads(session: &Session, info: &SegmentInfo) -> (Heads, Causes) {
    let host = session.channel.welcome().host;
    let mut places: Vec<_> = info.places.iter().collect();
    places.sort_by_key(|place| place.host != host);
    let geometry = session::geometry(info).ok();
    let mut causes = Causes::default();
    let mut ask = |place: &Place| {
        let request = Request::Heads { name: info.name.clone(), member: place.member };
        match (session.channel.ask(request, Some(ANSWER)), geometry) {
            (Ok(Answer::Heads(heads)), Some(geometry)) => Ok(views(info.record.record.segment, &geometry, &heads)),
            (answer, _) => {
                if let Err(fault) = answer {
                    causes.note(place.member, &fault);
                }
                Err(Unusable::OutOfReach)
            }
        }
    };
    let heads = places.into_iter().map(|place| (place.member, ask(place))).collect();
    (heads, causes)
}

fn place(info: &SegmentInfo, member: Member) -> std::result::Result<&Place, Failure> {
    let found = info.places.iter().find(|place| place.member == member);
    found.ok_or_else(|| Failure::Passing(format!("{member} is not in the record that was read")))
}

fn passing(error: impl std::fmt::Display) -> Failure {
    Failure::Passing(error.to_string())
}

fn unread(causes: &Causes) -> impl Fn(Unread) -> Failure {
    move |unread| match unread {
        Unread::Unreadable(replicas) => Failure::Unreadable(replicas, causes.clone()),
        unread => Failure::Passing(unread.to_string()),
    }
}

impl Copy {
    fn new(info: &SegmentInfo) -> Result<Self> {
        let geometry = session::geometry(info)?;
        let (working, scratch) = (Working::new(&geometry)?, source::scratch(&geometry)?);
        Ok(Self { geometry, working, scratch, entries: Vec::new(), causes: Causes::default() })
    }

    fn open(&self, session: &Session, info: &SegmentInfo, place: &Place, slot: u32) -> Result<Source> {
        Source::open(session, &info.name, &self.geometry, place, slot, &self.working, &self.scratch)
    }

    /// Copies whatever stands in the nearest replica, unverified: most of it will still be right under the hold.
    fn beforehand(&mut self, session: &Session, info: &SegmentInfo) {
        let Ok(reader) = Reader::of_heads(info.record.clone(), heads(session, info).0) else { return };
        let place = reader.place();
        let Ok(at) = self::place(info, place.member) else { return };
        let Ok(mut source) = self.open(session, info, at, place.slot) else { return };
        let Ok(entries) = source.pull_table(&self.geometry, &place.header) else { return };
        let all: Vec<_> = std::iter::once(0..self.geometry.blocks_of(place.header.length)).collect();
        if source.pull_blocks(&self.geometry, &all, &mut |_| {}).is_ok() {
            self.entries = entries;
        }
    }

    /// Copies what the reader names, until it is satisfied.
    fn read(
        mut self,
        session: &Session,
        info: &SegmentInfo,
        mut reader: Reader,
        mut source: Option<Source>,
        is_acknowledged: bool,
    ) -> std::result::Result<Image, Failure> {
        loop {
            let place = reader.place().clone();
            let at = self::place(info, place.member)?;
            let mut from = match source.take() {
                Some(source) => source,
                None => self.open(session, info, at, place.slot).map_err(passing)?,
            };
            let copied = self.pull(&mut from, &place.header).map_err(|error| passing(&error))?;
            let head = from.pull_head(&self.geometry, place.header.segment).map_err(|error| passing(&error))?;
            let record = session.lookup(&info.name)?.record;
            match reader.copied(copied, &head, &record).map_err(unread(&self.causes))? {
                Verdict::Accepted => {
                    self.working.clear_beyond(place.header.length);
                    let passed_over = reader.passed_over().iter();
                    let warning = |(member, why): &(Member, Unusable)| {
                        self.causes.describe(&info.places, &[(*member, why.clone())])
                    };
                    let warnings = passed_over.map(warning).collect();
                    return Ok(Image {
                        working: self.working,
                        stamp: place.header.image,
                        length: in_memory(place.header.length),
                        is_acknowledged,
                        warnings,
                    });
                }
                Verdict::Elsewhere => {}
            }
        }
    }

    /// Pulls what does not stand here yet; says what does not verify.
    fn pull(
        &mut self,
        source: &mut Source,
        header: &SlotHeader,
    ) -> std::result::Result<std::result::Result<(), Damage>, TransportError> {
        let table = source.pull_table(&self.geometry, header)?;
        if let Err(damage) = verify_table(header, &table) {
            return Ok(Err(damage));
        }
        let key = Key::of(header.segment);
        let working = &self.working;
        let is_good = |i: BlockIndex| table[i as usize].describes(key, i, working.block(i));
        // What was copied beforehand may have been torn: it counts only where it verifies, and nothing changed since.
        let stands = |i: BlockIndex| self.entries.get(i as usize) == Some(&table[i as usize]) && is_good(i);
        let blocks = 0..self.geometry.blocks_of(header.length);
        let mut missing: Vec<Range<BlockIndex>> = Vec::new();
        runs(blocks.filter(|&i| !stands(i)), |first, count| missing.push(first..first + count));
        let mut bad = Vec::new();
        source.pull_blocks(&self.geometry, &missing, &mut |blocks| bad.extend(blocks.filter(|&i| !is_good(i))))?;
        self.entries = Vec::new();
        Ok(if bad.is_empty() { Ok(()) } else { Err(Damage::Blocks(bad)) })
    }
}
