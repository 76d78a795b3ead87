//! What a session is made of: the channel to the daemon, what this process owns and holds by it, and whom the daemon's demands concern.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use segstore_core::id::Member;
use segstore_core::layout::Ownership;

use super::ANSWER;
use crate::control::channel::{Asked, Channel, Reporter};
use crate::control::message::{Answer, Bytes, Demand, Fault, Place, Report, Request, SegmentInfo};
use crate::domains::Domains;
use crate::engine::event::Event;
use crate::engine::seat::Shared;
use crate::error::{Error, Result};
use crate::lock::lock;
use crate::moves::{Listener, Move, Moves};
use crate::name::Names;
use crate::releases::Releases;
use crate::takeover::unexpected;

/// How long a name that was let go and is wanted again is waited for at least.
const RELEASED: Duration = Duration::from_secs(1);

/// The segments that this session owns in this process, for what the daemon demands.
#[derive(Clone, Default)]
struct Owned(Arc<Mutex<HashMap<String, Weak<Shared>>>>);

/// Who hears of it when a name is to be handed over that the session holds without a segment.
#[derive(Clone, Default)]
struct Holders(Arc<Mutex<HashMap<String, Listener>>>);

pub(crate) struct Inner {
    pub(crate) channel: Channel,
    pub(crate) domains: Arc<Domains>,
    owned: Owned,
    holders: Holders,
    /// Bytes that loads have read.
    pub(crate) pulled: Arc<AtomicU64>,
    /// Names that this process holds for its segments.
    pub(crate) names: Names,
    /// Names that it lets go.
    releases: Arc<Releases>,
}

impl Owned {
    fn of(&self, name: &str) -> Option<Arc<Shared>> {
        lock(&self.0).get(name).and_then(Weak::upgrade)
    }

    fn all(&self) -> Vec<Arc<Shared>> {
        lock(&self.0).values().filter_map(Weak::upgrade).collect()
    }

    fn add(&self, shared: &Arc<Shared>) {
        let mut owned = lock(&self.0);
        owned.retain(|_, segment| segment.strong_count() > 0);
        owned.insert(shared.name.clone(), Arc::downgrade(shared));
    }
}

impl Holders {
    fn hear(&self, name: &str, wish: &Move) -> bool {
        lock(&self.0).get(name).is_some_and(|holder| holder.tell(wish))
    }
}

/// Directs a demand to whom it concerns. Where nobody is there, the reporter says so when it is dropped.
fn direct(demand: Demand, reporter: Reporter, owned: &Owned, holders: &Holders) {
    let segment = owned.of(demand.name());
    let event = match demand {
        Demand::Hold { time, without, .. } => Event::Hold { time: Duration::from_millis(time), without, reporter },
        Demand::EndHold { number, .. } => Event::EndHold { number, reporter },
        Demand::Changed { .. } => Event::Changed(reporter),
        Demand::Move { name, to, left_ms, of_holder } => {
            let wish = Move { to, until: Instant::now() + Duration::from_millis(left_ms) };
            let segment = segment.filter(|segment| !segment.is_closed());
            let is_heard =
                segment.is_some_and(|segment| segment.moves.tell(&wish)) || of_holder && holders.hear(&name, &wish);
            if is_heard {
                reporter.report(Ok(Report::Done));
            }
            return;
        }
        Demand::State { .. } => Event::State(reporter),
    };
    if let Some(segment) = segment {
        segment.bring(event);
    }
}

/// What this program is called, for people.
fn program() -> String {
    let program = std::env::current_exe().ok();
    let name = program.as_deref().and_then(Path::file_name);
    name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.channel.is_inherited() {
            // A device's objects are the parent's, which a child could close.
            std::mem::forget(self.domains.clone());
        }
    }
}

impl Inner {
    /// Connects to the daemon whose socket is at `path`, in a new session or in the one that `token` joins.
    pub(super) fn open(path: &Path, token: Option<String>) -> Result<Self> {
        let (owned, holders, releases) = (Owned::default(), Holders::default(), Arc::<Releases>::default());
        let (segments, listeners) = (owned.clone(), holders.clone());
        let on_demand = Box::new(move |demand, reporter| direct(demand, reporter, &segments, &listeners));
        let (segments, unheard) = (owned.clone(), releases.clone());
        let on_return = Box::new(move |send: &dyn Fn(Request) -> Asked| {
            unheard.tell_again(send);
            segments.all().iter().for_each(|segment| segment.bring(Event::DaemonIsBack));
        });
        let channel = Channel::open(path, &program(), token, on_demand, on_return);
        let channel = channel.map_err(|error| match error.downcast::<Fault>() {
            Ok(fault) => Error::of_fault("", fault),
            Err(error) => Error::NoDaemon { path: path.to_owned(), why: error.to_string() },
        })?;
        let domains = Arc::new(Domains::new(channel.welcome().rdma));
        let (pulled, names) = (Arc::default(), Names::default());
        Ok(Self { channel, domains, owned, holders, pulled, names, releases })
    }

    pub(crate) fn ask(&self, name: &str, request: Request, limit: Option<Duration>) -> Result<Answer> {
        self.channel.ask(request, limit).map_err(|fault| Error::of_fault(name, fault))
    }

    pub(super) fn done(&self, name: &str, request: Request, limit: Option<Duration>) -> Result<()> {
        match self.ask(name, request, limit)? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Holds a name, for this process alone (`own`) or for the session; whether nobody of the session wanted it before, and the number of the
    /// hold.
    pub(crate) fn acquire(&self, name: &str, wait: Option<Duration>, force: bool, own: bool) -> Result<(bool, u64)> {
        // The daemon serves requests side by side: a release must not come after this.
        let is_left_over = self.releases.end(name, own, wait.unwrap_or(ANSWER).clamp(RELEASED, ANSWER)).is_err();
        let millis = wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let request = Request::Acquire { name: name.to_owned(), wait: millis, force, own };
        let acquired = self.ask(name, request, wait.map(|wait| wait.saturating_add(ANSWER)));
        if is_left_over && acquired.is_err() {
            self.release_soon(name, own);
        }
        match acquired? {
            Answer::Acquired { newly, hold } => Ok((newly || is_left_over, hold)),
            other => Err(unexpected(&other)),
        }
    }

    /// To a daemon that does not tell processes apart, the name is no longer let go with the segment that may be open under it.
    pub(super) fn outlast_segments(&self, name: &str) {
        if !self.channel.welcome().knows_processes {
            self.names.keep(name);
        }
    }

    /// Waits until the daemon has let the name go.
    pub(crate) fn await_release(&self, name: &str, own: bool) -> Result<()> {
        let released = self.releases.end(name, own, ANSWER);
        if released.is_err() {
            self.names.unless_wanted(name, || self.release_soon(name, own));
        }
        released.map_err(|fault| Error::of_fault(name, fault))
    }

    /// Hears of it when this name is to be handed over, which is held without a segment.
    pub(super) fn listen(&self, name: &str) -> Result<Moves> {
        lock(&self.holders.0).entry(name.to_owned()).or_default().listen()
    }

    /// What was wished for of a hold of this name is of no other one.
    pub(super) fn forget_wish(&self, name: &str) {
        if let Some(holder) = lock(&self.holders.0).get(name) {
            holder.forget();
        }
    }

    /// Lets a name go without waiting for it: at once, or as soon as the daemon is there.
    pub(crate) fn release_soon(&self, name: &str, own: bool) {
        self.releases.begin(name, own, |request| self.channel.send_at_once(request));
    }

    pub(super) fn segment(&self, name: &str, request: Request) -> Result<SegmentInfo> {
        match self.ask(name, request, Some(ANSWER))? {
            Answer::Segment(info) => Ok(*info),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) fn lookup(&self, name: &str) -> Result<SegmentInfo> {
        self.segment(name, Request::Lookup { name: name.to_owned() })
    }

    /// The copy on this node; if there is none, it is made for this owner.
    pub(crate) fn local(&self, name: &str, make_for: Option<Ownership>) -> Result<(Place, Vec<Bytes>)> {
        match self.ask(name, Request::Local { name: name.to_owned(), make_for }, Some(ANSWER))? {
            Answer::Local { member, heads } => Ok((self.own_place(member), heads)),
            other => Err(unexpected(&other)),
        }
    }

    /// The first bytes of a replica's slots.
    pub(crate) fn heads(&self, name: &str, member: Member) -> Result<Vec<Bytes>> {
        match self.ask(name, Request::Heads { name: name.to_owned(), member }, Some(ANSWER))? {
            Answer::Heads(heads) => Ok(heads),
            other => Err(unexpected(&other)),
        }
    }

    fn own_place(&self, member: Member) -> Place {
        let welcome = self.channel.welcome();
        Place {
            member,
            node_name: welcome.node_name,
            host: welcome.host,
            providers: welcome.providers,
            up: true,
            problem: None,
        }
    }

    /// Directs what the daemon demands of this segment to its owner here.
    pub(crate) fn own(&self, shared: &Arc<Shared>) {
        self.owned.add(shared);
    }

    /// 128 random bits.
    pub(crate) fn random(&self) -> Result<u128> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| Error::Internal(format!("no random bits: {error}")))?;
        Ok(u128::from_ne_bytes(bytes))
    }
}
