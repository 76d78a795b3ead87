//! Who has the engine: one thread at a time, and nobody waits for another's I/O.
//!
//! The application's thread takes the engine for the time of a call. Whoever brings an event leaves it in the inbox; if the seat is
//! empty, it takes the engine for a moment and handles the event itself; otherwise whoever sits there does, before leaving or
//! while waiting. Taking and leaving is one atomic swap of a pointer.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crossbeam_utils::Backoff;
use crossbeam_utils::atomic::AtomicCell;
use nix::sys::eventfd::EventFd;
use segstore_core::id::{Epoch, Member, NodeId, SegmentId};
use segstore_core::layout::{Geometry, Ownership};
use segstore_core::replica::Request as ReplicaRequest;
use segstore_transport::Memory;

use super::Engine;
use super::event::Event;
use super::jobs::{self, Job, Queue};
use crate::control::message::{Place, Request, SegmentInfo};
use crate::lock::lock;
use crate::moves::Listener;
use crate::session::Inner as Session;

/// How long replicas may take to bring their slots up to date.
const LEVEL: Duration = Duration::from_secs(60);

/// What the threads that serve one owned segment share.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) segment: SegmentId,
    pub(crate) ownership: Ownership,
    /// The owner's node.
    pub(crate) node: NodeId,
    pub(crate) geometry: Geometry,
    pub(crate) session: Arc<Session>,
    pub(crate) working: Memory,
    /// How long a replica that was lost may take to come back before it is given up.
    pub(crate) patience: Duration,
    /// Who hears of it when the segment is to be handed over.
    pub(crate) moves: Listener,
    engine: AtomicCell<Option<Box<Engine>>>,
    inbox: Mutex<Vec<Event>>,
    has_events: AtomicBool,
    bell: Condvar,
    pub(super) jobs: Queue,
    places: Mutex<Vec<Place>>,
    is_closed: AtomicBool,
}

impl Shared {
    pub(crate) fn new(
        session: Arc<Session>,
        info: SegmentInfo,
        geometry: Geometry,
        working: Memory,
        patience: Duration,
        engine: Engine,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: info.name,
            segment: engine.owner.segment(),
            ownership: engine.owner.ownership(),
            node: session.channel.welcome().node,
            geometry,
            session,
            working,
            patience,
            moves: Listener::default(),
            engine: AtomicCell::new(Some(Box::new(engine))),
            inbox: Mutex::default(),
            has_events: AtomicBool::new(false),
            bell: Condvar::new(),
            jobs: Queue::default(),
            places: Mutex::new(info.places),
            is_closed: AtomicBool::new(false),
        })
    }

    // ---- the seat ----

    /// Takes the engine, as soon as whoever has it for a moment has left.
    pub(crate) fn enter(self: &Arc<Self>) -> Seated {
        let backoff = Backoff::new();
        loop {
            if let Some(seated) = self.try_enter() {
                return seated;
            }
            backoff.snooze();
        }
    }

    fn try_enter(self: &Arc<Self>) -> Option<Seated> {
        self.engine.take().map(|engine| Seated { engine: Some(engine), shared: self.clone() })
    }

    /// Leaves the engine, and handles what has come meanwhile.
    pub(crate) fn leave(self: &Arc<Self>, seated: Seated) {
        drop(seated);
        self.serve();
    }

    /// Brings an event.
    pub(crate) fn bring(self: &Arc<Self>, event: Event) {
        lock(&self.inbox).push(event);
        self.has_events.store(true, Ordering::SeqCst);
        self.bell.notify_all();
        self.serve();
    }

    /// Handles events, unless somebody else has the engine: who has it will.
    fn serve(self: &Arc<Self>) {
        while self.has_events() {
            let Some(mut engine) = self.try_enter() else { return };
            engine.step(self);
        }
    }

    pub(super) fn has_events(&self) -> bool {
        self.has_events.load(Ordering::SeqCst)
    }

    pub(super) fn take_events(&self) -> Vec<Event> {
        let mut inbox = lock(&self.inbox);
        self.has_events.store(false, Ordering::SeqCst);
        std::mem::take(&mut *inbox)
    }

    /// Sleeps until there is an event.
    pub(super) fn sleep(&self, limit: Duration) {
        let inbox = lock(&self.inbox);
        if inbox.is_empty() {
            let _ = self.bell.wait_timeout(inbox, limit);
        }
    }

    // ---- what jobs need ----

    /// Starts something that takes long.
    pub(super) fn start(self: &Arc<Self>, job: Job) {
        jobs::start(self, job);
    }

    /// Has replicas bring their stale slots up to date, now that this owner writes no more. One that does not costs the next owner a
    /// full copy.
    pub(crate) fn level(&self, members: &[Member]) {
        let ask = |member: &Member| {
            let incarnation = member.incarnation;
            let request = ReplicaRequest { segment: self.segment, incarnation, asker: self.ownership };
            self.session.channel.send_at_once(Request::Level { name: self.name.clone(), member: *member, request })
        };
        let until = Instant::now() + LEVEL;
        let asked: Vec<_> = members.iter().map(ask).collect();
        for answer in asked.into_iter().flatten() {
            if let Err(fault) = answer.wait(Some(until.saturating_duration_since(Instant::now()))) {
                tracing::debug!(segment = %self.name, "a replica's stale slots stay so: {fault}");
            }
        }
    }

    /// Drives the attempt `epoch` in a thread of its own, and rings when it has ended.
    pub(crate) fn drive(self: &Arc<Self>, epoch: Epoch, bell: Arc<EventFd>) -> std::io::Result<()> {
        jobs::start_driving(self, epoch, bell)
    }

    /// Opens endpoints to every replica.
    pub(crate) fn connect_all(self: &Arc<Self>) {
        let mut engine = self.enter();
        engine.connect(self);
        self.leave(engine);
    }

    /// Where a replica is.
    pub(super) fn place(&self, member: Member) -> Option<Place> {
        lock(&self.places).iter().find(|place| place.member == member).cloned()
    }

    pub(super) fn learn(&self, place: Place) {
        let mut places = lock(&self.places);
        places.retain(|known| known.member != place.member);
        places.push(place);
    }

    pub(super) fn forget(&self, member: Member) {
        lock(&self.places).retain(|place| place.member != member);
    }

    /// Nothing is wanted any more: jobs end.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// A text in which replicas have their nodes' names.
    pub(super) fn with_names(&self, mut text: String) -> String {
        for place in lock(&self.places).iter() {
            text = text.replace(&place.member.to_string(), &format!("node {}", place.node_name));
        }
        text
    }
}

/// Who has the engine. It is back in its place when this is gone, also by a panic: who ends the segment then needs it.
pub(crate) struct Seated {
    engine: Option<Box<Engine>>,
    shared: Arc<Shared>,
}

impl Deref for Seated {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        self.engine.as_deref().unwrap_or_else(|| unreachable!("it goes back only when this is dropped"))
    }
}

impl DerefMut for Seated {
    fn deref_mut(&mut self) -> &mut Engine {
        self.engine.as_deref_mut().unwrap_or_else(|| unreachable!("it goes back only when this is dropped"))
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.shared.engine.store(self.engine.take());
    }
}
