//! Letting a name go: to whom it is handed over, or to whoever comes.

use std::sync::Arc;

use segstore::control::message::{Answer, Fault, FaultKind, Holder};

use super::{RETRY, named};
use crate::cluster::holder_key;
use crate::directory::Revision;
use crate::node::{Node, SHORT, directory_fault};
use crate::peers::message::Call;
use crate::sessions::requests::Client;
use crate::sessions::session::LetGo;

/// Tells of a name that was let go.
pub(in crate::sessions) async fn released(client: &Client, name: &str, let_go: LetGo) -> Result<Answer, Fault> {
    if let_go == LetGo::Nothing {
        return Ok(Answer::Done);
    }
    // In a task of its own: it goes on when the client does not wait for it, and until the directory has heard of it.
    let (node, number, name) = (client.node.clone(), client.session.number, name.to_owned());
    let freed = tokio::spawn(async move {
        node.sessions.keep().await;
        if let_go == LetGo::Over {
            free_at_last(&node, number, &name).await;
        }
    });
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
        if holder.node == node.id && !is_held && !node.sessions.inner.moving.is_given(holder.session, name) {
            free(node, holder.session, name).await?;
        }
    }
    Ok(())
}

/// Takes a session's entry away, if it stands and the session has not acquired the name again meanwhile.
async fn free(node: &Arc<Node>, session: u64, name: &str) -> Result<(), Fault> {
    if give(node, session, name).await? {
        return Ok(());
    }
    let living = node.sessions.numbered(session);
    let _alone = match &living {
        Some(living) => Some(living.names.lock().await),
        None => None,
    };
    if living.as_ref().is_some_and(|living| living.holds(name)) {
        return Ok(());
    }
    if let Some((_, revision)) = own_entry(node, session, name).await? {
        let swapped = node.directory.compare_swap(&holder_key(name), Some(revision), None).await;
        // In a conflict somebody else has taken it.
        swapped.map_err(|error| directory_fault(&error))?;
    }
    node.sessions.inner.moving.forget(session, name);
    Ok(())
}

/// The entry by which the session holds a name.
async fn own_entry(node: &Node, session: u64, name: &str) -> Result<Option<(Holder, Revision)>, Fault> {
    let found = node.holder(name).await?;
    Ok(found.filter(|(holder, _)| holder.node == node.id && holder.session == session))
}

/// Whether a name that is let go is another node's by now, for who stands by there, since that was wished for. No lock is held meanwhile: as
/// long as it is being given, nobody here takes it.
async fn give(node: &Arc<Node>, session: u64, name: &str) -> Result<bool, Fault> {
    let moving = &node.sessions.inner.moving;
    if node.sessions.numbered(session).is_some_and(|living| living.holds(name)) {
        return Ok(false);
    }
    let Some(giving) = moving.give(session, name) else { return Ok(false) };
    let Some((holder, Revision(revision))) = own_entry(node, session, name).await? else { return Ok(false) };
    let call = Call::Take { name: name.to_owned(), revision, from: named(&holder) };
    let taken = node.call(giving.to, call, SHORT).await;
    let to = node.view.name(giving.to);
    match taken {
        Ok(_) => {
            tracing::info!(segment = name, "it was handed over to node {to}");
            moving.forget(session, name);
            Ok(true)
        }
        Err(fault) => {
            tracing::warn!(segment = name, "node {to} does not take it: {fault}");
            Ok(false)
        }
    }
}
