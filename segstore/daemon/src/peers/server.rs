//! Serving other daemons: calls for this node, and the directory if it is kept here.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use segstore::control::message::Fault;
use segstore_core::id::NodeId;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status};

use super::message::{Call, Reply, Serve};
use super::repeats::Repeats;
use super::rpc::peer_server::{Peer, PeerServer};
use super::tls::Identity;
use crate::directory::Directory;
use crate::directory::serve::service;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Connections that have shaken hands and wait to be served.
const BACKLOG: usize = 64;

/// A call as it travels.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Incoming {
    /// Who asks.
    pub from: NodeId,
    /// What.
    pub call: Call,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outcome(pub Result<Reply, Fault>);

struct Calls(Arc<dyn Serve>);

#[tonic::async_trait]
impl Peer for Calls {
    async fn call(&self, request: Request<Incoming>) -> Result<Response<Outcome>, Status> {
        let Incoming { from, call } = request.into_inner();
        // The call goes on if the caller goes away: what it began is not left half done.
        let (serve, served) = (self.0.clone(), tokio::spawn);
        let outcome = served(async move { serve.serve(from, call).await }).await;
        outcome.map(|outcome| Response::new(Outcome(outcome))).map_err(|error| Status::internal(error.to_string()))
    }
}

/// Serves until the process ends.
///
/// # Errors
/// The listener broke.
pub async fn run(
    listener: TcpListener,
    identity: Identity,
    calls: Arc<dyn Serve>,
    directory: Option<Arc<dyn Directory>>,
) -> Result<(), tonic::transport::Error> {
    let (sender, incoming) = tokio::sync::mpsc::channel(BACKLOG);
    tokio::spawn(accept(listener, TlsAcceptor::from(identity.server), sender));
    let mut server = Server::builder().http2_keepalive_interval(Some(Duration::from_secs(5)));
    let router: Router = server.add_service(PeerServer::new(Calls(calls)));
    let router = router.add_optional_service(directory.map(service));
    router.serve_with_incoming(ReceiverStream::new(incoming)).await
}

/// Shakes hands with every connection at once, so that a slow one keeps nobody waiting.
async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    sender: tokio::sync::mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    let repeats = Arc::<Mutex<Repeats>>::default();
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("accepting a connection of another daemon: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, sender, repeats) = (acceptor.clone(), sender.clone(), repeats.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => drop(sender.send(Ok(stream)).await),
                Ok(Err(error)) => refused(&repeats, from, &format!("no daemon of this cluster: {error}")),
                Err(_) => refused(&repeats, from, "a connection without a handshake was closed"),
            }
        });
    }
}

/// Tells of a stranger; one that is a daemon with another secret tries again many times a second.
fn refused(repeats: &Mutex<Repeats>, from: SocketAddr, why: &str) {
    let due = repeats.lock().unwrap_or_else(PoisonError::into_inner).due(from.ip(), Instant::now());
    match due {
        Some(0) => tracing::warn!(%from, "{why}; more of this address is counted, and said once a minute"),
        Some(left_out) => tracing::warn!(%from, "{why}; {left_out} more from this address since this was said last"),
        None => {}
    }
}
