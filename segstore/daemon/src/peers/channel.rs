//! Connections to other daemons: opened when first needed, shared, opened again when they break.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{KeepAlive, TcpKeepCount, TcpKeepIdle, TcpKeepInterval};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Status;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

use super::tls::{Identity, SERVER_NAME};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(1);
/// How often a silent connection that owes an answer, or news, is asked for a sign of life, and how long that may take.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const NO_SIGN: Duration = Duration::from_secs(2);

/// Channels by address.
#[derive(Clone)]
pub struct Channels {
    identity: Identity,
    open: Arc<Mutex<HashMap<String, Channel>>>,
}

/// Why no connection came about: nothing was asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach {address}: {error}")]
struct NotConnected {
    address: String,
    error: io::Error,
}

impl Channels {
    /// None are open so far.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self { identity, open: Arc::default() }
    }

    /// The channel to `address` (host and port).
    ///
    /// # Errors
    /// It is no address.
    pub fn to(&self, address: &str) -> Result<Channel, String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = open.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint.map_err(|error| format!("{address:?} is no address of a daemon: {error}"))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(NO_SIGN)
            .tcp_nodelay(true);
        let (identity, whom) = (self.identity.clone(), address.to_owned());
        let connector = tower::service_fn(move |_: Uri| {
            let (identity, address) = (identity.clone(), whom.clone());
            async move { connect(&identity, &address).await.map_err(|error| NotConnected { address, error }) }
        });
        let channel = endpoint.connect_with_connector_lazy(connector);
        open.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

async fn connect(
    identity: &Identity,
    address: &str,
) -> io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        have_it_probed(&stream)?;
        let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
        TlsConnector::from(identity.client.clone()).connect(name, stream).await.map_err(explain)
    };
    let timed = tokio::time::timeout(CONNECT, connecting).await;
    let stream = timed.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in a second")))?;
    Ok(TokioIo::new(stream))
}

/// Has the kernel look whether the other host is there while nothing is said: a connection that has died unseen would cost the next call.
fn have_it_probed(stream: &TcpStream) -> nix::Result<()> {
    setsockopt(stream, KeepAlive, &true)?;
    setsockopt(stream, TcpKeepIdle, &1)?;
    setsockopt(stream, TcpKeepInterval, &1)?;
    setsockopt(stream, TcpKeepCount, &2)
}

/// What a handshake that failed most likely means.
fn explain(error: io::Error) -> io::Error {
    if error.get_ref().is_none() && error.kind() != io::ErrorKind::UnexpectedEof {
        return error; // The network's.
    }
    let text = format!(
        "the cluster's secret differs from the other daemon's (`secret_file`), or it is no segstored ({error})"
    );
    io::Error::new(error.kind(), text)
}

/// Why there was no connection, if that was it.
fn not_connected(status: &Status) -> Option<&NotConnected> {
    causes(status).find_map(|cause| cause.downcast_ref())
}

/// What a status comes from, and what that comes from.
pub(crate) fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |cause| cause.source())
}

/// Whether nothing can have been done: there was no connection.
#[must_use]
pub fn was_not_sent(status: &Status) -> bool {
    not_connected(status).is_some()
}

/// What a status says, with its causes; where there was no connection, only why.
#[must_use]
pub fn describe(status: &Status) -> String {
    if let Some(why) = not_connected(status) {
        return why.to_string();
    }
    let mut text = status.message().to_owned();
    for more in causes(status).map(ToString::to_string) {
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
    }
    text
}
