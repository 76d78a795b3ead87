//! The socket for clients.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use super::connection;
use crate::node::Node;

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
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(greet(stream, node.clone()))),
            Err(error) => {
                tracing::error!("accepting a client: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn greet(stream: UnixStream, node: Arc<Node>) {
    if let Err(error) = connection::serve(stream, node).await
        && error.kind() != io::ErrorKind::UnexpectedEof
        && error.kind() != io::ErrorKind::ConnectionReset
    {
        tracing::warn!("a client's connection was closed: {error}");
    }
}
