//! Drives core's [`Takeover`] over the control channel: claim, fence, load, seal.

use std::time::{Duration, Instant};

use segstore_core::changes::Changes;
use segstore_core::id::{Member, OwnerId, Stamp};
use segstore_core::layout::{Geometry, SlotHeader};
use segstore_core::owner::Start;
use segstore_core::replica::Request as ReplicaRequest;
use segstore_core::slot::SlotView;
use segstore_core::takeover::{Action, Takeover, Unusable};

use crate::causes::Causes;
use crate::control::channel::Asked;
use crate::control::message::{Answer, Bytes, Fault, FaultKind, Request, SegmentInfo};
use crate::error::{Error, Result};
use crate::follow::Ahead;
use crate::load::{Loaded, Loader, Origin, Target};
use crate::session::Inner as Session;
use crate::working::Working;

/// How long to go on asking a directory that does not answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long replicas may take to be fenced: large ones may have to move to fresh backing.
const FENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// What a takeover brings.
pub(crate) struct Taken {
    pub(crate) start: Start,
    pub(crate) working: Working,
    pub(crate) changes: Box<Changes>,
    /// The record may name replicas that were added since `info` was asked for.
    pub(crate) info: SegmentInfo,
    pub(crate) times: Times,
}

/// How long the parts of a takeover took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Times {
    /// From when the name was held until the takeover began: what the directory says of the segment was read.
    pub prepared: Duration,
    /// From there until the claim stood in the directory.
    pub claimed: Duration,
    /// From there until every replica that answers was fenced.
    pub fenced: Duration,
    /// From there until the image was in working memory, verified.
    pub loaded: Duration,
    /// From there until the in-sync set was sealed.
    pub sealed: Duration,
    /// From there until the segment was open.
    pub opened: Duration,
}

impl Times {
    /// All of them.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.prepared + self.claimed + self.fenced + self.loaded + self.sealed + self.opened
    }
}

struct Driver<'s> {
    session: &'s Session,
    info: SegmentInfo,
    /// Whether `info` was read just before.
    is_fresh: bool,
    geometry: Geometry,
    takeover: Takeover,
    /// What was copied while it was another's.
    ahead: Option<Ahead>,
    loaded: Option<(Target, Loaded)>,
    until: Instant,
    why: &'s str,
    causes: Causes,
    /// Of each replica that was fenced, the newest whole image.
    newest: Vec<(Member, Option<Stamp>)>,
    /// The image that was chosen.
    image: Stamp,
    damaged: Vec<(Member, Unusable)>,
}

/// Takes the segment over. The session must hold its name, and `info` is what was read since.
pub(crate) fn take_over(
    session: &Session,
    info: SegmentInfo,
    geometry: Geometry,
    why: &str,
    ahead: Option<Ahead>,
) -> Result<Taken> {
    let owner = OwnerId(session.random()?);
    let takeover = Takeover::new(owner);
    let until = Instant::now() + PATIENCE;
    let (causes, newest, image, damaged) = (Causes::default(), Vec::new(), Stamp::default(), Vec::new());
    let (is_fresh, loaded) = (true, None);
    let ahead = ahead.filter(|ahead| ahead.segment == info.record.record.segment);
    Driver { session, info, is_fresh, geometry, takeover, ahead, loaded, until, why, causes, newest, image, damaged }
        .run()
}

impl Driver<'_> {
    fn run(mut self) -> Result<Taken> {
        let (mut times, mut last) = (Times::default(), Instant::now());
        let mut lap = |part: &mut Duration| {
            let now = Instant::now();
            *part += now - last;
            last = now;
        };
        let start = loop {
            let Some(action) = self.takeover.poll() else {
                return Err(Error::Internal(format!("the takeover of segment {} came to a halt", self.info.name)));
            };
            match action {
                Action::ReadRecord => self.read_record()?,
                Action::Swap(swap) => {
                    let (old, new) = (&swap.expected.record.in_sync, &swap.new.in_sync);
                    let removed = old.iter().filter(|member| !new.contains(member));
                    let causes = removed.map(|member| (*member, self.why_removed(*member))).collect();
                    let why = self.why.to_owned();
                    self.swap(&Request::Swap { name: self.info.name.clone(), swap, why, causes })?;
                }
                Action::Fence { member, request } => {
                    lap(&mut times.claimed);
                    self.fence(member, request);
                    lap(&mut times.fenced);
                }
                Action::Load { header, sources } => {
                    self.load(&header, &sources)?;
                    lap(&mut times.loaded);
                }
                Action::Done(start) => break start,
                Action::Failed(failure) => {
                    return Err(self.causes.of_takeover(&self.info.name, &self.info.places, &failure));
                }
            }
        };
        lap(&mut times.sealed);
        let (Target { working, .. }, loaded) =
            self.loaded.take().ok_or_else(|| Error::Internal("nothing was loaded".into()))?;
        let changes = Box::new(loaded.changes(self.geometry));
        Ok(Taken { start, working, changes, info: self.info, times })
    }

    // ---- the directory ----

    fn read_record(&mut self) -> Result<()> {
        if std::mem::take(&mut self.is_fresh) {
            self.takeover.record_read(self.info.record.clone());
            return Ok(());
        }
        loop {
            match self.session.lookup(&self.info.name) {
                Ok(info) => {
                    self.takeover.record_read(info.record.clone());
                    self.info = info;
                    return Ok(());
                }
                Err(error @ Error::Unreachable(_)) => self.pause(error)?,
                Err(error) => return Err(error),
            }
        }
    }

    fn swap(&mut self, request: &Request) -> Result<()> {
        loop {
            match self.session.channel.ask(request.clone(), Some(ANSWER)) {
                Ok(Answer::Swapped { version }) => self.takeover.swapped(version),
                Ok(Answer::Conflict { current }) => {
                    // A replica that came in meanwhile stands on a node that is not known so far.
                    if let Ok(info) = self.session.lookup(&self.info.name) {
                        self.info.places = info.places;
                    }
                    self.takeover.conflicted(current);
                }
                Ok(other) => return Err(unexpected(&other)),
                Err(Fault { kind: FaultKind::NoAnswer, .. }) => self.takeover.swap_unknown(),
                Err(fault @ Fault { kind: FaultKind::Unreachable, .. }) => {
                    self.pause(Error::of_fault(&self.info.name, fault))?;
                    continue;
                }
                Err(fault) => return Err(Error::of_fault(&self.info.name, fault)),
            }
            return Ok(());
        }
    }

    /// Waits a little for a directory that does not answer; gives `error` when the time is over.
    fn pause(&self, error: Error) -> Result<()> {
        if Instant::now() >= self.until {
            return Err(error);
        }
        std::thread::sleep(PAUSE);
        Ok(())
    }

    // ---- the fence ----

    /// Fences this member, and every other whose turn comes next: all at once.
    fn fence(&mut self, member: Member, request: ReplicaRequest) {
        let mut asked = vec![(member, self.ask_to_fence(member, request))];
        let mut rest = Vec::new();
        while let Some(action) = self.takeover.poll() {
            match action {
                Action::Fence { member, request } => asked.push((member, self.ask_to_fence(member, request))),
                other => rest.push(other),
            }
        }
        debug_assert!(rest.is_empty(), "nothing else is wanted before the fences are answered");
        let until = Instant::now() + FENCE;
        for (member, answer) in asked {
            let left = until.saturating_duration_since(Instant::now());
            match answer.and_then(|asked| asked.wait(Some(left))) {
                Ok(Answer::Heads(heads)) => {
                    let views = views(self.info.record.record.segment, &self.geometry, &heads);
                    self.newest.push((member, views.iter().filter_map(SlotView::image).max()));
                    self.takeover.fenced(member, views);
                }
                Err(Fault { kind: FaultKind::Refused(why), .. }) => {
                    self.causes.note_unreached(member, why.to_string());
                    self.takeover.not_fenced(member, why.into());
                }
                Err(fault) => {
                    self.causes.note(member, &fault);
                    self.takeover.not_fenced(member, Unusable::OutOfReach);
                }
                Ok(other) => {
                    self.causes.note_unreached(member, unexpected(&other).to_string());
                    self.takeover.not_fenced(member, Unusable::OutOfReach);
                }
            }
        }
    }

    fn ask_to_fence(&self, member: Member, request: ReplicaRequest) -> std::result::Result<Asked, Fault> {
        self.session.channel.send(Request::Fence { name: self.info.name.clone(), member, request })
    }

    /// Why the seal leaves a replica out.
    fn why_removed(&self, member: Member) -> String {
        if let Some((_, damage)) = self.damaged.iter().find(|(damaged, _)| *damaged == member) {
            return self.causes.why(member, damage);
        }
        let is_beside = member.node == self.session.channel.welcome().node;
        match self.newest.iter().find(|(fenced, _)| *fenced == member) {
            Some((_, Some(newest))) if *newest < self.image => {
                format!("its newest whole image is {newest}, {} was loaded", self.image)
            }
            Some((_, Some(_))) if is_beside => "it is on the new owner's own node, and would die with it".to_owned(),
            Some((_, Some(newest))) => format!("it holds {newest}, {} was loaded", self.image),
            Some((_, None)) => Unusable::NoImage.to_string(),
            None => self.causes.why(member, &Unusable::OutOfReach),
        }
    }

    // ---- the image ----

    fn load(&mut self, header: &SlotHeader, sources: &[(Member, u32)]) -> Result<()> {
        self.image = header.image;
        let local = self.local_copy();
        let places = |(member, slot): &(Member, u32)| {
            let place = self.info.places.iter().find(|place| place.member == *member)?;
            Some(Origin { place: place.clone(), slot: *slot })
        };
        let origins: Vec<_> = local.into_iter().chain(sources.iter().filter_map(places)).collect();
        let mut to = match (self.loaded.take(), self.ahead.take()) {
            // Of what stands there now nothing is known.
            (Some((target, _)), _) => target,
            (None, Some(ahead)) => ahead.target,
            (None, None) => Target::new(&self.geometry)?,
        };
        let mut loader = Loader::new(self.session, &self.info.name, self.geometry, origins);
        let loaded = loader.load(header, &mut to)?;
        for (member, slot, problem) in loader.problems() {
            self.takeover.damaged(*member, *slot, problem);
            self.damaged.push((*member, problem.clone()));
        }
        self.causes.add(loader.take_causes());
        match loaded {
            Some(loaded) => {
                self.loaded = Some((to, loaded));
                self.takeover.loaded();
            }
            None => {
                let problems = loader.problems().iter().map(|(member, _, problem)| (*member, problem.clone()));
                self.takeover.unreadable(problems.collect());
            }
        }
        Ok(())
    }

    /// The copy on this node, if it holds this very image.
    fn local_copy(&self) -> Option<Origin> {
        if !self.info.keeping.local {
            return None;
        }
        let (place, heads) = self.session.local(&self.info.name, None).ok()?;
        let views = views(self.info.record.record.segment, &self.geometry, &heads);
        let slot = self.takeover.local_source(&views)?;
        Some(Origin { place, slot })
    }
}

/// What the heads of a replica's slots say.
pub(crate) fn views(segment: segstore_core::id::SegmentId, geometry: &Geometry, heads: &[Bytes]) -> Vec<SlotView> {
    SlotView::parse_all(segment, geometry, heads.iter().map(|head| head.0.as_slice()))
}

pub(crate) fn unexpected(answer: &Answer) -> Error {
    Error::Internal(format!("the daemon answered {answer:?}, which is no answer to what was asked"))
}
