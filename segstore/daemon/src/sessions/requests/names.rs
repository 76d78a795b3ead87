//! Who holds a name.

use std::sync::Arc;
use std::time::Duration;

use segstore::control::message::{Answer, Fault, FaultKind, Holder};
use tokio::time::Instant;

use super::Client;
use crate::cluster::{check_name, holder_key};
use crate::directory::{Change, Revision, Swapped, Value};
use crate::identity::now;
use crate::node::{Node, directory_fault};
use crate::sessions::credentials::Want;

/// The pause after a watch that broke off.
const PAUSE: Duration = Duration::from_millis(50);
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
    if let Some((entry, _)) = found(node.segment(name).await)? {
        client.credentials.check(name, entry.access, Want::Write)?;
    }
    let until = wait.map(|wait| Instant::now() + Duration::from_millis(wait));
    loop {
        // In a task of its own: a connection that closes meanwhile must not leave an entry that nobody knows of.
        let (asker, wanted) = (client.clone(), name.to_owned());
        let attempted = tokio::spawn(async move { take(&asker, &wanted, force).await }).await;
        let attempted = attempted.map_err(|error| Fault::new(FaultKind::Internal, error.to_string()))?;
        let holder = match attempted? {
            Ok(newly) => return Ok(Answer::Acquired { newly }),
            Err(holder) => holder,
        };
        if until.is_some_and(|until| until <= Instant::now()) {
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

/// Takes the name for the session; whether it did not have it before, or who has it.
async fn take(client: &Client, name: &str, force: bool) -> Result<Result<bool, Box<Holder>>, Fault> {
    let alone = client.session.names.lock().await;
    // Noted before the entry stands, so that nobody takes it for a stale one.
    let held_before = client.session.holds(name);
    client.session.hold(name);
    let attempted = attempt(client, name, force).await;
    if matches!(attempted, Ok(Ok(()))) {
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
    Ok(attempted?.map(|()| !held_before))
}

/// Takes the name if it is free, or stale, or is to be taken by force; otherwise who has it.
async fn attempt(client: &Client, name: &str, force: bool) -> Result<Result<(), Box<Holder>>, Fault> {
    let (node, session) = (&client.node, &client.session);
    let lease = *node.lease.borrow();
    let lease = lease.ok_or_else(|| {
        Fault::new(FaultKind::Unreachable, format!("node {} has no lease now: does the directory answer?", node.name))
    })?;
    let present = node.holder(name).await?;
    if let Some((holder, _)) = &present {
        let is_own = holder.node == node.id;
        if is_own && holder.session == session.number {
            return Ok(Ok(()));
        }
        // A session that ended while nobody could be told, or an entry that came back with an old copy of the directory.
        let holds = |other: Arc<crate::sessions::Session>| other.holds(name);
        let is_stale = is_own && !node.sessions.numbered(holder.session).is_some_and(holds);
        if !is_stale && !force {
            return Ok(Err(Box::new(holder.clone())));
        }
    }
    let holder = Holder {
        node: node.id,
        node_name: node.name.clone(),
        session: session.number,
        pid: client.credentials.pid,
        program: session.program.clone(),
        since: now(),
    };
    let value = Value { bytes: crate::node::encode(&holder)?, lease: Some(lease) };
    let expected: Option<Revision> = present.as_ref().map(|(_, revision)| *revision);
    let swapped = node.directory.compare_swap(&holder_key(name), expected, Some(value)).await;
    match swapped.map_err(|error| directory_fault(&error))? {
        Swapped::Made(_) => Ok(Ok(())),
        Swapped::Conflict(Some(entry)) => Ok(Err(Box::new(crate::node::parse(&entry)?))),
        Swapped::Conflict(None) => Box::pin(attempt(client, name, force)).await,
    }
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
        let holder: Holder = crate::node::parse(entry)?;
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
