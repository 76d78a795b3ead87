//! A copy of a segment's newest image, brought up to date while its owner goes on: for whoever stands by to take it over.
//!
//! Nobody is asked for anything and nothing is held still, so what is read may be torn, or never acknowledged. It counts only block by
//! block: a block that was verified against its row of the block table need not be read again by a load that finds the same row.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Thread;
use std::time::{Duration, Instant};

use segstore_core::changes::runs;
use segstore_core::id::{NodeId, SegmentId, Stamp};
use segstore_core::layout::{BlockIndex, Entry, Geometry, Key, SlotHeader};
use segstore_core::slot::{SlotView, verify_table};
use segstore_transport::Error as TransportError;

use crate::control::message::{Place, SegmentInfo};
use crate::error::{Error, Result};
use crate::load::Target;
use crate::load::source::Source;
use crate::session::{self, Inner as Session};

/// Between two looks at each segment; a look that takes long is followed by a pause that is longer still.
const PAUSE: Duration = Duration::from_millis(100);
const REST: u32 = 4;
const LONGEST: Duration = Duration::from_secs(1);
/// Before a segment that could not be read is looked up again, or one of which nothing new was seen: its replica may be no more.
const RETRY: Duration = Duration::from_secs(5);
/// How long other nodes are read rather than one whose replica could not be.
const SHUN: Duration = Duration::from_secs(60);
/// How long what was copied is waited for: as long as a read takes that goes well, and a little of what a load would take. Who does not get
/// it loads everything.
const PATIENCE: Duration = Duration::from_millis(100);
const COPIED_IN_A_MILLI: u64 = 40 << 20;
/// Bytes that are read from a replica before it is connected to anew: what was read of shared memory stays mapped, and to unmap much of it
/// would be in the way of the takeover.
const MAPPED: u64 = 64 << 20;
/// Blocks that are copied before it is looked whether to stop.
const BATCH: u64 = 8 << 20;

/// What was copied of a segment before it was taken over.
pub(crate) struct Ahead {
    pub(crate) segment: SegmentId,
    pub(crate) target: Target,
}

/// A thread that follows segments.
pub(crate) struct Following {
    is_over: Arc<AtomicBool>,
    thread: Thread,
    copies: Receiver<HashMap<String, Ahead>>,
    /// Bytes that the session has read.
    copied: Arc<AtomicU64>,
}

impl Following {
    /// Follows these segments until it is stopped.
    pub(crate) fn start(session: &Arc<Session>, names: &[&str]) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let (session, over) = (session.clone(), is_over.clone());
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let ((sender, copies), copied) = (channel(), session.pulled.clone());
        let thread = std::thread::Builder::new().name("segstore-follow".into());
        let thread = thread.spawn(move || follow(&session, names, &over, &sender));
        let thread = thread.map_err(|error| Error::NoRoom(format!("starting a thread that follows: {error}")))?;
        Ok(Self { is_over, thread: thread.thread().clone(), copies, copied })
    }

    /// What was copied so far.
    pub(crate) fn stop(self) -> HashMap<String, Ahead> {
        self.end();
        let load = Duration::from_millis(self.copied.load(Ordering::Relaxed) / COPIED_IN_A_MILLI);
        self.copies.recv_timeout(PATIENCE + load).unwrap_or_default()
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.end();
    }
}

fn follow(session: &Session, names: Vec<String>, is_over: &AtomicBool, copies: &Sender<HashMap<String, Ahead>>) {
    let mut all: Vec<_> = names.into_iter().map(Follower::new).collect();
    let mut shunned = HashMap::new();
    while !is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        for follower in &mut all {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            if let Err(why) = follower.look(session, &mut shunned, is_over) {
                tracing::debug!(segment = follower.name, "it is not followed now: {why}");
            }
        }
        std::thread::park_timeout((began.elapsed() * REST).clamp(PAUSE, LONGEST));
    }
    let (copied, _sources): (Vec<_>, Vec<_>) =
        all.into_iter().map(|follower| ((follower.name, follower.copy), follower.source)).unzip();
    // Nothing is being read any more, and to disconnect is nobody's hurry.
    let _ = copies.send(copied.into_iter().filter_map(|(name, copy)| Some((name, copy?.ahead))).collect());
}

/// Nodes whose replicas could not be read, and until when others are read rather.
type Shunned = HashMap<NodeId, Instant>;

struct Follower {
    name: String,
    copy: Option<Copy>,
    source: Option<Source>,
    /// Bytes that were read from it.
    read: u64,
    /// What was copied last, and when that was new.
    seen: (Stamp, Instant),
    /// Not before that is it looked up.
    rests_until: Instant,
}

struct Copy {
    geometry: Geometry,
    ahead: Ahead,
}

impl Follower {
    fn new(name: String) -> Self {
        let now = Instant::now();
        Self { name, copy: None, source: None, read: 0, seen: (Stamp::default(), now), rests_until: now }
    }

    /// Copies what has changed since the last time.
    fn look(&mut self, session: &Session, shunned: &mut Shunned, is_over: &AtomicBool) -> Result<()> {
        if self.source.is_some() && self.seen.1.elapsed() > RETRY {
            self.source = None;
        }
        if self.source.is_none() {
            if Instant::now() < self.rests_until {
                return Ok(());
            }
            self.rests_until = Instant::now() + RETRY;
            self.open(session, shunned)?;
        }
        let (Some(copy), Some(source)) = (&mut self.copy, &mut self.source) else { return Ok(()) };
        let before = session.pulled.load(Ordering::Relaxed);
        let brought = copy.bring(source, self.seen.0, is_over);
        self.read += session.pulled.load(Ordering::Relaxed) - before;
        match brought {
            Ok(Some(image)) => self.seen = (image, Instant::now()),
            Ok(None) => {}
            Err(error) => {
                let node = self.source.take().map(|source| source.node());
                shunned.extend(node.map(|node| (node, Instant::now() + SHUN)));
                return Err(Error::of_transport("reading a replica", &error));
            }
        }
        if self.read >= MAPPED {
            self.source = None;
            self.rests_until = Instant::now();
        }
        Ok(())
    }

    /// Connects to the nearest replica in sync.
    fn open(&mut self, session: &Session, shunned: &mut Shunned) -> Result<()> {
        let info = session.lookup(&self.name)?;
        if self.copy.as_ref().is_none_or(|copy| copy.ahead.segment != info.record.record.segment) {
            self.copy = Some(Copy::new(&info)?);
            self.seen.0 = Stamp::default();
        }
        let Some(copy) = &self.copy else { return Ok(()) };
        let (host, node) = {
            let welcome = session.channel.welcome();
            (welcome.host, welcome.node)
        };
        shunned.retain(|_, until| *until > Instant::now());
        // What is on the owner's node goes with it.
        let owner = info.holder.as_ref().map(|holder| holder.node);
        let far = |place: &&Place| {
            let at = place.member.node;
            (shunned.contains_key(&at), owner == Some(at), at != node, place.host != host)
        };
        let Some(place) = info.places.iter().filter(|place| place.is_live()).min_by_key(far) else {
            return Err(Error::Unreachable("no replica in sync is there".into()));
        };
        let Target { working, scratch, .. } = &copy.ahead.target;
        let source = Source::open(session, &info.name, &copy.geometry, place, 0, working, scratch);
        if source.is_err() {
            shunned.insert(place.member.node, Instant::now() + SHUN);
        }
        self.source = Some(source?);
        (self.read, self.seen.1) = (0, Instant::now());
        Ok(())
    }
}

impl Copy {
    fn new(info: &SegmentInfo) -> Result<Self> {
        let geometry = session::geometry(info)?;
        let rows = vec![Entry::default(); geometry.blocks() as usize];
        let target = Target { rows, ..Target::new(&geometry)? };
        Ok(Self { geometry, ahead: Ahead { segment: info.record.record.segment, target } })
    }

    /// Brings the copy to the newest image that is closed there, unless that is `seen`.
    fn bring(
        &mut self,
        source: &mut Source,
        seen: Stamp,
        is_over: &AtomicBool,
    ) -> std::result::Result<Option<Stamp>, TransportError> {
        let mut newest: Option<(u32, SlotHeader)> = None;
        for slot in 0..self.geometry.slots() {
            source.choose(&self.geometry, slot);
            if let SlotView::Closed(header) = source.pull_head(&self.geometry, self.ahead.segment)?
                && newest.as_ref().is_none_or(|(_, other)| other.image < header.image)
            {
                newest = Some((slot, header));
            }
        }
        let Some((slot, header)) = newest.filter(|(_, header)| header.image != seen) else { return Ok(None) };
        source.choose(&self.geometry, slot);
        if is_over.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let table = source.pull_table(&self.geometry, &header)?;
        // It may be written just now: the next look finds it, or what follows it.
        if verify_table(&header, &table).is_err() {
            return Ok(None);
        }
        self.ahead.target.working.reaches(header.length);
        let mut missing: Vec<Range<BlockIndex>> = Vec::new();
        let blocks = 0..self.geometry.blocks_of(header.length);
        let step = u32::try_from(BATCH / u64::from(self.geometry.block_size())).unwrap_or(u32::MAX).max(1);
        let batches = |first: BlockIndex, count: BlockIndex| {
            (first..first + count)
                .step_by(step as usize)
                .map(move |at| at..(first + count).min(at.saturating_add(step)))
        };
        let stands = |i: BlockIndex| self.ahead.target.rows[i as usize] == table[i as usize];
        runs(blocks.filter(|&i| !stands(i)), |first, count| missing.extend(batches(first, count)));
        for batch in missing {
            if is_over.load(Ordering::Relaxed) {
                return Ok(None);
            }
            self.copy(source, &table, batch)?;
        }
        Ok(Some(header.image))
    }

    /// Copies these blocks; what does not verify does not stand.
    fn copy(
        &mut self,
        source: &mut Source,
        table: &[Entry],
        blocks: Range<BlockIndex>,
    ) -> std::result::Result<(), TransportError> {
        let Ahead { segment, target: Target { working, rows, .. } } = &mut self.ahead;
        // What is being overwritten stands no more, whatever comes of it.
        rows[blocks.start as usize..blocks.end as usize].fill(Entry::default());
        let key = Key::of(*segment);
        source.pull_blocks(&self.geometry, std::slice::from_ref(&blocks), &mut |arrived| {
            for i in arrived {
                let row = table[i as usize];
                if row.describes(key, i, working.block(i)) {
                    rows[i as usize] = row;
                }
            }
        })
    }
}
