//! The socket for clients.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{UnixListener, UnixStream};

use super::connection;
use crate::node::Node;

/// How often closed connections are told of.
const REMIND: Duration = Duration::from_secs(60);

/// Makes the socket. One that a dead daemon left is replaced.
///
/// # Errors
/// A living daemon has it; or what the system said.
pub fn bind(path: &Path, mode: u32) -> Result<UnixListener, String> {
    let saying = |error: &dyn std::fmt::Display| format!("the socket {}: {error}", path.display());
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(|error| saying(&error))?;
    }
    if path.exists() {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(saying(&"another daemon serves it: stop that one, or set `socket`"));
        }
        std::fs::remove_file(path).map_err(|error| saying(&error))?;
    }
    let listener = UnixListener::bind(path).map_err(|error| saying(&error))?;
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, mode).map_err(|error| saying(&error))?;
    Ok(listener)
}

/// Serves clients until the process ends.
pub async fn serve(listener: UnixListener, node: Arc<Node>) {
    let closed = Arc::new(Closed::default());
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(greet(stream, node.clone(), closed.clone()))),
            Err(error) => {
                tracing::error!("accepting a client: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Tells of connections that were closed: anybody can make any number of them, so at most from time to time.
#[derive(Default)]
struct Closed(Mutex<(Option<Instant>, u64)>);

impl Closed {
    fn tell(&self, user: &str, error: &io::Error) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (told, unsaid) = &mut *state;
        if told.is_some_and(|told| told.elapsed() < REMIND) {
            *unsaid += 1;
            return;
        }
        let more = if *unsaid > 0 { format!("; and {unsaid} others since the last such line") } else { String::new() };
        tracing::warn!("a connection of {user} was closed: {error}{more}");
        (*told, *unsaid) = (Some(Instant::now()), 0);
    }
}

async fn greet(stream: UnixStream, node: Arc<Node>, closed: Arc<Closed>) {
    let user = stream.peer_cred().map_or_else(|_| "nobody known".to_owned(), |peer| format!("user {}", peer.uid()));
    if let Err(error) = connection::serve(stream, node).await
        && error.kind() != io::ErrorKind::UnexpectedEof
        && error.kind() != io::ErrorKind::ConnectionReset
    {
        closed.tell(&user, &error);
    }
}
