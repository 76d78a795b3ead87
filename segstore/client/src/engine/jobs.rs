//! What takes long, each in a thread of its own: it is rare. Results come back as events.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;
use segstore_core::id::{Epoch, Member, Stamp};
use segstore_core::layout::Ownership;
use segstore_core::record::Swap;
use segstore_core::replica::{Refused, Request as ReplicaRequest};
use segstore_core::slot::SlotView;

use super::event::Event;
use super::link::Link;
use super::seat::Shared;
use super::wanted::Wanted;
use crate::control::message::{Answer, Fault, FaultKind, Place, Request};
use crate::domains::{Destination, DialError, PATIENCE};
use crate::error::Error;
use crate::takeover::views;
use crate::time::after;
use crate::way::Way;

/// How long the directory may take for one answer.
const DIRECTORY: Duration = Duration::from_secs(10);
/// The first pause before something is tried again; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long a thread that only drives keeps the engine at a time.
const TURN: Duration = Duration::from_millis(1);

/// One thing to do.
pub(crate) enum Job {
    /// Change the record, with the reason for each replica that leaves the set; or say after a pause that nobody took the change.
    Swap { swap: Swap, causes: Vec<(Member, String)>, pause: Duration },
    /// Read it, again until there is an answer, under this number.
    ReadRecord(u64),
    /// Open an endpoint to a replica, again until there is one. It is told when that takes longer than `patience`, of which nothing is
    /// left where the replica was given up.
    Connect { member: Member, patience: Duration },
    /// Look whether a replica is reached over a better way.
    Look { member: Member, than: Way },
    /// See what a replica holds, from now on.
    See { member: Member, look: u64 },
    /// Bring this after the longest pause.
    Later(Event),
    /// Open an endpoint to the copy on this node, which is made if there is none.
    Local,
    /// Have another replica placed and filled.
    Repair { ownership: Ownership, members: Vec<Member>, source: Member, slot: u32, base: Stamp },
    /// Have another replica placed, in which nothing stands. `silent` are those in sync, of which none is reached.
    Make { ownership: Ownership, members: Vec<Member>, silent: Vec<Member> },
}

/// Jobs that no thread has taken so far.
#[derive(Default)]
pub(super) struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    /// How many of them no thread could be started for.
    stranded: AtomicUsize,
}

impl Queue {
    fn push(&self, job: Job) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).push_back(job);
    }

    fn pop(&self) -> Option<Job> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// Does the job in a thread of its own. Where the system has none to give, it waits for [`start_stranded`].
pub(super) fn start(shared: &Arc<Shared>, job: Job) {
    shared.jobs.push(job);
    if let Err(error) = start_next(shared) {
        shared.jobs.stranded.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            segment = %shared.name,
            "no thread for what the segment needs: {error}; trying again with each checkpoint: raise the limit of threads"
        );
    }
}

/// Tries once more to start what no thread could be started for.
pub(super) fn start_stranded(shared: &Arc<Shared>) {
    while shared.jobs.stranded.load(Ordering::Relaxed) > 0 && start_next(shared).is_ok() {
        shared.jobs.stranded.fetch_sub(1, Ordering::Relaxed);
    }
}

fn start_next(shared: &Arc<Shared>) -> std::io::Result<()> {
    let worker = shared.clone();
    in_thread(move || worker.jobs.pop().into_iter().for_each(|job| perform(&worker, job)))
}

fn in_thread(run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name("segstore-job".into()).spawn(run).map(drop)
}

fn perform(shared: &Arc<Shared>, job: Job) {
    match job {
        Job::Swap { swap, causes, pause } => change_record(shared, swap, causes, pause),
        Job::ReadRecord(number) => read_record(shared, number),
        Job::Connect { member, patience } => connect(shared, member, patience),
        Job::Look { member, than } => look(shared, member, than),
        Job::See { member, look } => see(shared, member, look),
        Job::Local => local(shared),
        Job::Later(event) => {
            std::thread::sleep(LONGEST_PAUSE);
            shared.bring(event);
        }
        Job::Repair { ownership, members, source, slot, base } => {
            let name = shared.name.clone();
            let request = Request::Repair { name, ownership, members, source, slot, base };
            repair(shared, ownership, &[source], request);
        }
        Job::Make { ownership, members, silent } => {
            repair(shared, ownership, &silent, Request::Make { name: shared.name.clone(), ownership, members });
        }
    }
}

/// Drives an attempt to its end, in a thread of its own, and rings then.
pub(super) fn start_driving(shared: &Arc<Shared>, epoch: Epoch, bell: Arc<EventFd>) -> std::io::Result<()> {
    let driver = shared.clone();
    in_thread(move || drive(&driver, epoch, &bell))
}

/// Pauses that grow.
pub(super) struct Pauses(pub(super) Duration);

impl Pauses {
    pub(super) fn new() -> Self {
        Self(PAUSE)
    }

    pub(super) fn grow(&mut self) {
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }

    fn pause(&mut self) {
        std::thread::sleep(self.0);
        self.grow();
    }
}

fn change_record(shared: &Arc<Shared>, swap: Swap, causes: Vec<(Member, String)>, pause: Duration) {
    let why = describe(&swap);
    let request = Request::Swap { name: shared.name.clone(), swap, why, causes };
    let event = match shared.session.channel.ask(request, Some(DIRECTORY)) {
        Ok(Answer::Swapped { version }) => Event::Swapped(version),
        Ok(Answer::Conflict { current }) => Event::Conflicted(current),
        Err(Fault { kind: FaultKind::NoAnswer, .. }) => Event::SwapUnknown,
        Err(Fault { kind: FaultKind::NotFound, .. }) => Event::Unlinked,
        Ok(_) | Err(_) => {
            // Certainly not done. Whether it is still wanted when it is tried again, the owner decides.
            std::thread::sleep(pause);
            Event::NotSwapped
        }
    };
    if !shared.is_closed() {
        shared.bring(event);
    }
}

fn describe(swap: &Swap) -> String {
    let (old, new) = (&swap.expected.record.in_sync, &swap.new.in_sync);
    let gone = old.iter().filter(|member| !new.contains(member)).count();
    match gone {
        0 => "a replica that was filled holds every acknowledged checkpoint".to_owned(),
        _ => "the owner could not reach it, and goes on without".to_owned(),
    }
}

fn read_record(shared: &Arc<Shared>, number: u64) {
    let mut pauses = Pauses::new();
    while !shared.is_closed() {
        let request = Request::Lookup { name: shared.name.clone() };
        match shared.session.channel.ask(request, Some(DIRECTORY)) {
            Ok(Answer::Segment(info)) => {
                let wanted = Wanted::of(&info);
                info.places.into_iter().for_each(|place| shared.learn(place));
                return shared.bring(Event::RecordRead(info.record, wanted, number));
            }
            Err(Fault { kind: FaultKind::NotFound, .. }) => return shared.bring(Event::Unlinked),
            Ok(_) | Err(_) => pauses.pause(),
        }
    }
}

fn connect(shared: &Arc<Shared>, member: Member, patience: Duration) {
    let give_up = after(Instant::now(), patience);
    let (mut pauses, mut is_told, mut is_known) = (Pauses::new(), patience.is_zero(), false);
    if is_told {
        std::thread::sleep(LONGEST_PAUSE);
    }
    while !shared.is_closed() {
        let place = match shared.place(member) {
            Some(place) => place,
            // It was removed meanwhile.
            None if is_known => return,
            None => match look_up(shared, member) {
                Ok(Some(place)) => place,
                Ok(None) => {
                    return shared.bring(Event::Unreached(member, "the record names no such replica any more".into()));
                }
                Err(fault) => {
                    if !is_told && Instant::now() >= give_up {
                        is_told = true;
                        shared.bring(Event::Unreached(member, format!("where it is, is not known: {fault}")));
                    }
                    pauses.pause();
                    continue;
                }
            },
        };
        is_known = true;
        // The first attempt must not outlast the patience: a daemon that hangs answers nothing.
        let left = give_up.saturating_duration_since(Instant::now()).max(LONGEST_PAUSE / 4);
        let why = match open(shared, &place, if is_told { PATIENCE } else { left }) {
            Ok(link) => return shared.bring(Event::Connected(Box::new(link))),
            Err(DialError::Refused(why)) => return shared.bring(Event::Refused(member, why)),
            Err(DialError::Gone(why)) => return shared.bring(Event::Unreached(member, why)),
            Err(DialError::OutOfReach(why)) => why,
        };
        if !is_told && Instant::now() >= give_up {
            is_told = true;
            shared.bring(Event::Unreached(member, why));
        }
        pauses.pause();
    }
}

/// Where a replica is, of which only the record has told.
fn look_up(shared: &Arc<Shared>, member: Member) -> Result<Option<Place>, Fault> {
    match shared.session.channel.ask(Request::Lookup { name: shared.name.clone() }, Some(DIRECTORY))? {
        Answer::Segment(info) => info.places.into_iter().for_each(|place| shared.learn(place)),
        other => tracing::debug!(segment = %shared.name, "the daemon answered {other:?}"),
    }
    Ok(shared.place(member))
}

fn open(shared: &Arc<Shared>, place: &Place, limit: Duration) -> Result<Link, DialError> {
    let incarnation = place.member.incarnation;
    let request = ReplicaRequest { segment: shared.segment, incarnation, asker: shared.ownership };
    let session = &shared.session;
    let to = Destination { channel: &session.channel, name: &shared.name, place, writer: Some(request), limit };
    Link::open(&session.domains, &to, &shared.working, &shared.geometry)
}

/// What its node says that it holds.
fn see(shared: &Arc<Shared>, member: Member, look: u64) {
    let newest = shared.session.heads(&shared.name, member).map(|heads| {
        let views = views(shared.segment, &shared.geometry, &heads);
        views.iter().filter_map(SlotView::image).max()
    });
    if !shared.is_closed() {
        shared.bring(Event::Seen { member, look, newest: newest.map_err(|error| error.to_string()) });
    }
}

/// As a reader, which disturbs nobody.
fn look(shared: &Arc<Shared>, member: Member, than: Way) {
    // What that node serves may have changed.
    let Ok(Some(place)) = look_up(shared, member) else { return };
    let session = &shared.session;
    let (channel, name, place, limit) = (&session.channel, &shared.name, &place, LONGEST_PAUSE);
    let to = Destination { channel, name, place, writer: None, limit };
    match session.domains.dial_better(than, &to, &shared.working) {
        Ok(()) => shared.bring(Event::Better(member, than)),
        Err(why) => tracing::debug!(segment = %shared.name, "still over {}: {why}", than.provider()),
    }
}

/// The copy on this node as it stands when no earlier writer is left.
fn local(shared: &Arc<Shared>) {
    let found = shared.session.local(&shared.name, Some(shared.ownership)).and_then(|(place, _)| {
        let link = open(shared, &place, PATIENCE).map_err(|error| Error::Unreachable(error.to_string()))?;
        let heads = shared.session.heads(&shared.name, place.member)?;
        Ok((place, link, views(shared.segment, &shared.geometry, &heads)))
    });
    let event = match found {
        Ok((place, link, slots)) => Event::LocalFound { place, link: Box::new(link), slots },
        Err(error) => {
            tracing::debug!(segment = %shared.name, "no copy on this node: {error}");
            // Whether there is room changes slowly.
            std::thread::sleep(LONGEST_PAUSE);
            Event::NoLocal
        }
    };
    if !shared.is_closed() {
        shared.bring(event);
    }
}

fn drive(shared: &Arc<Shared>, epoch: Epoch, bell: &EventFd) {
    let began = Instant::now();
    loop {
        let mut engine = shared.enter();
        let is_over = !engine.is_attempting(epoch);
        if !is_over {
            let now = Instant::now();
            engine.rest(shared, began, now, now + TURN);
            engine.step(shared);
        }
        shared.leave(engine);
        if is_over {
            // It is readable already if this fails.
            let _ = bell.write(1);
            return;
        }
    }
}

/// A refusal counts as one of the first of those that it was about.
fn repair(shared: &Arc<Shared>, by: Ownership, about: &[Member], request: Request) {
    let event = match (shared.session.channel.ask(request, None), about) {
        (Err(Fault { kind: FaultKind::Refused(why @ Refused::TermOver { .. }), .. }), [member, ..]) => {
            Event::Refused(*member, why)
        }
        (Ok(Answer::Repaired { place, base, closed }), _) => {
            Event::Repaired { by, place, slots: shared.geometry.slots(), base, closed }
        }
        (Ok(Answer::Made { place }), _) => Event::Made { by, place, slots: shared.geometry.slots() },
        (other, _) => {
            // Whether there is room changes slowly.
            std::thread::sleep(LONGEST_PAUSE);
            Event::NotRepaired(other.err().map(|fault| fault.message))
        }
    };
    if !shared.is_closed() {
        shared.bring(event);
    }
}
