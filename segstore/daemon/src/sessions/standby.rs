//! Who stands by here for names that others hold: where one is handed over, the first takes it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use segstore::control::message::{self, Fault, FaultKind};
use tokio::sync::{mpsc, oneshot};

use crate::directory::Revision;

/// Everybody here who does.
#[derive(Default)]
pub(crate) struct Standbys(Mutex<State>);

#[derive(Default)]
struct State {
    last: u64,
    waiting: HashMap<String, Vec<Waiting>>,
}

struct Waiting {
    number: u64,
    who: message::Standby,
    gifts: mpsc::Sender<Gift>,
}

/// A name whose holder lets it go for whoever takes this.
pub(super) struct Gift {
    /// Of the entry that says who holds it.
    pub(super) revision: Revision,
    /// Who does, for people.
    pub(super) from: String,
    /// What came of taking it.
    pub(super) taken: oneshot::Sender<Result<(), Fault>>,
}

/// Stands by until it is dropped.
pub(super) struct Standby<'s> {
    all: &'s Standbys,
    name: &'s str,
    number: u64,
    gifts: mpsc::Receiver<Gift>,
}

impl Standbys {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more.
    pub(super) fn join<'s>(&'s self, name: &'s str, who: message::Standby) -> Standby<'s> {
        let (sender, gifts) = mpsc::channel(1);
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        state.waiting.entry(name.to_owned()).or_default().push(Waiting { number, who, gifts: sender });
        Standby { all: self, name, number, gifts }
    }

    /// Who stands by for a name, the first to come first.
    pub(crate) fn of(&self, name: &str) -> Vec<message::Standby> {
        let state = self.lock();
        state.waiting.get(name).into_iter().flatten().map(|waiting| waiting.who.clone()).collect()
    }

    /// Has the first take it who can. The entry that says who holds the name has this revision.
    pub(crate) async fn offer(&self, name: &str, revision: Revision, from: &str) -> Result<(), Fault> {
        let waiting: Vec<_> =
            self.lock().waiting.get(name).into_iter().flatten().map(|waiting| waiting.gifts.clone()).collect();
        let mut why = Fault::new(FaultKind::NotFound, "nobody stands by for it any more");
        for gifts in waiting {
            let (taken, outcome) = oneshot::channel();
            if gifts.send(Gift { revision, from: from.to_owned(), taken }).await.is_err() {
                continue; // It has just gone.
            }
            match outcome.await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(fault)) => why = fault,
                Err(_) => {}
            }
        }
        Err(why)
    }
}

impl Standby<'_> {
    /// The name, when it is handed over.
    pub(super) async fn gift(&mut self) -> Gift {
        match self.gifts.recv().await {
            Some(gift) => gift,
            // The sender goes with this.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Standby<'_> {
    fn drop(&mut self) {
        let mut state = self.all.lock();
        if let Some(waiting) = state.waiting.get_mut(self.name) {
            waiting.retain(|waiting| waiting.number != self.number);
            if waiting.is_empty() {
                state.waiting.remove(self.name);
            }
        }
    }
}
