//! Who holds a name.

mod again;
mod letting_go;

use std::sync::Arc;
use std::time::Duration;

use segstore::control::message::{Answer, Fault, FaultKind, Holder};
use tokio::time::Instant;

use super::Client;
use crate::cluster::{check_name, holder_key};
use crate::directory::{Change, Revision, Swapped, Value};
use crate::identity::now;
use crate::lease::Standing;
use crate::node::{Came, Node, directory_fault};
use crate::sessions::Session;
use crate::sessions::credentials::Want;
use crate::sessions::session::Attempt;
use crate::sessions::standby::Gift;

pub(in crate::sessions) use again::hold_again;
pub(in crate::sessions) use letting_go::{free_at_last, free_strays, released};

/// The pause after a watch that broke off.
const PAUSE: Duration = Duration::from_millis(50);
/// How often it is said that the directory is still away.
const REMIND: Duration = Duration::from_secs(60);
/// The pause between attempts to tell the directory that a name is free.
const RETRY: Duration = Duration::from_millis(200);

/// What nobody gets on a storage node.
pub(super) fn only_keeps_replicas(node_name: &str) -> Fault {
    let text = format!(
        "node {node_name} only keeps replicas (`storage = true`): nobody owns a segment there, nor takes one over to load it; use another node"
    );
    Fault::new(FaultKind::Denied, text)
}

/// Holds the name for the client's session, at the latest after `wait` milliseconds.
pub(super) async fn acquire(
    client: &Client,
    name: &str,
    attempt: Attempt,
    wait: Option<u64>,
    force: bool,
) -> Result<Answer, Fault> {
    check_name(name)?;
    let node = &client.node;
    if node.storage {
        return Err(only_keeps_replicas(&node.name));
    }
    let attempt = Arc::new(attempt);
    let mut is_away = Away::default();
    let (mut standby, mut gift) = (None, None);
    let until = wait.map(|wait| Instant::now() + Duration::from_millis(wait));
    loop {
        // In a task of its own: a connection that closes meanwhile must not leave an entry that nobody knows of.
        let (asker, wanted, attempt) = (client.clone(), name.to_owned(), attempt.clone());
        let right = match gift.take().filter(|gift: &Gift| !gift.taken.is_closed()) {
            Some(gift) => Right::Gift(gift),
            None if force => Right::Force,
            None => Right::Free,
        };
        let attempted = tokio::spawn(async move { take(&asker, &wanted, &attempt, right).await }).await;
        let attempted = attempted.map_err(|error| Fault::new(FaultKind::Internal, error.to_string()))?;
        let is_late = until.is_some_and(|until| until <= Instant::now());
        let holder = match attempted {
            Ok(Ok((newly, Revision(hold)))) => return Ok(Answer::Acquired { newly, hold }),
            Ok(Err(holder)) => holder,
            // Whoever waits for a holder to go waits for the directory too, and who waits for ever, for its disk.
            Err(fault)
                if !is_late
                    && (matches!(fault.kind, FaultKind::Unreachable | FaultKind::NoAnswer)
                        || fault.kind == FaultKind::NoRoom && until.is_none()) =>
            {
                is_away.tell(name, &fault);
                tokio::time::sleep(RETRY).await;
                continue;
            }
            Err(fault) => return Err(fault),
        };
        is_away.end(name);
        if is_late {
            return Err(held(name, &holder));
        }
        let standby = standby.get_or_insert_with(|| node.sessions.standbys().join(name, client.standby()));
        let over = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = until_free(node, name) => {}
            given = standby.gift() => gift = Some(given),
            () = over => {}
        }
    }
}

/// By what right a name is taken.
enum Right {
    /// Nobody holds it.
    Free,
    /// By force, whoever holds it.
    Force,
    /// Its holder hands it over.
    Gift(Gift),
}

/// Somebody else has it.
pub(super) fn held(name: &str, holder: &Holder) -> Fault {
    let text = format!("segment {name} is owned by {}", named(holder));
    Fault::new(FaultKind::Held(Box::new(holder.clone())), text)
}

/// Who holds a name, for people.
pub(super) fn named(holder: &Holder) -> String {
    let Holder { program, pid, node_name, .. } = holder;
    format!("{program} (process {pid} on node {node_name})")
}

fn found<T>(result: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(fault) if fault.kind == FaultKind::NotFound => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Tells that the directory is away: at once, then from time to time, and when it is back.
#[derive(Default)]
struct Away(Option<Instant>);

impl Away {
    fn tell(&mut self, name: &str, fault: &Fault) {
        if self.0.is_none_or(|told| told.elapsed() >= REMIND) {
            tracing::warn!(segment = name, "a process waits for it, and goes on waiting: {fault}");
            self.0 = Some(Instant::now());
        }
    }

    fn end(&mut self, name: &str) {
        if self.0.take().is_some() {
            tracing::info!(segment = name, "a process waits for it, and the directory answers again");
        }
    }
}

/// Takes the name for the session; whether it did not have it before, and the entry's revision, or who has it.
async fn take(
    client: &Client,
    name: &str,
    attempt: &Attempt,
    right: Right,
) -> Result<Result<(bool, Revision), Box<Holder>>, Fault> {
    let taken = take_by(client, name, attempt, &right).await;
    if let Right::Gift(gift) = right {
        // Who hands it over may have given up.
        let _ = gift.taken.send(match &taken {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(holder)) => Err(held(name, holder)),
            Err(fault) => Err(fault.clone()),
        });
    }
    taken
}

async fn take_by(
    client: &Client,
    name: &str,
    asked: &Attempt,
    right: &Right,
) -> Result<Result<(bool, Revision), Box<Holder>>, Fault> {
    if let Some((entry, _)) = found(client.node.segment(name).await)? {
        client.credentials.check(name, entry.access, Want::Write)?;
    }
    let alone = client.session.names.lock().await;
    // Noted before the entry stands, so that nobody takes it for a stale one.
    let held_before = client.session.holds(name);
    let is_new = client.session.hold(name, asked.who);
    let attempted = attempt(&client.node, &client.session, client.credentials.pid, name, right).await;
    // Who asked may have let it go since, or have ended.
    let (is_taken, is_wanted) = (matches!(attempted, Ok(Ok(_))), asked.is_wanted());
    if is_taken && is_wanted {
        client.node.sessions.keep().await;
    } else if is_new {
        client.session.unhold(name, asked.who);
    }
    drop(alone);
    if client.session.is_over() || is_taken && !is_wanted {
        free_at_last(&client.node, client.session.number, name).await;
    } else if !held_before && matches!(&attempted, Err(fault) if fault.kind == FaultKind::NoAnswer) {
        // The entry may stand, or be about to: who asked is told that it failed, so nobody would ever free it.
        let (node, session, name) = (client.node.clone(), client.session.number, name.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(RETRY).await;
            free_at_last(&node, session, &name).await;
        });
    }
    if !is_wanted {
        return Err(Fault::new(FaultKind::NotHeld, format!("{name} was let go while it was acquired")));
    }
    Ok(attempted?.map(|revision| (!held_before, revision)))
}

/// Takes the name if it is free, or stale, or somebody else's that may be taken: the revision of the entry. Otherwise who has it.
async fn attempt(
    node: &Arc<Node>,
    session: &Arc<Session>,
    pid: i32,
    name: &str,
    right: &Right,
) -> Result<Result<Revision, Box<Holder>>, Fault> {
    let lease = *node.lease.borrow();
    let lease = lease.ok_or_else(|| Fault::new(FaultKind::Unreachable, node.no_lease()))?;
    let mut came = None;
    let present = node.directory.read(&holder_key(name)).await.map_err(|error| directory_fault(&error))?;
    if let Some(entry) = &present {
        let holder: Holder = crate::node::parse(entry)?;
        let is_own = holder.node == node.id;
        let is_this = is_own && holder.session == session.number;
        if is_own && node.sessions.inner.moving.is_given(holder.session, name) {
            // In a moment it is another node's, or free.
            return Ok(Err(Box::new(holder)));
        }
        if is_this && entry.lease == Some(lease) {
            return Ok(Ok(entry.revision));
        }
        // A session that ended while nobody could be told, or an entry that came back with an old copy of the directory.
        let holds = |other: Arc<Session>| other.holds(name);
        let is_stale = is_own && !node.sessions.numbered(holder.session).is_some_and(holds);
        // One under an earlier lease would go with it.
        if !is_this && !is_stale {
            came = match right {
                Right::Force => Some(Came::ByForce(named(&holder))),
                Right::Gift(gift) if gift.revision == entry.revision => Some(Came::HandedOver(gift.from.clone())),
                Right::Free | Right::Gift(_) => return Ok(Err(Box::new(holder))),
            };
        }
    }
    let holder = Holder {
        node: node.id,
        node_name: node.name.clone(),
        session: session.number,
        pid,
        program: session.program.clone(),
        since: now(),
    };
    let value = Value { bytes: crate::node::encode(&holder)?, lease: Some(lease) };
    let expected = present.map(|entry| entry.revision);
    let swapped = node.directory.compare_swap(&holder_key(name), expected, Some(value)).await;
    match swapped.map_err(|error| directory_fault(&error))? {
        Swapped::Made(revision) => {
            if let Some(came) = came {
                session.took(name, came);
            }
            Ok(Ok(revision))
        }
        Swapped::Conflict(Some(entry)) => Ok(Err(Box::new(crate::node::parse(&entry)?))),
        Swapped::Conflict(None) => Box::pin(attempt(node, session, pid, name, right)).await,
    }
}

/// Waits until the entry of that revision stands no longer: another session took the name, or this one let it go.
pub(super) async fn await_loss(client: &Client, name: &str, hold: Revision) -> Result<Answer, Fault> {
    check_name(name)?;
    let (directory, key) = (&client.node.directory, holder_key(name));
    loop {
        if let Ok(listing) = directory.list(&key).await {
            let found = listing.entries.iter().find(|entry| entry.key == key);
            if found.is_none_or(|entry| entry.revision != hold) {
                return Ok(Answer::Lost { holder: found.map(crate::node::parse).transpose()? });
            }
            if let Ok(mut watch) = directory.watch(&key, listing.revision).await {
                while let Some(change) = watch.recv().await {
                    let holder = match &change {
                        Change::Put(entry) if entry.key == key => Some(crate::node::parse(entry)?),
                        Change::Deleted { key: gone, .. } if *gone == key => None,
                        _ => continue,
                    };
                    return Ok(Answer::Lost { holder });
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// How the node's lease stands: whoever holds a name must know how long nobody else is given it.
pub(super) fn lease(client: &Client) -> Answer {
    let Standing { until, time, trouble } = client.node.standing.borrow().clone();
    let left = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(std::time::Instant::now()));
    let trouble = trouble.or_else(|| until.is_none().then(|| client.node.no_lease()));
    let [left_ms, time_ms] = [left, time].map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    Answer::Lease { left_ms, time_ms, trouble }
}

/// Waits until the holder's entry has gone, or something was missed.
async fn until_free(node: &Arc<Node>, name: &str) {
    let key = holder_key(name);
    if let Ok(listing) = node.directory.list(&key).await {
        if !listing.entries.iter().any(|entry| entry.key == key) {
            return;
        }
        if let Ok(mut watch) = node.directory.watch(&key, listing.revision).await {
            while let Some(change) = watch.recv().await {
                if matches!(&change, Change::Deleted { key: gone, .. } if *gone == key) {
                    return;
                }
            }
        }
    }
    tokio::time::sleep(PAUSE).await;
}
