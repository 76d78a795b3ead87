//! The thread that owns the file.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tokio::sync::{mpsc, oneshot};

use super::leases::Leases;
use super::store::{Batch, Store};
use crate::directory::{Change, DirectoryError, Entry, LeaseId, Listing, Revision, Swapped, Value, Watch};

/// How many changes are kept for watches that begin in the past.
const KEPT: usize = 4096;
/// How far a watcher may lag behind before it is told to list again.
const LAG: usize = 1024;
/// The most requests that share one transaction.
const TOGETHER: usize = 256;
/// Between attempts to write to a disk that fails.
const RETRY: Duration = Duration::from_millis(200);
/// The longest that it waits for a request while there are leases: a pause of the process is noticed by what it waited too long.
const TURN: Duration = Duration::from_millis(250);
/// Between two looks at what it is asked there is no more than this, unless it was paused.
const PAUSED: Duration = Duration::from_millis(750);

type Answer<T> = oneshot::Sender<Result<T, DirectoryError>>;

/// What the worker is asked.
pub(super) enum Request {
    Read { key: String, answer: Answer<Option<Entry>> },
    List { prefix: String, answer: Answer<Listing> },
    Swap { key: String, expected: Option<Revision>, new: Option<Value>, answer: Answer<Swapped> },
    Watch { prefix: String, after: Revision, answer: Answer<Watch> },
    Grant { time: Duration, answer: Answer<LeaseId> },
    KeepAlive { lease: LeaseId, answer: Answer<()> },
    End { lease: LeaseId, answer: Answer<()> },
}

/// An answer that waits for its transaction: it is given what came of the commit.
type Pending = Box<dyn FnOnce(Result<(), DirectoryError>) + Send>;

struct Watcher {
    prefix: String,
    changes: mpsc::Sender<Change>,
}

/// The thread's state.
pub(super) struct Worker {
    store: Store,
    requests: Receiver<Request>,
    leases: Leases,
    watchers: Vec<Watcher>,
    /// The last changes, oldest first.
    kept: VecDeque<Change>,
    /// Everything after this revision is in `kept`.
    kept_after: Revision,
}

impl Worker {
    /// Leases begin anew: who held one gets its whole time to be heard from.
    pub(super) fn new(store: Store, requests: Receiver<Request>) -> Result<Self, DirectoryError> {
        let (leases, kept) = (Leases::default(), VecDeque::new());
        let mut worker = Self { store, requests, leases, watchers: Vec::new(), kept, kept_after: Revision(0) };
        worker.load()?;
        Ok(worker)
    }

    /// Serves until nobody can ask any more.
    pub(super) fn run(mut self) {
        let mut heard = Instant::now();
        loop {
            let wait = self.leases.next_end().map(|end| end.saturating_duration_since(heard).min(TURN));
            let first = match wait {
                Some(wait) => self.requests.recv_timeout(wait),
                None => self.requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let before = std::mem::replace(&mut heard, Instant::now());
            if wait.is_some() && heard - before > PAUSED {
                tracing::warn!(
                    "paused for {:.1} s: every lease gets its whole time again",
                    (heard - before).as_secs_f64()
                );
                self.leases.begin_again(heard);
            }
            match first {
                Ok(request) => self.serve(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.end_leases(heard);
        }
    }

    /// Serves `first` and what has queued up behind it; neighbours that change something share a transaction.
    fn serve(&mut self, first: Request) {
        let requests = self.requests.clone();
        let mut queued = std::iter::once(first).chain(requests.try_iter().take(TOGETHER - 1)).peekable();
        while let Some(request) = queued.next() {
            if changes_something(&request) {
                let mut group = vec![request];
                while let Some(next) = queued.next_if(changes_something) {
                    group.push(next);
                }
                self.change(group);
            } else {
                self.answer(request);
            }
        }
    }

    fn change(&mut self, group: Vec<Request>) {
        if !self.store.is_open() {
            self.reopen();
        }
        let mut batch = match self.store.batch() {
            Ok(batch) => batch,
            Err(error) => {
                self.reopen();
                return group.into_iter().for_each(|request| refuse(request, &error));
            }
        };
        let pending: Vec<_> = group.into_iter().map(|request| self.apply(&mut batch, request)).collect();
        let told = self.commit(batch);
        pending.into_iter().for_each(|answer| answer(told.clone()));
    }

    /// After an error it is not known whether the changes were made: what stands in the file then is what is true.
    fn commit(&mut self, batch: Batch) -> Result<(), DirectoryError> {
        let before = batch.before();
        match batch.commit() {
            Ok(changes) => {
                self.publish(changes);
                Ok(())
            }
            Err(error) => {
                self.reopen();
                Err(match error {
                    DirectoryError::Full(_) if self.store.revision() == Ok(before) => error,
                    DirectoryError::Full(why) | DirectoryError::Refused(why) => DirectoryError::NoAnswer(why),
                    error => error,
                })
            }
        }
    }

    /// Starts again from the file, as after a restart: watchers must list again, and leases get their whole time.
    fn reopen(&mut self) {
        let opened = self.store.reopen().and_then(|()| self.load());
        if let Err(error) = opened {
            tracing::error!(%error, "the directory's file cannot be used; trying again with the next change");
        }
    }

    fn load(&mut self) -> Result<(), DirectoryError> {
        let now = Instant::now();
        self.leases = Leases::default();
        for (id, time) in self.store.leases()? {
            self.leases.insert(id, time, now);
        }
        self.watchers.clear();
        self.kept.clear();
        self.kept_after = self.store.revision()?;
        Ok(())
    }

    /// Applies a change to the batch; gives what answers it once the batch is durable.
    fn apply(&mut self, batch: &mut Batch, request: Request) -> Pending {
        match request {
            Request::Swap { key, expected, new, answer } => {
                let swapped = swap(&self.leases, batch, &key, expected, new);
                Box::new(move |told| drop(answer.send(told.and(swapped))))
            }
            Request::Grant { time, answer } => {
                let granted = batch.grant(time);
                if let Ok(id) = granted {
                    self.leases.insert(id, time, Instant::now());
                }
                Box::new(move |told| drop(answer.send(told.and(granted))))
            }
            Request::End { lease, answer } => {
                self.leases.remove(lease);
                // One that is over may still have what could not be deleted with it.
                let ended = batch.end(lease);
                Box::new(move |told| drop(answer.send(told.and(ended))))
            }
            other => {
                self.answer(other);
                Box::new(drop)
            }
        }
    }

    /// Answers what changes nothing.
    fn answer(&mut self, request: Request) {
        match request {
            Request::Read { key, answer } => drop(answer.send(self.store.read(&key))),
            Request::List { prefix, answer } => {
                let listing = self.store.list(&prefix).map(|(entries, revision)| Listing { entries, revision });
                drop(answer.send(listing));
            }
            Request::Watch { prefix, after, answer } => drop(answer.send(self.watch(prefix, after))),
            Request::KeepAlive { lease, answer } => {
                let kept = self.leases.keep_alive(lease, Instant::now());
                drop(answer.send(kept.then_some(()).ok_or(DirectoryError::LeaseOver(lease))));
            }
            other => refuse(other, &DirectoryError::NoAnswer("it was not applied".to_owned())),
        }
    }

    fn watch(&mut self, prefix: String, after: Revision) -> Result<Watch, DirectoryError> {
        if after < self.kept_after {
            return Err(DirectoryError::Forgotten(after));
        }
        // Whoever gave up waiting for a change that does not come is not found out by a change.
        self.watchers.retain(|watcher| !watcher.changes.is_closed());
        let (changes, watch) = mpsc::channel(KEPT + LAG);
        let missed =
            self.kept.iter().filter(|change| revision_of(change) > after && key_of(change).starts_with(&prefix));
        missed.for_each(|change| drop(changes.try_send(change.clone())));
        self.watchers.push(Watcher { prefix, changes });
        Ok(watch)
    }

    fn publish(&mut self, changes: Vec<Change>) {
        for change in changes {
            // A watcher that is gone, or too far behind, is let go: its end of the channel tells it.
            self.watchers.retain(|watcher| {
                !key_of(&change).starts_with(&watcher.prefix) || watcher.changes.try_send(change.clone()).is_ok()
            });
            self.kept.push_back(change);
        }
        while self.kept.len() > KEPT {
            self.kept_after = self.kept.pop_front().map_or(self.kept_after, |change| revision_of(&change));
        }
    }

    /// Ends leases whose time was up at `heard`: who asked for them until then has been served.
    fn end_leases(&mut self, heard: Instant) {
        let over = self.leases.over(heard);
        if over.is_empty() {
            return;
        }
        let ended = self.store.batch().and_then(|mut batch| {
            over.iter().try_for_each(|lease| batch.end(*lease))?;
            self.commit(batch)
        });
        match ended {
            Ok(()) => self.leases.remove_all(&over),
            // The lease is still there, and still over: it is tried again.
            Err(error) => {
                tracing::error!(%error, "leases that are over could not be ended");
                std::thread::sleep(RETRY);
            }
        }
    }
}

fn swap(
    leases: &Leases,
    batch: &mut Batch,
    key: &str,
    expected: Option<Revision>,
    new: Option<Value>,
) -> Result<Swapped, DirectoryError> {
    if let Some(lease) = new.as_ref().and_then(|value| value.lease).filter(|lease| !leases.contains(*lease)) {
        return Err(DirectoryError::LeaseOver(lease));
    }
    let current = batch.read(key)?;
    if current.as_ref().map(|entry| entry.revision) != expected {
        return Ok(Swapped::Conflict(current));
    }
    batch.put(key, new).map(Swapped::Made)
}

fn changes_something(request: &Request) -> bool {
    matches!(request, Request::Swap { .. } | Request::Grant { .. } | Request::End { .. })
}

fn refuse(request: Request, error: &DirectoryError) {
    let error = error.clone();
    match request {
        Request::Read { answer, .. } => drop(answer.send(Err(error))),
        Request::List { answer, .. } => drop(answer.send(Err(error))),
        Request::Swap { answer, .. } => drop(answer.send(Err(error))),
        Request::Watch { answer, .. } => drop(answer.send(Err(error))),
        Request::Grant { answer, .. } => drop(answer.send(Err(error))),
        Request::KeepAlive { answer, .. } | Request::End { answer, .. } => drop(answer.send(Err(error))),
    }
}

fn key_of(change: &Change) -> &str {
    match change {
        Change::Put(entry) => &entry.key,
        Change::Deleted { key, .. } => key,
    }
}

fn revision_of(change: &Change) -> Revision {
    match change {
        Change::Put(entry) => entry.revision,
        Change::Deleted { revision, .. } => *revision,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_that_are_given_up_cost_nothing() {
        let place = tempfile::TempDir::new().expect("a directory");
        let store = Store::open(&place.path().join("directory.redb")).expect("a store");
        let mut worker = Worker::new(store, crossbeam_channel::unbounded().1).expect("a worker");
        let kept = worker.watch("a/".into(), Revision(0)).expect("a watch");
        for _ in 0..100 {
            drop(worker.watch("b/".into(), Revision(0)).expect("a watch"));
        }
        assert!(worker.watchers.len() <= 2 && !kept.is_closed(), "{} watchers", worker.watchers.len());
    }
}
