//! The node's sign of life: a lease in the directory, and the node's entry that is tied to it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::cluster::{Membership, NAMES, NodeEntry, name_key, node_key};
use crate::directory::{Directory, DirectoryError, Entry, LeaseId, Swapped, Value};
use crate::node::parse;

/// How often it is said that it is still the same that keeps the node out.
const REMIND: Duration = Duration::from_secs(60);

/// How the node's lease stands, as far as it is known here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// It is good until then if it is not confirmed again: counted from when that was asked for, since the directory counts from when it
    /// heard of it. `None`: there is none.
    pub until: Option<Instant>,
    /// Its whole time.
    pub time: Duration,
    /// Why it is not kept alive now.
    pub trouble: Option<String>,
}

/// A lease, and the time that the directory gives it: that of when it was granted, whatever was configured since.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Granted {
    id: LeaseId,
    time: Duration,
}

/// Keeps the node alive in the directory.
pub struct Keeper {
    directory: Arc<dyn Directory>,
    time: Duration,
    /// The lease's number, for a daemon that is started again within its time.
    file: PathBuf,
    current: watch::Sender<Option<LeaseId>>,
    standing: watch::Sender<Standing>,
    /// The other node that has this one's name.
    namesake: watch::Sender<Option<NodeEntry>>,
    /// Rung when the entry is not true any more.
    changed: Arc<Notify>,
}

impl Keeper {
    /// A node whose lease lasts `time`; its number is kept in `file`.
    #[must_use]
    pub fn new(directory: Arc<dyn Directory>, time: Duration, file: PathBuf) -> Self {
        let (current, namesake) = (watch::Sender::new(None), watch::Sender::new(None));
        Self { directory, time, file, current, standing: watch::Sender::default(), namesake, changed: Arc::default() }
    }

    /// What to ring when the node's entry is not true any more.
    #[must_use]
    pub fn bell(&self) -> Arc<Notify> {
        self.changed.clone()
    }

    /// The lease, as it changes. `None`: there is none yet, or it was lost.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<LeaseId>> {
        self.current.subscribe()
    }

    /// For how long the lease is good, as that changes.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// The other node that has this one's name, as long as this one waits for it.
    #[must_use]
    pub fn namesake(&self) -> watch::Receiver<Option<NodeEntry>> {
        self.namesake.subscribe()
    }

    /// Keeps the lease alive, and the entry up to date, until the process ends, or another node has this one's name: that is returned.
    pub async fn run(self, membership: Membership, describe: impl Fn() -> NodeEntry + Send) -> String {
        let mut namesake_since: Option<Instant> = None;
        let mut written: Option<NodeEntry> = None;
        let mut lease = self.former().await;
        let mut trouble: Option<(DirectoryError, Instant)> = None;
        loop {
            let entry = describe();
            let beat = self.beat(&membership, &mut lease, written.as_ref(), &entry).await;
            self.namesake.send_replace(beat.as_ref().ok().cloned().flatten());
            match beat {
                Ok(Some(other)) => {
                    // This very machine, with its data lost, has another number and waits for its former lease to end.
                    if namesake_since.get_or_insert_with(Instant::now).elapsed() > 2 * self.time {
                        if let Some(lease) = lease {
                            let _ = self.directory.end(lease.id).await;
                        }
                        return format!(
                            "another node is called {}: its daemon is at {}; give this one another `name`, or stop that one",
                            other.name, other.address
                        );
                    }
                }
                Ok(None) => {
                    (written, namesake_since) = (Some(entry), None);
                    if trouble.take().is_some() {
                        tracing::info!("the node's lease is kept alive again");
                    }
                }
                Err(DirectoryError::LeaseOver(_)) => {
                    tracing::error!(
                        "the node's lease was over: it counts as dead, its applications may have been taken over; \
                         it joins again"
                    );
                    (lease, written) = (None, None);
                    self.current.send_replace(None);
                    self.standing.send_replace(Standing::default());
                    continue;
                }
                Err(error) => {
                    // Nobody knows whether it stood there all the time.
                    namesake_since = None;
                    self.standing.send_modify(|standing| standing.trouble = Some(error.to_string()));
                    let is_told = |(told, at): &(DirectoryError, Instant)| *told == error && at.elapsed() < REMIND;
                    if !trouble.as_ref().is_some_and(is_told) {
                        tracing::warn!("keeping the node's lease alive: {error}; trying again");
                        trouble = Some((error, Instant::now()));
                    }
                }
            }
            let time = lease.map_or(self.time, |lease| lease.time);
            let pause = tokio::time::sleep(if trouble.is_some() { time / 10 } else { time / 4 });
            tokio::select! {
                () = pause => {}
                () = self.changed.notified(), if trouble.is_none() => {}
            }
        }
    }

    /// The lease of the daemon's former life, unless it is over. A directory that does not answer now may have kept it.
    async fn former(&self) -> Option<Granted> {
        let lease = self.written().await?;
        match self.directory.keep_alive(lease.id).await {
            Ok(()) if lease.time == self.time => {
                tracing::info!("started again within the node's lease: nothing was given up meanwhile");
            }
            Ok(()) => tracing::warn!(
                "started again within the node's lease, which keeps its {} s: `node_lease` is followed by the next one, after the daemon was \
                 stopped for longer",
                lease.time.as_secs_f64()
            ),
            Err(DirectoryError::LeaseOver(_)) => return None,
            Err(error) => tracing::warn!("whether the node's lease stands is not known yet: {error}"),
        }
        Some(lease)
    }

    /// Keeps the lease of the daemon's former life alive until `work` is done.
    pub async fn meanwhile<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            if let Some(lease) = self.written().await {
                // Whether it stands is asked when the work is done.
                let _ = self.directory.keep_alive(lease.id).await;
            }
            if let Ok(done) = tokio::time::timeout(self.time / 3, &mut work).await {
                return done;
            }
        }
    }

    /// The lease of the daemon's former life: its number, and its milliseconds, which an older daemon has not written.
    async fn written(&self) -> Option<Granted> {
        let text = tokio::fs::read_to_string(&self.file).await.ok()?;
        let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok());
        let id = LeaseId(numbers.next()?);
        Some(Granted { id, time: numbers.next().map_or(self.time, Duration::from_millis) })
    }

    /// Notes that the lease is good: the directory has answered what was asked at `asked`.
    fn confirmed(&self, lease: Granted, asked: Instant) {
        self.standing.send_replace(Standing { until: Some(asked + lease.time), time: lease.time, trouble: None });
    }

    async fn beat(
        &self,
        membership: &Membership,
        lease: &mut Option<Granted>,
        written: Option<&NodeEntry>,
        entry: &NodeEntry,
    ) -> Result<Option<NodeEntry>, DirectoryError> {
        let asked = Instant::now();
        let granted = match *lease {
            Some(granted) => {
                self.directory.keep_alive(granted.id).await?;
                granted
            }
            None => {
                membership.confirm(&*self.directory).await?;
                let granted = Granted { id: self.directory.grant(self.time).await?, time: self.time };
                let text = format!("{} {}", granted.id.0, granted.time.as_millis());
                if let Err(error) = tokio::fs::write(&self.file, text).await {
                    tracing::warn!("{}: {error}; a restart will look like a death", self.file.display());
                }
                granted
            }
        };
        *lease = Some(granted);
        self.confirmed(granted, asked);
        let held = granted.id;
        if written.is_none()
            && let Some(other) = self.take_name(held, entry).await?
        {
            return Ok(Some(other));
        }
        if written != Some(entry) {
            // The key has one writer: this.
            let key = node_key(entry.node);
            self.put(&key, self.directory.read(&key).await?, held, entry).await?;
        }
        if *self.current.borrow() != Some(held) {
            self.current.send_replace(Some(held));
        }
        Ok(None)
    }

    /// Takes the node's name, unless another node has it: that is returned. What this node was called in a former life goes then: the
    /// lease that it goes on with would keep that name for ever.
    async fn take_name(&self, lease: LeaseId, entry: &NodeEntry) -> Result<Option<NodeEntry>, DirectoryError> {
        let own = name_key(&entry.name);
        let names = self.directory.list(NAMES).await?.entries;
        let (found, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|found| found.key == own);
        if let Some(other) = self.put(&own, found.into_iter().next(), lease, entry).await? {
            return Ok(Some(other));
        }
        for former in others {
            if parse::<NodeEntry>(&former).is_ok_and(|named| named.node == entry.node) {
                // In a conflict it is another's by now.
                self.directory.compare_swap(&former.key, Some(former.revision), None).await?;
            }
        }
        Ok(None)
    }

    /// Writes the entry under a key where `found` stands, as far as is known, unless that is another node's: it is returned.
    async fn put(
        &self,
        key: &str,
        mut found: Option<Entry>,
        lease: LeaseId,
        entry: &NodeEntry,
    ) -> Result<Option<NodeEntry>, DirectoryError> {
        let bytes = serde_json::to_vec(entry).map_err(|error| DirectoryError::Refused(error.to_string()))?;
        loop {
            let other = found.as_ref().and_then(|found| parse::<NodeEntry>(found).ok());
            if let Some(other) = other.filter(|other| other.node != entry.node) {
                return Ok(Some(other));
            }
            let value = Value { bytes: bytes.clone(), lease: Some(lease) };
            let expected = found.map(|found| found.revision);
            match self.directory.compare_swap(key, expected, Some(value)).await? {
                Swapped::Made(_) => return Ok(None),
                // What an earlier lease left goes at this moment.
                Swapped::Conflict(now) => found = now,
            }
        }
    }
}
