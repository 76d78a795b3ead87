//! One session: a process, or several that share it, with what it holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use segstore::control::frame::ToClient;
use segstore::control::message::{Demand, Fault, FaultKind, Report};
use segstore_core::layout::Ownership;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::credentials::{Credentials, Process};
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
    connections: HashMap<u64, (Process, Outgoing)>,
    last: u64,
    /// Whoever has connected and is not known to have ended.
    processes: BTreeSet<Process>,
    /// The names.
    holding: BTreeMap<String, Held>,
    /// What is being acquired for a process.
    attempts: HashMap<u64, (String, Process)>,
    /// How names came that others held, and that were not claimed since.
    taken: HashMap<String, Came>,
    pinned: Vec<Pinned>,
    demands: HashMap<u64, Asked>,
    is_over: bool,
}

/// For whom a name is held: one process, or the session as a whole.
pub(super) type Who = Option<Process>;

/// A name that is held.
#[derive(Clone, Default, Debug)]
pub(super) struct Held {
    /// The ownership that was claimed under it.
    claimed: Option<Ownership>,
    wants: Wants,
}

impl Held {
    /// One less wants it. Whether that one did.
    fn remove(&mut self, who: Who) -> bool {
        let did = self.wants.remove(who);
        if did && who.is_some() && self.wants.is_only_shared() {
            // Whatever was claimed under it, nobody has it open any more.
            self.claimed = None;
        }
        did
    }

    /// Whether the session as a whole holds the name, and no process has the segment open under it, or is about to.
    fn is_idle(&self) -> bool {
        self.wants.is_only_shared() && self.claimed.is_none()
    }
}

/// Who wants a name.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(super) struct Wants {
    /// The session as a whole.
    shared: bool,
    /// Processes of its.
    by: BTreeSet<Process>,
}

impl Wants {
    /// As a daemon wrote it down that did not tell processes apart.
    pub(super) fn of_the_session() -> Self {
        Self { shared: true, by: BTreeSet::new() }
    }

    /// Whether that is new.
    fn add(&mut self, who: Who) -> bool {
        who.map_or_else(|| !std::mem::replace(&mut self.shared, true), |process| self.by.insert(process))
    }

    /// Whether that was there.
    fn remove(&mut self, who: Who) -> bool {
        who.map_or_else(|| std::mem::replace(&mut self.shared, false), |process| self.by.remove(&process))
    }

    fn is_empty(&self) -> bool {
        !self.shared && self.by.is_empty()
    }

    fn is_only_shared(&self) -> bool {
        self.shared && self.by.is_empty()
    }
}

/// An acquisition that is under way, for as long as anything is done for it.
pub(super) struct Attempt {
    session: Arc<Session>,
    number: u64,
    /// For whom.
    pub(super) who: Who,
}

impl Attempt {
    /// Whether the process has neither let the name go since, nor ended.
    pub(super) fn is_wanted(&self) -> bool {
        self.who.is_none() || self.session.lock().attempts.contains_key(&self.number)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.session.lock().attempts.remove(&self.number);
    }
}

/// What came of letting a name go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LetGo {
    /// It was not held for that, nor about to be.
    Nothing,
    /// The session holds it for something else.
    Shared,
    /// The session holds it no longer.
    Over,
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
    /// The connections that have not answered.
    waiting: Vec<u64>,
    answer: Option<oneshot::Sender<Result<Report, Fault>>>,
}

impl State {
    fn unhold(&mut self, name: &str, who: Who) -> LetGo {
        let Some(held) = self.holding.get_mut(name) else { return LetGo::Nothing };
        let was_held = held.remove(who);
        match (held.wants.is_empty(), was_held) {
            (true, _) => {
                self.holding.remove(name);
                self.taken.remove(name);
                LetGo::Over
            }
            (false, true) => LetGo::Shared,
            (false, false) => LetGo::Nothing,
        }
    }
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
    pub(super) fn join(&self, process: Process, outgoing: Outgoing) -> Option<u64> {
        let mut state = self.lock();
        if state.is_over {
            return None;
        }
        state.last += 1;
        let connection = state.last;
        state.processes.insert(process);
        state.connections.insert(connection, (process, outgoing));
        Some(connection)
    }

    /// A connection less. Whether it was the last.
    pub(super) fn leave(&self, connection: u64) -> bool {
        let mut state = self.lock();
        state.connections.remove(&connection);
        let gone = Fault::new(FaultKind::NotFound, "the owner's process has gone");
        state.demands.retain(|_, asked| asked.goes_on(connection, Err(gone.clone())));
        state.connections.is_empty()
    }

    /// Ends it, unless somebody is connected: what it held.
    pub(super) fn end(&self) -> Option<Left> {
        let mut state = self.lock();
        if !state.connections.is_empty() || state.is_over {
            return None;
        }
        state.is_over = true;
        let names = std::mem::take(&mut state.holding).into_iter().map(|(name, held)| (name, held.claimed)).collect();
        Some(Left { names, pinned: std::mem::take(&mut state.pinned) })
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    // ---- processes ----

    /// Whether a process has a connection.
    pub(super) fn is_connected(&self, process: Process) -> bool {
        self.lock().connections.values().any(|(connected, _)| *connected == process)
    }

    /// Whether a process has connected, and is not known to have ended.
    pub(super) fn knows(&self, process: Process) -> bool {
        self.lock().processes.contains(&process)
    }

    /// Whoever has connected, and is not known to have ended.
    pub(super) fn processes(&self) -> BTreeSet<Process> {
        self.lock().processes.clone()
    }

    /// Whether a name is held for a process, or about to be.
    pub(super) fn holds_for(&self, process: Process) -> bool {
        let state = self.lock();
        let is_held = state.holding.values().any(|held| held.wants.by.contains(&process));
        is_held || state.attempts.values().any(|(_, asker)| *asker == process)
    }

    /// These have connected in a former life of this daemon.
    pub(super) fn expect(&self, processes: impl IntoIterator<Item = Process>) {
        self.lock().processes.extend(processes);
    }

    /// A process has ended: the names that were held for nothing but that, each with the ownership that was claimed under it.
    pub(super) fn gone(&self, process: Process) -> BTreeMap<String, Option<Ownership>> {
        let mut state = self.lock();
        state.processes.remove(&process);
        state.attempts.retain(|_, (_, asker)| *asker != process);
        let is_left = |_: &String, held: &mut Held| held.remove(Some(process)) && held.wants.is_empty();
        let left: BTreeMap<_, _> = state.holding.extract_if(.., is_left).collect();
        left.keys().for_each(|name| drop(state.taken.remove(name)));
        left.into_iter().map(|(name, held)| (name, held.claimed)).collect()
    }

    // ---- names ----

    /// Begins to acquire a name for a process, or for the session as a whole, which nothing calls off.
    pub(super) fn begin(self: &Arc<Self>, name: &str, who: Who) -> Attempt {
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        state.attempts.extend(who.map(|process| (number, (name.to_owned(), process))));
        Attempt { session: self.clone(), number, who }
    }

    /// Whether that is new.
    pub(super) fn hold(&self, name: &str, who: Who) -> bool {
        self.lock().holding.entry(name.to_owned()).or_default().wants.add(who)
    }

    /// It was held in a former life of this daemon.
    pub(super) fn hold_still(&self, name: &str, wants: Wants, claimed: Option<Ownership>) {
        self.lock().holding.insert(name.to_owned(), Held { claimed, wants });
    }

    /// Notes the ownership that the segment's record names since this session claimed it.
    pub(super) fn claimed(&self, name: &str, ownership: Ownership) {
        let mut state = self.lock();
        if let Some(held) = state.holding.get_mut(name) {
            held.claimed = Some(ownership);
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

    /// Holds a name no longer for a process, or for itself; nor is it acquired for that process any more.
    pub(super) fn let_go(&self, name: &str, who: Who) -> LetGo {
        let mut state = self.lock();
        let attempts = state.attempts.len();
        state.attempts.retain(|_, (acquired, process)| acquired != name || Some(*process) != who);
        let was_begun = state.attempts.len() < attempts;
        match state.unhold(name, who) {
            LetGo::Nothing if was_begun && state.holding.contains_key(name) => LetGo::Shared,
            LetGo::Nothing if was_begun => LetGo::Over,
            let_go => let_go,
        }
    }

    /// Undoes that it was to be held for a process, or for itself.
    pub(super) fn unhold(&self, name: &str, who: Who) {
        self.lock().unhold(name, who);
    }

    /// The name is another's.
    pub(super) fn lose(&self, name: &str) {
        let mut state = self.lock();
        state.taken.remove(name);
        state.holding.remove(name);
    }

    /// Whether it holds the name.
    #[must_use]
    pub fn holds(&self, name: &str) -> bool {
        self.lock().holding.contains_key(name)
    }

    /// Whether it holds the name, and no process has the segment open under it, or is about to.
    pub(super) fn is_idle(&self, name: &str) -> bool {
        self.lock().holding.get(name).is_some_and(Held::is_idle)
    }

    /// What it holds.
    #[must_use]
    pub fn holding(&self) -> Vec<String> {
        self.lock().holding.keys().cloned().collect()
    }

    /// What it holds, each with the ownership that was claimed under it.
    pub(super) fn claims(&self) -> BTreeMap<String, Option<Ownership>> {
        self.lock().holding.iter().map(|(name, held)| (name.clone(), held.claimed)).collect()
    }

    /// Who wants what it holds.
    pub(super) fn wants(&self) -> BTreeMap<String, Wants> {
        self.lock().holding.iter().map(|(name, held)| (name.clone(), held.wants.clone())).collect()
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
            let send = |outgoing: &Outgoing| outgoing.try_send(ToClient::Demand(number, demand.clone())).is_ok();
            let sent = state.connections.iter().filter(|(_, (_, outgoing))| send(outgoing));
            let waiting: Vec<_> = sent.map(|(connection, _)| *connection).collect();
            if waiting.is_empty() {
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
    pub(super) fn report(&self, connection: u64, number: u64, report: Result<Report, Fault>) {
        let mut state = self.lock();
        let Some(asked) = state.demands.get_mut(&number) else { return };
        if !asked.goes_on(connection, report) {
            state.demands.remove(&number);
        }
    }
}

impl Asked {
    /// What one connection says of it. Whether others are still to answer.
    fn goes_on(&mut self, connection: u64, report: Result<Report, Fault>) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| *waiting != connection);
        let is_last = self.waiting.is_empty();
        if self.waiting.len() < before
            && (report.is_ok() || is_last)
            && let Some(answer) = self.answer.take()
        {
            let _ = answer.send(report); // Who asked may have given up.
        }
        !is_last
    }
}
