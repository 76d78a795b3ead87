//! Segments that nobody has open: a node that has a replica restores those that are missed, and moves them off nodes that are to keep nothing,
//! as an owner would; see [`OwnerId::caretaker`](segstore_core::id::OwnerId::caretaker).

mod need;
mod tend;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use segstore::control::message::{Fault, FaultKind};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Node;
use crate::cluster::View;
use need::Look;
use tend::{Stopped, tend};

/// How often to look.
const PERIOD: Duration = Duration::from_secs(60);
/// The same where something is in the way.
const SOON: Duration = Duration::from_secs(10);
/// For how long nobody must own a segment: whoever stands by has it before.
const SETTLE: Duration = Duration::from_secs(2);
/// How many are tended at a time.
const AT_A_TIME: usize = 4;
/// How often it is begun with, where somebody owns it in between.
const ATTEMPTS: usize = 8;
/// Before what came to nothing is tried anew: the first pause, which doubles, and the longest. Each attempt has a term of its own.
const AGAIN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3600));

/// What this node does for segments that nobody has open.
#[derive(Debug, Default)]
pub struct Care(Mutex<HashMap<String, Tended>>);

#[derive(Debug)]
struct Tended {
    /// It is restored, or about to be.
    is_now: bool,
    /// Why it came to nothing.
    why: String,
    /// Before that it is not tried.
    until: Instant,
    /// Between the last two attempts.
    pause: Duration,
}

impl Care {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Tended>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this node does for a segment, or why that is nothing, for people.
    pub(crate) fn of(&self, name: &str) -> Option<String> {
        let all = self.lock();
        let tended = all.get(name)?;
        Some(if tended.is_now { "its replicas are being restored".to_owned() } else { tended.why.clone() })
    }

    fn with(&self, name: &str, act: impl FnOnce(&mut Tended)) {
        let new = || Tended { is_now: false, why: String::new(), until: Instant::now(), pause: AGAIN.0 / 2 };
        act(self.lock().entry(name.to_owned()).or_insert_with(new));
    }

    /// Whether it is neither tended now nor resting.
    fn is_due(&self, name: &str) -> bool {
        self.lock().get(name).is_none_or(|tended| !tended.is_now && tended.until <= Instant::now())
    }

    /// It is tended from now on.
    fn begin(&self, name: &str) {
        self.with(name, |tended| tended.is_now = true);
    }

    /// It needs nothing more, or it is somebody's again.
    fn end(&self, name: &str) {
        self.lock().remove(name);
    }

    /// It came to nothing.
    fn rest(&self, name: &str, why: String) {
        self.with(name, |tended| {
            let pause = (tended.pause * 2).min(AGAIN.1);
            *tended = Tended { is_now: false, why, until: Instant::now() + pause, pause };
        });
    }

    /// Something has changed: what came to nothing may be tried again.
    fn try_all(&self) {
        let now = Instant::now();
        self.lock().values_mut().for_each(|tended| tended.until = now);
    }

    /// Nothing can be done before something changes.
    fn wait(&self, name: &str, why: String) {
        self.with(name, |tended| (tended.is_now, tended.why) = (false, why));
    }

    /// Of those that need nothing any more nothing is known.
    fn forget_others(&self, look: &Look) {
        let is_stuck = |name: &String| look.stuck.iter().any(|(stuck, _)| stuck == name);
        let is_needy = |name: &String| look.needy.contains(name) || look.resting.contains(name) || is_stuck(name);
        self.lock().retain(|name, tended| tended.is_now || is_needy(name));
    }
}

/// Tends what nobody has open, and this node is to look after, until the process ends.
pub async fn tend_unowned(node: Arc<Node>) {
    let (permits, mut known) = (Arc::new(Semaphore::new(AT_A_TIME)), node.view.wanted());
    let mut pause = SETTLE;
    loop {
        // At once where a node comes, perhaps with another memory, or goes, is being drained, or gone for good.
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            now = node.view.other(&known, View::wanted) => {
                known = now;
                node.care.try_all();
            }
        }
        let has_lease = node.lease.borrow().is_some();
        let look =
            if has_lease { need::look(&node).await } else { Err(Fault::new(FaultKind::Unreachable, node.no_lease())) };
        pause = match &look {
            Ok(Look { stuck, resting, .. }) if stuck.is_empty() && resting.is_empty() => PERIOD,
            Ok(_) => SOON,
            Err(_) => SETTLE,
        };
        let look = match look {
            Ok(look) => look,
            Err(fault) => {
                tracing::debug!("looking for segments that nobody has open: {fault}");
                continue;
            }
        };
        node.care.forget_others(&look);
        for (name, why) in look.stuck {
            node.care.wait(&name, why);
        }
        // Of those that are due: nobody else begins with them.
        for name in look.needy {
            node.care.begin(&name);
            tokio::spawn(care_for(node.clone(), name, permits.clone()));
        }
    }
}

/// Tends a segment as soon as nobody has owned it for a moment. Who only reads it owns it for as long.
async fn care_for(node: Arc<Node>, name: String, permits: Arc<Semaphore>) {
    for _ in 0..ATTEMPTS {
        tokio::time::sleep(SETTLE).await;
        // The semaphore is never closed.
        let _permit = permits.acquire().await;
        match need::look_again(&node, &name).await {
            Ok(Look { mut stuck, .. }) if !stuck.is_empty() => {
                return node.care.wait(&name, stuck.remove(0).1);
            }
            Ok(look) if look.needy.is_empty() => break,
            Ok(_) => {}
            Err(fault) => return node.care.rest(&name, fault.message),
        }
        match tend(&node, &name).await {
            Ok(()) => {
                tracing::info!(segment = name, "nobody has it open, and its replicas are restored");
                break;
            }
            Err(Stopped::Owned) => {}
            Err(Stopped::Failed(why)) => {
                tracing::warn!(segment = name, "nobody has it open, and its replicas cannot be restored: {why}");
                return node.care.rest(&name, why);
            }
        }
    }
    node.care.end(&name);
}
