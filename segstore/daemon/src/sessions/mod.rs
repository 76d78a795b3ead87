//! The clients of this node: their socket, their sessions, what they ask.

mod connection;
pub mod credentials;
mod kept;
mod life;
mod listener;
mod moving;
mod requests;
mod seat;
mod session;
mod standby;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use segstore::control::message::{Demand, Fault, FaultKind, Report};
use segstore_core::id::NodeId;
use segstore_core::layout::Ownership;
use tokio::task::JoinSet;

use crate::cluster::View;
use crate::identity::{random, random_number};
use crate::node::Node;
use credentials::{Credentials, Process};
use life::Life;
pub use listener::{bind, serve};
use moving::Moving;
pub(crate) use requests::lists::all as all_segments;
use seat::Seats;
use session::Left;
pub use session::Session;
use standby::Standbys;

/// How long a client may take to answer a demand.
const DEMAND: Duration = Duration::from_secs(2);
/// How long somebody may take to open a segment.
const OPENING: Duration = Duration::from_secs(600);
/// How often to look whether a process has connected again.
const AGAIN: Duration = Duration::from_secs(1);
/// How many names of a session that has ended are freed at a time.
const AT_A_TIME: usize = 32;
/// How often to look for names that no session holds: an older copy of the directory brings them back.
const STRAYS: Duration = Duration::from_secs(60);

/// Every session of this node. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
}

struct Inner {
    by_token: Mutex<HashMap<String, Arc<Session>>>,
    file: PathBuf,
    /// Whoever writes the file does so alone.
    writing: Mutex<()>,
    seats: Arc<Seats>,
    standbys: Standbys,
    moving: Moving,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.by_token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    /// Those that a former life of this daemon kept in `file`. They wait for their processes to come back.
    #[must_use]
    pub fn open(file: PathBuf) -> Self {
        let former = kept::read(&file).into_iter().map(|kept| (kept.token.clone(), kept.session()));
        let by_token = Mutex::new(former.collect());
        let (writing, seats, standbys, moving) = Default::default();
        Self { inner: Arc::new(Inner { by_token, file, writing, seats, standbys, moving }) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.inner.lock()
    }

    /// A new session, or the one that `token` joins.
    fn get(&self, token: Option<&str>, program: &str, who: Credentials) -> Result<Arc<Session>, Fault> {
        let mut sessions = self.lock();
        if let Some(token) = token {
            if token.is_empty() {
                return Err(Fault::new(FaultKind::Invalid, "no session is named: an empty name would be everybody's"));
            }
            let found = sessions.get(token).cloned();
            return match found {
                // One that has become another user since belongs to it still.
                Some(session) if session.credentials.uid == who.uid || who.uid == 0 || session.knows(who.process()) => {
                    Ok(session)
                }
                Some(_) => Err(Fault::new(FaultKind::Denied, "that session belongs to another user")),
                // It ended while its daemon was away. What it held is lost; it may hold other things.
                None => Ok(insert(&mut sessions, token.to_owned(), program, who)?),
            };
        }
        let token = format!("{:032x}", random()?);
        insert(&mut sessions, token, program, who)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// What is held here, and by which session.
    #[must_use]
    pub fn held(&self) -> Vec<(String, u64)> {
        let sessions = self.lock();
        sessions.values().flat_map(|session| session.holding().into_iter().map(|name| (name, session.number))).collect()
    }

    fn numbered(&self, number: u64) -> Option<Arc<Session>> {
        self.lock().values().find(|session| session.number == number).cloned()
    }

    /// Whether the session of that number holds a name, and a process of its has the segment open, or is about to, as far as this node knows.
    #[must_use]
    pub(crate) fn has_open(&self, number: u64, name: &str) -> bool {
        self.numbered(number).is_some_and(|session| session.holds(name) && !session.is_idle(name))
    }

    /// Whether it holds the name, and none has.
    #[must_use]
    pub(crate) fn is_idle(&self, number: u64, name: &str) -> bool {
        self.numbered(number).is_some_and(|session| session.is_idle(name))
    }

    /// Demands something of the session of that number.
    pub(crate) async fn demand(&self, number: u64, demand: Demand) -> Result<Report, Fault> {
        // Its name is free in a moment.
        let gone = || Fault::new(FaultKind::NotFound, "the owner's session has ended");
        let session = self.numbered(number).ok_or_else(gone)?;
        let answer = tokio::time::timeout(DEMAND, session.demand(demand)).await;
        answer.unwrap_or_else(|_| {
            let pid = session.credentials.pid;
            Err(Fault::new(FaultKind::Unreachable, format!("the owner (process {pid}) does not answer")))
        })
    }

    /// Who stands by here for names that others hold.
    pub(crate) fn standbys(&self) -> &Standbys {
        &self.inner.standbys
    }

    /// Asks a session to let a name go; until the time is over it goes to that node then, and to nobody else. Where a process of the session
    /// owns the segment and hears of moves, it is that one's matter, otherwise that of who holds the name. Whether it has heard of it.
    pub(crate) async fn ask_to_move(
        &self,
        number: u64,
        name: &str,
        (to, to_name): (NodeId, String),
        time: Duration,
    ) -> Result<bool, Fault> {
        // Before it is heard of: it may be let go at once.
        let is_new = self.inner.moving.note(number, name, to, time).map_err(|_| {
            let text =
                "its holder was asked before to let it go, for another node: wait until that is done, or its time over";
            Fault::new(FaultKind::Denied, text)
        })?;
        let left_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let ask = |of_holder| Demand::Move { name: name.to_owned(), to: to_name.clone(), left_ms, of_holder };
        let Err(of_owner) = self.demand(number, ask(false)).await else { return Ok(true) };
        let Err(of_holder) = self.demand(number, ask(true)).await else { return Ok(true) };
        let is_silent = |fault: &Fault| fault.kind == FaultKind::Unreachable;
        if is_new && ![&of_owner, &of_holder].into_iter().any(is_silent) {
            self.inner.moving.forget(number, name);
            return Err(of_holder);
        }
        // It stands still, or has just died, or is about to let go: whatever it is, the wish stands.
        Ok(!is_new)
    }

    /// Writes down which sessions hold something. The runtime's thread does not wait for the disk.
    async fn keep(&self) {
        let inner = self.inner.clone();
        let written = tokio::task::spawn_blocking(move || {
            let _alone = inner.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let sessions: Vec<_> = inner.lock().values().cloned().collect();
            let all = sessions.iter().map(|session| kept::Kept::of(session));
            let holding: Vec<_> = all.filter(|kept| !kept.holding.is_empty()).collect();
            kept::write(&inner.file, &holding);
        });
        if let Err(error) = written.await {
            tracing::error!("writing down which sessions hold something: {error}");
        }
    }

    /// Ends sessions of a former life whose processes do not come back in time; from then on frees what nobody holds, until the
    /// process ends.
    pub async fn expect_former(self, node: Arc<Node>, grace: Duration) {
        let former: Vec<_> = self.lock().values().cloned().collect();
        for at in 0..=10 {
            for session in &former {
                if at == 10 || session.processes().iter().all(Process::is_gone) {
                    self.end(&node, session).await;
                }
                let is_missed = |process: &Process| process.is_gone() || at == 10 && !session.is_connected(*process);
                for process in session.processes().into_iter().filter(is_missed) {
                    self.end_process(&node, session, process).await;
                }
            }
            tokio::time::sleep(grace / 10).await;
        }
        loop {
            let looked = requests::names::free_strays(&node).await;
            if let Err(fault) = &looked {
                tracing::debug!("looking for names that nobody holds: {fault}; trying again");
            }
            tokio::time::sleep(if looked.is_ok() { STRAYS } else { grace }).await;
        }
    }

    /// Writes down again in the directory what is held here, whenever the node has another lease: the entries went with the one before.
    pub async fn hold_again(self, node: Arc<Node>) {
        let mut lease = node.lease.clone();
        loop {
            let current = *lease.borrow_and_update();
            if current.is_some() {
                let sessions: Vec<_> = self.lock().values().cloned().collect();
                for session in sessions {
                    for (name, claimed) in session.claims() {
                        requests::names::hold_again(&node, &session, &name, claimed).await;
                    }
                }
            }
            if lease.changed().await.is_err() {
                return;
            }
        }
    }

    /// Tells who holds segments here, whenever other nodes are to keep nothing than before.
    pub async fn tell_of_unwanted(self, node: Arc<Node>) {
        let mut known = Vec::new();
        loop {
            known = node.view.other(&known, View::unwanted).await;
            for (name, session) in self.held() {
                tokio::spawn(self.clone().tell_of_change(session, name));
            }
        }
    }

    /// Tells a session that a segment is to be kept another way, again for a while until it hears of it: it may be just about to open the
    /// segment, and to have looked before.
    pub(crate) async fn tell_of_change(self, number: u64, name: String) {
        let until = tokio::time::Instant::now() + OPENING;
        let is_held = || self.numbered(number).is_some_and(|session| session.holds(&name));
        while is_held() && tokio::time::Instant::now() < until {
            match self.demand(number, Demand::Changed { name: name.clone() }).await {
                Ok(_) => return,
                Err(fault) if fault.kind == FaultKind::Unsupported => {
                    return tracing::warn!(
                        segment = name,
                        "its owner goes by how it was to be kept when it opened it: {fault}"
                    );
                }
                Err(_) => tokio::time::sleep(DEMAND).await,
            }
        }
    }

    /// Frees what was held for a process that has ended, unless its session wants it otherwise.
    async fn end_process(&self, node: &Arc<Node>, session: &Arc<Session>, process: Process) {
        let names = session.gone(process);
        if !names.is_empty() {
            self.free_all(node, session, names).await;
        }
    }

    /// Waits for the end of a process whose connection has ended, unless it connects again, or the session ends.
    async fn outlive(&self, node: &Arc<Node>, session: &Arc<Session>, process: Process, life: Life) {
        while !session.is_connected(process) && !session.is_over() {
            if !session.holds_for(process) {
                return drop(session.gone(process));
            }
            tokio::select! {
                () = life.ended() => return self.end_process(node, session, process).await,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// Ends a session that nobody is connected to: what it held is free.
    async fn end(&self, node: &Arc<Node>, session: &Arc<Session>) {
        let Some(Left { names, pinned }) = session.end() else { return };
        self.lock().remove(&session.token);
        for slot in pinned {
            // An owner that does not answer lets it go when its time is over.
            tokio::spawn(requests::owners::unpin(node.clone(), slot));
        }
        self.free_all(node, session, names).await;
    }

    async fn free_all(&self, node: &Arc<Node>, session: &Arc<Session>, names: BTreeMap<String, Option<Ownership>>) {
        let (mut names, mut freeing) = (names.into_iter(), JoinSet::new());
        loop {
            for (name, claimed) in names.by_ref().take(AT_A_TIME - freeing.len()) {
                freeing.spawn(free(node.clone(), session.clone(), name, claimed));
            }
            if freeing.join_next().await.is_none() {
                break;
            }
        }
        self.keep().await;
    }
}

/// Frees what a session held that has ended.
async fn free(node: Arc<Node>, session: Arc<Session>, name: String, claimed: Option<Ownership>) {
    tracing::info!(segment = name, process = session.credentials.pid, "whoever held it has ended");
    if let Some(claimed) = claimed {
        // For the events, and for who restores replicas of what nobody owns: where it cannot be written down, it is not.
        let _ = node.note_end(&name, session.number, claimed).await;
    }
    requests::names::free_at_last(&node, session.number, &name).await;
}

fn insert(
    sessions: &mut HashMap<String, Arc<Session>>,
    token: String,
    program: &str,
    who: Credentials,
) -> Result<Arc<Session>, Fault> {
    let number = random_number()?;
    let session = Session::new(token.clone(), number, program.to_owned(), who);
    sessions.insert(token, session.clone());
    Ok(session)
}
