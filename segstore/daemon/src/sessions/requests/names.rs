//! Who holds a name.

use std::sync::Arc;
use std::time::Duration;

use segstore::control::message::{Answer, Fault, FaultKind, Holder};
use segstore_core::layout::Ownership;
use tokio::time::Instant;

use super::Client;
use crate::cluster::{check_name, holder_key};
use crate::directory::{Change, Revision, Swapped, Value};
use crate::identity::now;
use crate::lease::Standing;
use crate::node::{Node, directory_fault};
use crate::sessions::Session;
use crate::sessions::credentials::Want;

/// The pause after a watch that broke off.
const PAUSE: Duration = Duration::from_millis(50);
/// How often it is said that the directory is still away.
const REMIND: Duration = Duration::from_secs(60);
/// The pause between attempts to tell the directory that a name is free.
const RETRY: Duration = Duration::from_millis(200);

/// Holds the name for the client's session, at the latest after `wait` milliseconds.
pub(super) async fn acquire(client: &Client, name: &str, wait: Option<u64>, force: bool) -> Result<Answer, Fault> {
    check_name(name)?;
    let node = &client.node;
    if node.storage {
        let text = format!("node {} only keeps replicas: no application owns a segment here", node.name);
        return Err(Fault::new(FaultKind::Denied, text));
    }
    let mut is_away = Away::default();
    let until = wait.map(|wait| Instant::now() + Duration::from_millis(wait));
    loop {
        // In a task of its own: a connection that closes meanwhile must not leave an entry that nobody knows of.
        let (asker, wanted) = (client.clone(), name.to_owned());
        let attempted = tokio::spawn(async move { take(&asker, &wanted, force).await }).await;
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
            let Holder { program, pid, node_name, .. } = &*holder;
            let text = format!("segment {name} is owned by {program} (process {pid} on node {node_name})");
            return Err(Fault::new(FaultKind::Held(holder), text));
        }
        let free = until_free(node, name);
        match until {
            Some(until) => drop(tokio::time::timeout_at(until, free).await),
            None => free.await,
        }
    }
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
async fn take(client: &Client, name: &str, force: bool) -> Result<Result<(bool, Revision), Box<Holder>>, Fault> {
    if let Some((entry, _)) = found(client.node.segment(name).await)? {
        client.credentials.check(name, entry.access, Want::Write)?;
    }
    let alone = client.session.names.lock().await;
    // Noted before the entry stands, so that nobody takes it for a stale one.
    let held_before = client.session.holds(name);
    client.session.hold(name);
    let attempted = attempt(&client.node, &client.session, client.credentials.pid, name, force).await;
    if matches!(attempted, Ok(Ok(_))) {
        client.node.sessions.keep();
    } else if !held_before {
        client.session.let_go(name);
    }
    drop(alone);
    if client.session.is_over() {
        free_at_last(&client.node, client.session.number, name).await;
    } else if !held_before && matches!(&attempted, Err(fault) if fault.kind == FaultKind::NoAnswer) {
        // The entry may stand, or be about to: who asked is told that it failed, so nobody would ever free it.
        let (node, session, name) = (client.node.clone(), client.session.number, name.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(RETRY).await;
            free_at_last(&node, session, &name).await;
        });
    }
    Ok(attempted?.map(|revision| (!held_before, revision)))
}

/// Takes the name if it is free, or stale, or is to be taken by force: the revision of the entry. Otherwise who has it.
async fn attempt(
    node: &Arc<Node>,
    session: &Arc<Session>,
    pid: i32,
    name: &str,
    force: bool,
) -> Result<Result<Revision, Box<Holder>>, Fault> {
    let lease = *node.lease.borrow();
    let lease = lease.ok_or_else(|| Fault::new(FaultKind::Unreachable, node.no_lease()))?;
    let mut taken_from = None;
    let present = node.directory.read(&holder_key(name)).await.map_err(|error| directory_fault(&error))?;
    if let Some(entry) = &present {
        let holder: Holder = crate::node::parse(entry)?;
        let is_own = holder.node == node.id;
        let is_this = is_own && holder.session == session.number;
        if is_this && entry.lease == Some(lease) {
            return Ok(Ok(entry.revision));
        }
        // A session that ended while nobody could be told, or an entry that came back with an old copy of the directory.
        let holds = |other: Arc<Session>| other.holds(name);
        let is_stale = is_own && !node.sessions.numbered(holder.session).is_some_and(holds);
        // One under an earlier lease would go with it.
        if !is_this && !is_stale && !force {
            return Ok(Err(Box::new(holder)));
        }
        let Holder { program, pid, node_name, .. } = holder;
        taken_from =
            (!is_this && !is_stale).then(|| format!("{program} (process {pid} on node {node_name}), which held it"));
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
            if let Some(from) = taken_from {
                session.took(name, from);
            }
            Ok(Ok(revision))
        }
        Swapped::Conflict(Some(entry)) => Ok(Err(Box::new(crate::node::parse(&entry)?))),
        Swapped::Conflict(None) => Box::pin(attempt(node, session, pid, name, force)).await,
    }
}

/// Holds a name for a session that held it under an earlier lease: unless somebody else has it by now, or has owned the segment
/// meanwhile. Then this session's owner is fenced, and its next checkpoint tells it.
pub(in crate::sessions) async fn hold_again(
    node: &Arc<Node>,
    session: &Arc<Session>,
    name: &str,
    claimed: Option<Ownership>,
) {
    loop {
        let why = match try_again(node, session, name, claimed).await {
            Ok(None) => return,
            Ok(Some(why)) => why,
            Err(fault) => {
                tracing::debug!(segment = name, "holding it again: {fault}");
                tokio::time::sleep(RETRY).await;
                if node.lease.borrow().is_none() || !session.holds(name) {
                    return; // The next lease begins this anew.
                }
                continue;
            }
        };
        tracing::warn!(segment = name, process = session.credentials.pid, "it is not held here any more: {why}");
        session.let_go(name);
        node.sessions.keep();
        return free_at_last(node, session.number, name).await;
    }
}

/// Why the name is the session's no longer, if it is not.
async fn try_again(
    node: &Arc<Node>,
    session: &Arc<Session>,
    name: &str,
    claimed: Option<Ownership>,
) -> Result<Option<String>, Fault> {
    if let Err(holder) = attempt(node, session, session.credentials.pid, name, false).await? {
        return Ok(Some(format!("process {} on node {} holds it", holder.pid, holder.node_name)));
    }
    if !session.holds(name) {
        return Ok(Some("its session let it go".to_owned()));
    }
    // With the name held nobody else claims the segment, so what is read now stays true.
    let Some(claimed) = claimed else { return Ok(None) };
    let record = found(node.segment(name).await)?;
    let is_other = record.is_none_or(|(entry, _)| entry.record().ownership() != claimed);
    Ok(is_other.then(|| "the segment was taken over, or removed, meanwhile".to_owned()))
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

/// Holds the name no longer.
pub(super) async fn release(client: &Client, name: &str) -> Result<Answer, Fault> {
    if client.session.let_go(name) {
        client.node.sessions.keep();
    }
    // In a task of its own: it goes on when the client does not wait for it, and until the directory has heard of it.
    let (node, number, name) = (client.node.clone(), client.session.number, name.to_owned());
    let freed = tokio::spawn(async move { free_at_last(&node, number, &name).await });
    freed.await.map(|()| Answer::Done).map_err(|error| Fault::new(FaultKind::Internal, error.to_string()))
}

/// Takes a session's entry away, as soon as the directory answers.
pub(in crate::sessions) async fn free_at_last(node: &Arc<Node>, session: u64, name: &str) {
    while let Err(fault) = free(node, session, name).await {
        tracing::warn!(segment = name, "telling the directory that it is free: {fault}; trying again");
        tokio::time::sleep(RETRY).await;
    }
}

/// Frees what entries say of sessions of this node that do not hold it: of a former life of this daemon, or from an old copy of the
/// directory.
pub(in crate::sessions) async fn free_strays(node: &Arc<Node>) -> Result<(), Fault> {
    let listing = node.directory.list(&holder_key("")).await.map_err(|error| directory_fault(&error))?;
    for entry in &listing.entries {
        let Ok(holder) = crate::node::parse::<Holder>(entry) else { continue };
        let name = entry.key.strip_prefix(&holder_key("")).unwrap_or(&entry.key);
        let is_held = node.sessions.numbered(holder.session).is_some_and(|session| session.holds(name));
        if holder.node == node.id && !is_held {
            free(node, holder.session, name).await?;
        }
    }
    Ok(())
}

/// Takes a session's entry away, if it stands and the session has not acquired the name again meanwhile.
async fn free(node: &Arc<Node>, session: u64, name: &str) -> Result<(), Fault> {
    let living = node.sessions.numbered(session);
    let _alone = match &living {
        Some(living) => Some(living.names.lock().await),
        None => None,
    };
    if living.as_ref().is_some_and(|living| living.holds(name)) {
        return Ok(());
    }
    let Some((holder, revision)) = node.holder(name).await? else { return Ok(()) };
    if holder.node != node.id || holder.session != session {
        return Ok(());
    }
    let swapped = node.directory.compare_swap(&holder_key(name), Some(revision), None).await;
    // In a conflict somebody else has taken it.
    swapped.map(drop).map_err(|error| directory_fault(&error))
}
