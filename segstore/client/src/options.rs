//! What can be asked for.

use std::time::Duration;

use segstore_core::id::Epoch;
use segstore_core::layout::geometry::DEFAULT_BLOCK;
use segstore_transport::Wait;

pub use crate::control::message::{BelowMinimum, Condition};
use crate::control::message::{Keeping, Placing, Shape};

/// How a segment is made. What is not said is as [`CreateOptions::new`] says.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    pub(crate) shape: Shape,
    pub(crate) keeping: Keeping,
    pub(crate) placing: Placing,
    pub(crate) mode: u32,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

impl CreateOptions {
    /// A segment that can grow to `capacity` bytes, in blocks of 4 KiB, with one replica on another node, for its creator only. With
    /// no replica in sync on another node it goes on with what is left, and says so.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self {
            shape: Shape { capacity, block_size: DEFAULT_BLOCK, slots: 2 },
            keeping: Keeping { replicas: 1, minimum: 1, below_minimum: BelowMinimum::Continue, local: false },
            placing: Placing::default(),
            mode: 0o600,
            uid: None,
            gid: None,
        }
    }

    /// The unit of change, checksum and transfer in bytes: a power of two from 1 KiB to 2 MiB.
    #[must_use]
    pub fn block_size(mut self, bytes: u32) -> Self {
        self.shape.block_size = bytes;
        self
    }

    /// How many images a replica has room for, from 2 to 64. A third lets a reader hold one, for up to a minute, while the owner goes on.
    #[must_use]
    pub fn slots(mut self, slots: u32) -> Self {
        self.shape.slots = slots;
        self
    }

    /// How many nodes other than the owner's keep a replica.
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.keeping.replicas = replicas;
        self.keeping.minimum = self.keeping.minimum.min(replicas);
        self
    }

    /// What every node that keeps a replica must be.
    #[must_use]
    pub fn require(mut self, condition: Condition) -> Self {
        self.placing.require.push(condition);
        self
    }

    /// What it had better be: nodes of which more is true come first.
    #[must_use]
    pub fn prefer(mut self, condition: Condition) -> Self {
        self.placing.prefer.push(condition);
        self
    }

    /// A label of which the replicas, and the owner's node, are to have different values if that can be; the widest first. Unless one is
    /// named, these are `zone` and `rack`.
    #[must_use]
    pub fn spread(mut self, label: impl Into<String>) -> Self {
        self.placing.spread.push(label.into());
        self
    }

    /// The fewest of these that must be in sync, and what to do when they are fewer.
    #[must_use]
    pub fn minimum(mut self, minimum: u32, below: BelowMinimum) -> Self {
        self.keeping.minimum = minimum;
        self.keeping.below_minimum = below;
        self
    }

    /// Keeps a copy on the owner's node too, from the next checkpoint on. It makes a restart there instant and counts for nothing.
    #[must_use]
    pub fn local(mut self, local: bool) -> Self {
        self.keeping.local = local;
        self
    }

    /// Who may load it (read) and own it (write), as for a file of its user and group. To load one that nobody owns takes both, unless
    /// [pending](LoadOptions::pending) ones will do.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// The user that it belongs to, if not this process's: only root may say so.
    #[must_use]
    pub fn owner(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// The group that it belongs to, if not this process's first one: another one of this process, or, for root, any.
    #[must_use]
    pub fn group(mut self, gid: u32) -> Self {
        self.gid = Some(gid);
        self
    }
}

/// How the library knows what changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Tracking {
    /// Whoever changes bytes through the segment's methods marks them.
    #[default]
    Told,
    /// Each checkpoint compares working memory with a copy of the one before: twice the memory, and time that grows with the segment;
    /// for code that changes bytes in ways that cannot be marked.
    Compared,
}

/// How a segment is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    pub(crate) wait_for_holder: Option<Duration>,
    pub(crate) follow: bool,
    pub(crate) force: bool,
    pub(crate) timeout: Duration,
    pub(crate) patience: Duration,
    pub(crate) tracking: Tracking,
    pub(crate) wait: Wait,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            wait_for_holder: Some(Duration::ZERO),
            follow: false,
            force: false,
            timeout: Duration::from_secs(10),
            patience: Duration::from_secs(1),
            tracking: Tracking::Told,
            wait: Wait::default(),
        }
    }
}

impl OpenOptions {
    /// Not to wait for another owner, ten seconds for a checkpoint, changes are told.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stands by until the present owner is gone, at most for `limit` (`None`: for ever). So long it also stands by for what its takeover needs
    /// and does not answer, be it the node's daemon, the directory or the replicas, and says for what in its log.
    #[must_use]
    pub fn stand_by(mut self, limit: Option<Duration>) -> Self {
        self.wait_for_holder = limit;
        self
    }

    /// While it stands by, reads the newest checkpoint into its own memory, and what changes from then on: when its turn comes it reads what
    /// was changed last, and the block table, whatever the segment's size. It takes the segment's capacity of memory, and reads from the nearest
    /// replica: one on the same node costs no network.
    #[must_use]
    pub fn follow(mut self, follow: bool) -> Self {
        self.follow = follow;
        self
    }

    /// Takes the segment from an owner that is not known to be gone. That owner is fenced.
    #[must_use]
    pub fn take_over(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// How long a checkpoint may take before its call ends with [`Error::Pending`](crate::Error::Pending). What it has sent by then is not sent
    /// again by the next one, but for what has changed since.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// How long a replica that was lost may take to come back before the segment goes on without it: a daemon that is restarted
    /// within that time costs no repair.
    #[must_use]
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = limit;
        self
    }

    /// How the library knows what changed.
    #[must_use]
    pub fn tracking(mut self, tracking: Tracking) -> Self {
        self.tracking = tracking;
        self
    }

    /// How a checkpoint waits for its replicas.
    #[must_use]
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }
}

/// Which checkpoint to load without owning the segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LoadOptions {
    pub(crate) take_over: bool,
    pub(crate) pending: bool,
    pub(crate) epoch: Option<Epoch>,
}

impl LoadOptions {
    /// The newest acknowledged checkpoint: a living owner is asked for it; of one that is gone, the segment is taken over for a moment.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the segment from an owner that is not known to be gone, and is fenced, or from who holds its name without having opened it.
    #[must_use]
    pub fn take_over(mut self, force: bool) -> Self {
        self.take_over = force;
        self
    }

    /// Where the owner does not say which is acknowledged: the newest that verifies. It may be pending.
    #[must_use]
    pub fn pending(mut self, pending: bool) -> Self {
        self.pending = pending;
        self
    }

    /// This one, as long as it stands in a replica: for instance while it is held.
    #[must_use]
    pub fn epoch(mut self, epoch: Epoch) -> Self {
        self.epoch = Some(epoch);
        self
    }
}
