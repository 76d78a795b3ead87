//! What takes long, each in a thread of its own: it is rare. Results come back as events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;
use segstore_core::id::{Epoch, Member, Stamp};
use segstore_core::layout::Ownership;
use segstore_core::record::Swap;
use segstore_core::replica::{Refused, Request as ReplicaRequest};

use super::event::Event;
use super::link::Link;
use super::seat::Shared;
use crate::control::message::{Answer, Fault, FaultKind, Place, Request};
use crate::domains::{DialError, PATIENCE};
use crate::error::Error;
use crate::takeover::views;

/// How long the directory may take for one answer.
const DIRECTORY: Duration = Duration::from_secs(10);
/// The first pause before something is tried again; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long a thread that only drives keeps the engine at a time.
const TURN: Duration = Duration::from_millis(1);

/// One thing to do.
pub(crate) enum Job {
    /// Change the record; with what is known of replicas out of reach.
    Swap(Swap, Vec<(Member, String)>),
    /// Read it, again until there is an answer.
    ReadRecord,
    /// Open an endpoint to a replica, again until there is one.
    Connect(Member),
    /// Drive an attempt to its end.
    Drive { epoch: Epoch, bell: Arc<EventFd> },
    /// Wait before another replica is asked for.
    Rest,
    /// Open an endpoint to the copy on this node, which is made if there is none.
    Local,
    /// Have another replica placed and filled.
    Repair { ownership: Ownership, members: Vec<Member>, source: Member, slot: u32, base: Stamp },
}

pub(super) fn start(shared: &Arc<Shared>, job: Job) {
    let worker = shared.clone();
    let run = move || match job {
        Job::Swap(swap, causes) => change_record(&worker, &swap, &causes),
        Job::ReadRecord => read_record(&worker),
        Job::Connect(member) => connect(&worker, member),
        Job::Drive { epoch, bell } => drive(&worker, epoch, &bell),
        Job::Local => local(&worker),
        Job::Rest => {
            std::thread::sleep(LONGEST_PAUSE);
            worker.bring(Event::NotRepaired);
        }
        Job::Repair { ownership, members, source, slot, base } => {
            let name = worker.name.clone();
            repair(&worker, ownership, source, Request::Repair { name, ownership, members, source, slot, base });
        }
    };
    if let Err(error) = std::thread::Builder::new().name("segstore-job".into()).spawn(run) {
        tracing::error!(segment = %shared.name, "no thread for what the segment needs: {error}; it goes on without");
    }
}

/// Pauses that grow.
struct Pauses(Duration);

impl Pauses {
    fn new() -> Self {
        Self(PAUSE)
    }

    fn pause(&mut self) {
        std::thread::sleep(self.0);
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }
}

fn change_record(shared: &Arc<Shared>, swap: &Swap, causes: &[(Member, String)]) {
    let why = describe(swap);
    let mut pauses = Pauses::new();
    while !shared.is_closed() {
        let (name, swap, why, causes) = (shared.name.clone(), swap.clone(), why.clone(), causes.to_vec());
        let request = Request::Swap { name, swap, why, causes };
        let event = match shared.session.channel.ask(request, Some(DIRECTORY)) {
            Ok(Answer::Swapped { version }) => Event::Swapped(version),
            Ok(Answer::Conflict { current }) => Event::Conflicted(current),
            Err(Fault { kind: FaultKind::NoAnswer, .. }) => Event::SwapUnknown,
            Err(Fault { kind: FaultKind::NotFound, .. }) => Event::Unlinked,
            Ok(_) | Err(_) => {
                // Certainly not done.
                pauses.pause();
                continue;
            }
        };
        return shared.bring(event);
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

fn read_record(shared: &Arc<Shared>) {
    let mut pauses = Pauses::new();
    while !shared.is_closed() {
        let request = Request::Lookup { name: shared.name.clone() };
        match shared.session.channel.ask(request, Some(DIRECTORY)) {
            Ok(Answer::Segment(info)) => {
                info.places.into_iter().for_each(|place| shared.learn(place));
                return shared.bring(Event::RecordRead(info.record));
            }
            Err(Fault { kind: FaultKind::NotFound, .. }) => return shared.bring(Event::Unlinked),
            Ok(_) | Err(_) => pauses.pause(),
        }
    }
}

fn connect(shared: &Arc<Shared>, member: Member) {
    let give_up = Instant::now() + shared.patience;
    let (mut pauses, mut is_told) = (Pauses::new(), false);
    while !shared.is_closed() {
        let Some(place) = shared.place(member) else { return };
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

fn open(shared: &Arc<Shared>, place: &Place, limit: Duration) -> Result<Link, DialError> {
    let incarnation = place.member.incarnation;
    let request = ReplicaRequest { segment: shared.segment, incarnation, asker: shared.ownership };
    let session = &shared.session;
    let (provider, endpoint) = session.domains.dial(&session.channel, &shared.name, place, Some(request), limit)?;
    let link = Link::new(place.member, provider, endpoint, &session.domains, &shared.working, &shared.geometry);
    link.map_err(|error| DialError::OutOfReach(error.to_string()))
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
            engine.rest(shared, began, Instant::now() + TURN);
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

fn repair(shared: &Arc<Shared>, by: Ownership, source: Member, request: Request) {
    let event = match shared.session.channel.ask(request, None) {
        Err(Fault { kind: FaultKind::Refused(why @ Refused::TermOver { .. }), .. }) => Event::Refused(source, why),
        Ok(Answer::Repaired { place, base, closed }) => {
            Event::Repaired { by, place, slots: shared.geometry.slots(), base, closed }
        }
        other => {
            if let Err(fault) = other {
                tracing::debug!(segment = %shared.name, "no further replica: {fault}");
            }
            // Whether there is room changes slowly.
            std::thread::sleep(LONGEST_PAUSE);
            Event::NotRepaired
        }
    };
    if !shared.is_closed() {
        shared.bring(event);
    }
}
