//! A session with the node's daemon: where segments are created, opened, listed and removed.

mod inner;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use segstore_core::layout::Geometry;

use crate::control::message::{Answer, Event, Holder, Judged, Left, NodeInfo, Request, SegmentInfo, Status};
use crate::control::rdma::RdmaDevice;
use crate::error::{Error, Result};
use crate::fabric::Fabric;
use crate::group;
use crate::hold::Hold;
use crate::moves::Moves;
use crate::options::{CreateOptions, LoadOptions, OpenOptions};
use crate::reader::{self, Image};
use crate::segment::Segment;
use crate::takeover::unexpected;
use crate::turn::{self, Turn};
pub(crate) use inner::Inner;

/// Where the daemon's socket is unless something else is said.
pub const DEFAULT_SOCKET: &str = "/run/segstore/segstored.sock";
/// The environment variable that names the daemon's socket.
pub const SOCKET_VARIABLE: &str = "SEGSTORE_SOCKET";
/// The environment variable by which a program joins the session of the process that started it.
pub const SESSION_VARIABLE: &str = "SEGSTORE_SESSION";

/// How long the daemon may take for an answer that needs no waiting.
const ANSWER: Duration = Duration::from_secs(30);

/// A session with the node's daemon. Cheap to clone; it ends when the last clone and the last segment are gone, and with it every
/// ownership.
#[derive(Clone)]
pub struct Session {
    pub(crate) inner: Arc<Inner>,
}

/// How the lease of a session's node stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Until then nobody else is given what is held on this node, unless by force: see [`Session::await_loss`]. It may have been.
    pub until: Instant,
    /// Its whole time: what each confirmation gives.
    pub time: Duration,
    /// Why it is not kept alive now, for people.
    pub trouble: Option<String>,
}

impl Session {
    /// Connects to the daemon that [`SOCKET_VARIABLE`] names, or to the one at [`DEFAULT_SOCKET`] if it is not set, or empty; in a program that was started to hold
    /// a segment, to the session that [`SESSION_VARIABLE`] names.
    ///
    /// # Errors
    /// As [`connect_to`](Self::connect_to) and [`join_at`](Self::join_at).
    pub fn connect() -> Result<Self> {
        let named = std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty());
        let path = named.map_or_else(|| PathBuf::from(DEFAULT_SOCKET), PathBuf::from);
        Self::join(&path, std::env::var(SESSION_VARIABLE).ok().filter(|token| !token.is_empty()))
    }

    /// Connects to the daemon whose socket is at `path`.
    ///
    /// # Errors
    /// [`Error::NoDaemon`]: it does not answer; [`Error::NoRoom`]: this user has too many connections to it.
    pub fn connect_to(path: impl AsRef<Path>) -> Result<Self> {
        Self::join(path.as_ref(), None)
    }

    /// Joins the session that `token` names, at the daemon whose socket is at `path`; where that has ended, begins one of that name, which
    /// holds nothing.
    ///
    /// # Errors
    /// [`Error::NoDaemon`]: it does not answer; [`Error::Refused`]: the session belongs to another user; [`Error::NoRoom`]: this user has
    /// too many connections to it.
    pub fn join_at(path: impl AsRef<Path>, token: &str) -> Result<Self> {
        Self::join(path.as_ref(), Some(token.to_owned()))
    }

    fn join(path: &Path, token: Option<String>) -> Result<Self> {
        Ok(Self { inner: Arc::new(Inner::open(path, token)?) })
    }

    /// What joins this session, in the environment of a program that is started to use it.
    #[must_use]
    pub fn token(&self) -> String {
        self.inner.channel.welcome().session
    }

    /// The name of this node.
    #[must_use]
    pub fn node_name(&self) -> String {
        self.inner.channel.welcome().node_name
    }

    /// The transport's providers that this node serves, by name, the best first.
    #[must_use]
    pub fn providers(&self) -> Vec<String> {
        self.inner.channel.welcome().providers
    }

    /// The node's RDMA device, as its daemon is configured.
    #[must_use]
    pub fn rdma(&self) -> RdmaDevice {
        self.inner.channel.welcome().rdma
    }

    /// How long the daemon of this node may be silent before the others take the node for dead, and what is held on it for free; zero
    /// if the daemon does not say.
    #[must_use]
    pub fn node_lease(&self) -> Duration {
        self.inner.channel.welcome().node_lease
    }

    /// Bytes of state that loads of this session have read from replicas so far: for people who wait for one.
    #[must_use]
    pub fn pulled_bytes(&self) -> u64 {
        self.inner.pulled.load(Ordering::Relaxed)
    }

    // ---- segments ----

    /// Makes a segment. It is empty, and nobody owns it.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::Invalid`] names the value that is wrong; [`Error::NoRoom`] where it does not fit.
    pub fn create(&self, name: &str, options: &CreateOptions) -> Result<SegmentInfo> {
        let CreateOptions { shape, keeping, ref placing, mode, uid, gid } = *options;
        let placing = placing.clone();
        let request = Request::Create { name: name.to_owned(), shape, keeping, placing, mode, uid, gid };
        self.inner.segment(name, request)
    }

    /// Opens a segment as its owner: holds its name, takes it over, loads the newest checkpoint.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Owned`] by another session, [`Error::NoGoodCopy`], [`Error::Unreachable`].
    pub fn open(&self, name: &str, options: &OpenOptions) -> Result<Segment> {
        turn::stand_by(options, |options| {
            let turn = self.wait_for(name, options)?;
            Segment::take_over(turn, self.inner.lookup(name)?, options)
        })
    }

    /// Opens a segment as its owner; makes it first if it is not there.
    ///
    /// # Errors
    /// As [`Session::create`] and [`Session::open`].
    pub fn open_or_create(&self, name: &str, make: &CreateOptions, options: &OpenOptions) -> Result<Segment> {
        turn::stand_by(options, |options| {
            let turn = self.wait_for(name, options)?;
            let made = match self.inner.lookup(name) {
                Err(Error::NotFound(_)) => self.create(name, make),
                found => found,
            };
            let made = match made {
                Err(Error::Exists(_)) => self.inner.lookup(name),
                made => made,
            };
            made.and_then(|info| Segment::take_over(turn, info, options))
        })
    }

    /// Opens several segments as their owner, all of them or none, and gives them in this order: holds every name first, and takes them over side by
    /// side. Each has checkpoints of its own: nothing makes those of one go with those of another.
    ///
    /// # Errors
    /// As [`Session::open`], of one of them; [`Error::Invalid`]: one is named twice.
    pub fn open_all(&self, names: &[&str], options: &OpenOptions) -> Result<Vec<Segment>> {
        turn::stand_by(options, |options| group::open_all(self, names, options))
    }

    fn wait_for(&self, name: &str, options: &OpenOptions) -> Result<Turn> {
        let turn = turn::wait_for(&self.inner, &[name], options)?.pop();
        turn.ok_or_else(|| Error::Internal("one name was asked for, and none is held".into()))
    }

    /// Holds a name, so that no other session in the cluster owns the segment; the segment need not exist. Gives the number of the hold.
    ///
    /// # Errors
    /// [`Error::Owned`]: another session holds it, for longer than `wait` (`None`: for ever).
    pub fn acquire(&self, name: &str, wait: Option<Duration>, force: bool) -> Result<u64> {
        let (newly, hold) = self.inner.acquire(name, wait, force, false)?;
        if newly {
            self.inner.forget_wish(name);
        }
        self.inner.outlast_segments(name);
        Ok(hold)
    }

    /// Waits until the hold of that number is over, because another session took the name or this one let it go; gives who holds the
    /// name then. What was taken and is free again, or was acquired again, is another hold.
    ///
    /// # Errors
    /// [`Error::Unreachable`]: the node's daemon does not answer any more.
    pub fn await_loss(&self, name: &str, hold: u64) -> Result<Option<Holder>> {
        match self.inner.ask(name, Request::AwaitLoss { name: name.to_owned(), hold }, None)? {
            Answer::Lost { holder } => Ok(holder),
            other => Err(unexpected(&other)),
        }
    }

    /// From now on who [holds](Self::acquire) this name without a segment can be asked to hand it over, as `segctl move` does, and
    /// [releases](Self::release) it then. Where another process of the session has the segment open, and hears of moves, that one is asked.
    ///
    /// # Errors
    /// [`Error::NoRoom`]: no descriptor is left.
    pub fn moves(&self, name: &str) -> Result<Moves> {
        self.inner.listen(name)
    }

    /// Has a name handed over to whoever stands by for it on the node `to`, or on any other node than its holder's: the holder is told, and
    /// lets it go when it is ready to. Gives who has it then: somebody else than was asked for, if that one had gone. Nothing changes where
    /// nobody stands by, or the holder cannot be told.
    ///
    /// # Errors
    /// [`Error::NotFound`]: nobody holds it; [`Error::Refused`]: nobody stands by there, or the holder does not hear of moves;
    /// [`Error::Unreachable`]: it was not let go within `wait`.
    pub fn move_to(&self, name: &str, to: Option<&str>, wait: Duration) -> Result<Holder> {
        let (wait_ms, to) = (u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), to.map(str::to_owned));
        let request = Request::Move { name: name.to_owned(), to, wait: wait_ms };
        match self.inner.ask(name, request, Some(wait.saturating_add(ANSWER)))? {
            Answer::Moved { holder } => Ok(holder),
            other => Err(unexpected(&other)),
        }
    }

    /// How the node's lease stands, as the node's daemon knows by itself. What this session holds may be another's once it is over.
    ///
    /// # Errors
    /// [`Error::Unreachable`]: the daemon does not answer within `limit`.
    pub fn lease(&self, limit: Duration) -> Result<Lease> {
        let asked = Instant::now();
        match self.inner.ask("", Request::Lease, Some(limit))? {
            Answer::Lease { left_ms, time_ms, trouble } => {
                let [left, time] = [left_ms, time_ms].map(Duration::from_millis);
                Ok(Lease { until: asked + left, time, trouble })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Holds a name no longer that was [acquired](Self::acquire), unless a segment is open under it.
    ///
    /// # Errors
    /// [`Error::Unreachable`]: the daemon or the directory does not answer. It is let go as soon as they do.
    pub fn release(&self, name: &str) -> Result<()> {
        self.inner.outlast_segments(name);
        self.inner.forget_wish(name);
        self.inner.release_soon(name, false);
        self.inner.await_release(name, false)
    }

    /// Keeps a segment in so many replicas on other nodes than its owner's, from here on. An owner that runs is told; until as many are
    /// in sync, or fewer, takes as long as filling them, or as its next checkpoint. Where nobody owns it, a node fills what is missing, within
    /// some minutes.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`]: a segment has 1 to 16, and no fewer than its minimum.
    pub fn set_replicas(&self, name: &str, replicas: u32) -> Result<SegmentInfo> {
        self.inner.segment(name, Request::SetReplicas { name: name.to_owned(), replicas })
    }

    /// Which nodes get a segment's next replicas, as it stands now, and why: for a segment that is there, or for one that would be made so.
    ///
    /// # Errors
    /// [`Error::NotFound`], if it is not said how it would be made; [`Error::Exists`], if it is.
    pub fn plan(&self, name: &str, make: Option<&CreateOptions>) -> Result<Vec<Judged>> {
        let made = make.map(|make| (make.shape, make.keeping, make.placing.clone()));
        match self.inner.ask(name, Request::Plan { name: name.to_owned(), made }, Some(ANSWER))? {
            Answer::Plan(judged) => Ok(judged),
            other => Err(unexpected(&other)),
        }
    }

    /// Begins to drain a node (`on`), or ends that: it gets no further replica, and owners move off it what they have there.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unreachable`]: it is down; [`Error::Refused`]: only root, and the daemon's own user, may.
    pub fn drain(&self, node: &str, on: bool) -> Result<()> {
        self.inner.done(node, Request::Drain { node: node.to_owned(), on }, Some(ANSWER))
    }

    /// What keeps a node from being switched off: replicas that are needed, and whose owners make others elsewhere if it is drained; and
    /// applications there that own segments. What nobody owns, a node that has a replica moves.
    ///
    /// # Errors
    /// As [`drain`](Self::drain).
    pub fn left(&self, node: &str) -> Result<Vec<Left>> {
        match self.inner.ask(node, Request::Left { node: node.to_owned() }, Some(ANSWER))? {
            Answer::Left(left) => Ok(left),
            other => Err(unexpected(&other)),
        }
    }

    /// Removes a segment and every copy of it.
    ///
    /// # Errors
    /// [`Error::Owned`], unless `force`.
    pub fn remove(&self, name: &str, force: bool) -> Result<()> {
        self.inner.done(name, Request::Remove { name: name.to_owned(), force }, Some(ANSWER))
    }

    /// Loads a checkpoint without owning the segment, and without disturbing a living owner.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unreachable`]: the owner is not known to be gone and does not answer; [`Error::NoGoodCopy`];
    /// [`Error::Refused`]: nobody owns it, and this user may not, or this node only keeps replicas.
    pub fn load(&self, name: &str, options: &LoadOptions) -> Result<Image> {
        reader::load(&self.inner, name, options)
    }

    /// Has the owner of a segment keep its newest acknowledged checkpoint for `time`, a minute at most, so that it can be loaded by its
    /// number. It ends earlier with the replica that holds it.
    ///
    /// # Errors
    /// [`Error::NotFound`]: there is none, or nobody owns it; [`Error::Refused`]: who holds the name has not opened it;
    /// [`Error::Unreachable`]: the owner does not answer.
    pub fn hold(&self, name: &str, time: Duration) -> Result<Hold> {
        Hold::new(&self.inner, name, time)
    }

    /// Opens the bare way to a segment's replica on another node, which is good for measuring only and ruins the segment: see
    /// [`Fabric`].
    ///
    /// # Errors
    /// As [`Session::open`]; [`Error::NoRoom`]: it has no replica on another node.
    pub fn fabric(&self, name: &str) -> Result<Fabric> {
        Fabric::open(&self.inner, name)
    }

    // ---- what is known ----

    /// What the directory knows of a segment.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unreachable`].
    pub fn lookup(&self, name: &str) -> Result<SegmentInfo> {
        self.inner.lookup(name)
    }

    /// All that is known of a segment: from the directory, its owner, its replicas.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unreachable`].
    pub fn status(&self, name: &str) -> Result<Status> {
        match self.inner.ask(name, Request::Status { name: name.to_owned() }, Some(ANSWER))? {
            Answer::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    /// Every segment of the cluster, by name.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub fn segments(&self) -> Result<Vec<SegmentInfo>> {
        match self.inner.ask("", Request::Segments, Some(ANSWER))? {
            Answer::Segments(segments) => Ok(segments),
            other => Err(unexpected(&other)),
        }
    }

    /// Every name that is held in the cluster, whether there is a segment of that name or not.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub fn holds(&self) -> Result<Vec<crate::control::message::HeldName>> {
        match self.inner.ask("", Request::Holds, Some(ANSWER))? {
            Answer::Holds(holds) => Ok(holds),
            other => Err(unexpected(&other)),
        }
    }

    /// Has every daemon name a node no longer that is down for good.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`]: it is up, or keeps a replica in sync.
    pub fn forget_node(&self, name: &str) -> Result<()> {
        self.inner.done(name, Request::ForgetNode { name: name.to_owned() }, Some(ANSWER))
    }

    /// Every node of the cluster, by name.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub fn nodes(&self) -> Result<Vec<NodeInfo>> {
        match self.inner.ask("", Request::Nodes, Some(ANSWER))? {
            Answer::Nodes(nodes) => Ok(nodes),
            other => Err(unexpected(&other)),
        }
    }

    /// What happened lately: to one segment, or to all.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unreachable`].
    pub fn events(&self, name: Option<&str>) -> Result<Vec<Event>> {
        let request = Request::Events { name: name.map(str::to_owned) };
        match self.inner.ask(name.unwrap_or_default(), request, Some(ANSWER))? {
            Answer::Events(events) => Ok(events),
            other => Err(unexpected(&other)),
        }
    }
}

/// The shape of a segment's replicas.
pub(crate) fn geometry(info: &SegmentInfo) -> Result<Geometry> {
    info.shape.geometry().map_err(|error| Error::Internal(format!("segment {}: {error}", info.name)))
}
