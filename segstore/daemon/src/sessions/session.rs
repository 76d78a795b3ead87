//! One session: a process, or several that share it, with what it holds.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use segstore::control::frame::ToClient;
use segstore::control::message::{Demand, Fault, FaultKind, Report};
use segstore_core::layout::Ownership;
use tokio::sync::{mpsc, oneshot};

use super::credentials::Credentials;
use crate::node::Came;

/// Where a connection's frames go out.
pub(super) type Outgoing = mpsc::Sender<ToClient>;

/// A session.
pub struct Session {
    /// What joins it: a secret.
    pub token: String,
    /// What it is called.
    pub number: u64,
    /// What its first process says that it is.
    pub program: String,
    /// Its first process.
    pub credentials: Credentials,
    /// Whoever takes a name for it, or frees one, does so alone: what it notes and what the directory says go together.
    pub(super) names: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connections: HashMap<u64, Outgoing>,
    last: u64,
    /// The names, each with the ownership that was claimed under it.
    holding: BTreeMap<String, Option<Ownership>>,
    /// How names came that others held, and that were not claimed since.
    taken: HashMap<String, Came>,
    pinned: Vec<Pinned>,
    demands: HashMap<u64, Asked>,
    is_over: bool,
}

/// A slot that an owner holds for this session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pinned {
    /// The segment.
    pub(super) name: String,
    /// The hold.
    pub(super) number: u64,
}

/// What a session leaves behind.
pub(super) struct Left {
    /// The names, each with the ownership that was claimed under it.
    pub(super) names: BTreeMap<String, Option<Ownership>>,
    pub(super) pinned: Vec<Pinned>,
}

/// A demand that was sent to every connection: the first that owns the segment answers.
struct Asked {
    waiting: usize,
    answer: Option<oneshot::Sender<Result<Report, Fault>>>,
}

impl Session {
    pub(super) fn new(token: String, number: u64, program: String, credentials: Credentials) -> Arc<Self> {
        Arc::new(Self {
            token,
            number,
            program,
            credentials,
            names: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A further connection; `None` when the session is over.
    pub(super) fn join(&self, outgoing: Outgoing) -> Option<u64> {
        let mut state = self.lock();
        if state.is_over {
            return None;
        }
        state.last += 1;
        let connection = state.last;
        state.connections.insert(connection, outgoing);
        Some(connection)
    }

    /// A connection less. Whether it was the last.
    pub(super) fn leave(&self, connection: u64) -> bool {
        let mut state = self.lock();
        state.connections.remove(&connection);
        state.connections.is_empty()
    }

    /// Ends it, unless somebody is connected: what it held.
    pub(super) fn end(&self) -> Option<Left> {
        let mut state = self.lock();
        if !state.connections.is_empty() || state.is_over {
            return None;
        }
        state.is_over = true;
        Some(Left { names: std::mem::take(&mut state.holding), pinned: std::mem::take(&mut state.pinned) })
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    // ---- names ----

    pub(super) fn hold(&self, name: &str) {
        self.lock().holding.entry(name.to_owned()).or_default();
    }

    /// Notes the ownership that the segment's record names since this session claimed it.
    pub(super) fn claimed(&self, name: &str, ownership: Ownership) {
        let mut state = self.lock();
        if let Some(claimed) = state.holding.get_mut(name) {
            *claimed = Some(ownership);
        }
        state.taken.remove(name);
    }

    /// Notes how a name came that another session held.
    pub(super) fn took(&self, name: &str, how: Came) {
        self.lock().taken.insert(name.to_owned(), how);
    }

    /// How the name came if another session held it, until the segment is claimed under it.
    pub(super) fn taken(&self, name: &str) -> Option<Came> {
        self.lock().taken.get(name).cloned()
    }

    pub(super) fn let_go(&self, name: &str) -> bool {
        let mut state = self.lock();
        state.taken.remove(name);
        state.holding.remove(name).is_some()
    }

    /// Whether it holds the name.
    #[must_use]
    pub fn holds(&self, name: &str) -> bool {
        self.lock().holding.contains_key(name)
    }

    /// What it holds.
    #[must_use]
    pub fn holding(&self) -> Vec<String> {
        self.lock().holding.keys().cloned().collect()
    }

    /// What it holds, each with the ownership that was claimed under it.
    pub(super) fn claims(&self) -> BTreeMap<String, Option<Ownership>> {
        self.lock().holding.clone()
    }

    // ---- slots ----

    pub(super) fn pin(&self, slot: Pinned) {
        self.lock().pinned.push(slot);
    }

    pub(super) fn unpin(&self, slot: &Pinned) {
        self.lock().pinned.retain(|pinned| pinned != slot);
    }

    // ---- demands ----

    /// Demands something of whichever of its connections owns the segment.
    pub(super) async fn demand(&self, demand: Demand) -> Result<Report, Fault> {
        let (answer, receiver) = oneshot::channel();
        {
            let mut state = self.lock();
            state.last += 1;
            let number = state.last;
            let sent = state
                .connections
                .values()
                .filter(|outgoing| outgoing.try_send(ToClient::Demand(number, demand.clone())).is_ok());
            let waiting = sent.count();
            if waiting == 0 {
                return Err(Fault::new(
                    FaultKind::Unreachable,
                    "the owner's process is not connected, or reads nothing",
                ));
            }
            state.demands.insert(number, Asked { waiting, answer: Some(answer) });
        }
        let gone = || Fault::new(FaultKind::Unreachable, "the owner's process has gone");
        receiver.await.unwrap_or_else(|_| Err(gone()))
    }

    /// A connection answers.
    pub(super) fn report(&self, number: u64, report: Result<Report, Fault>) {
        let mut state = self.lock();
        let Some(asked) = state.demands.get_mut(&number) else { return };
        asked.waiting = asked.waiting.saturating_sub(1);
        let is_last = asked.waiting == 0;
        if (report.is_ok() || is_last)
            && let Some(answer) = asked.answer.take()
        {
            let _ = answer.send(report); // Who asked may have given up.
        }
        if is_last {
            state.demands.remove(&number);
        }
    }
}
