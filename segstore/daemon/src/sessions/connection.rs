//! One connection of a client: frames in, frames out, requests side by side.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use segstore::control::frame::{self, ToClient, ToDaemon};
use segstore::control::message::{Answer, Fault, FaultKind, PROTOCOL, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::credentials::Credentials;
use super::life::Life;
use super::requests::{self, Client, Noted};
use super::session::{Outgoing, Session};
use crate::node::Node;

/// How long a client may take to say hello.
const HELLO: Duration = Duration::from_secs(5);
/// The most frames that wait for a client to read.
const OUTGOING: usize = 64;
/// The most requests of a connection at once.
const REQUESTS: usize = 512;

/// Serves it to its end.
pub(super) async fn serve(stream: UnixStream, node: Arc<Node>) -> io::Result<()> {
    let credentials = Credentials::of(&stream)?;
    let life = Life::of(&stream, &credentials);
    let seat = node.sessions.inner.seats.take(credentials.uid);
    let (mut from, to) = stream.into_split();
    let (outgoing, frames) = mpsc::channel(OUTGOING);
    let writer = tokio::spawn(write(to, frames));
    let hello = tokio::time::timeout(HELLO, read(&mut from, &outgoing)).await;
    let hello = hello.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no hello in five seconds")))?;
    let (_seat, session) = match seat.and_then(|seat| Ok((seat, welcome(&node, &credentials, hello)?))) {
        Ok((seat, (session, answer))) => {
            let _ = outgoing.send(ToClient::Answer(0, Ok(answer))).await;
            (seat, session)
        }
        Err(fault) => {
            let _ = outgoing.send(ToClient::Answer(0, Err(fault))).await;
            drop(outgoing);
            let _ = writer.await;
            return Ok(());
        }
    };
    let process = credentials.process();
    let is_new = !session.knows(process);
    let Some(connection) = session.join(process, outgoing.clone()) else { return Ok(()) };
    if is_new && !session.holding().is_empty() {
        // A daemon that is started again knows by this who belongs to it.
        node.sessions.keep().await;
    }
    let client = Client { node: node.clone(), session: session.clone(), credentials };
    let mut running = JoinSet::new();
    let ended = tokio::select! {
        error = converse(&client, connection, &mut from, &outgoing, &mut running) => error,
        () = life.ended() => io::ErrorKind::UnexpectedEof.into(),
    };
    // What it waited for is waited for no longer.
    running.shutdown().await;
    writer.abort();
    if session.leave(connection) {
        node.sessions.end(&node, &session).await;
    }
    if !session.is_over() {
        tokio::spawn(async move { node.sessions.outlive(&node, &session, process, life).await });
    }
    Err(ended)
}

/// Serves what it asks until it asks no more; gives why.
async fn converse(
    client: &Client,
    connection: u64,
    from: &mut OwnedReadHalf,
    outgoing: &Outgoing,
    running: &mut JoinSet<()>,
) -> io::Error {
    loop {
        match read(from, outgoing).await {
            Ok(ToDaemon::Report(number, report)) => client.session.report(connection, number, report),
            Ok(ToDaemon::Request(number, request @ Request::Release { .. })) => {
                // It is done also where the connection ends meanwhile, and there is always room for it.
                let noted = requests::note(client, &request);
                tokio::spawn(answer(client.clone(), outgoing.clone(), number, request, noted));
            }
            Ok(ToDaemon::Request(number, _)) if running.len() >= REQUESTS => {
                let text = format!("{REQUESTS} requests of this connection wait for their answers: wait for one first");
                // A client that reads nothing is read no further.
                let _ = outgoing.send(ToClient::Answer(number, Err(Fault::new(FaultKind::NoRoom, text)))).await;
            }
            Ok(ToDaemon::Request(number, request)) => {
                let noted = requests::note(client, &request);
                running.spawn(answer(client.clone(), outgoing.clone(), number, request, noted));
            }
            Err(error) => return error,
        }
        while running.try_join_next().is_some() {}
    }
}

async fn answer(client: Client, outgoing: Outgoing, number: u64, request: Request, noted: Noted) {
    let answer = requests::serve(&client, request, noted).await;
    let _ = outgoing.send(ToClient::Answer(number, answer)).await;
}

fn welcome(node: &Node, credentials: &Credentials, hello: ToDaemon) -> Result<(Arc<Session>, Answer), Fault> {
    let ToDaemon::Request(0, Request::Hello { protocol, session, program }) = hello else {
        return Err(Fault::new(FaultKind::Invalid, "the first message of a connection is a hello"));
    };
    if protocol != PROTOCOL {
        let text =
            format!("the client speaks version {protocol}, this daemon speaks {PROTOCOL}: upgrade the older one");
        return Err(Fault::new(FaultKind::Unsupported, text));
    }
    let session = node.sessions.get(session.as_deref(), &program, credentials.clone())?;
    let answer = Answer::Welcome {
        protocol: PROTOCOL,
        node: node.id,
        node_name: node.name.clone(),
        host: node.host.clone(),
        session: session.token.clone(),
        providers: node.replicas.domains().names(),
        node_lease_ms: u64::try_from(node.lease_time.as_millis()).unwrap_or(u64::MAX),
        rdma: node.rdma.clone(),
        knows_processes: true,
    };
    Ok((session, answer))
}

/// The next message. A request that this daemon does not know is answered with that.
async fn read(from: &mut OwnedReadHalf, outgoing: &Outgoing) -> io::Result<ToDaemon> {
    loop {
        let mut head = [0; 4];
        from.read_exact(&mut head).await?;
        let mut json = vec![0; frame::length::<ToDaemon>(head)?];
        from.read_exact(&mut json).await?;
        let error = match frame::decode(&json) {
            Ok(message) => return Ok(message),
            Err(error) => error,
        };
        let Some(number) = frame::unknown(&json) else { return Err(error) };
        let text = format!("version {} of the daemon does not know it: {error}", env!("CARGO_PKG_VERSION"));
        let _ = outgoing.send(ToClient::Answer(number, Err(Fault::new(FaultKind::Unsupported, text)))).await;
    }
}

async fn write(mut to: OwnedWriteHalf, mut frames: mpsc::Receiver<ToClient>) {
    while let Some(message) = frames.recv().await {
        let Some(bytes) = encode(&message) else { continue };
        if to.write_all(&bytes).await.is_err() {
            return; // The reader notices.
        }
    }
}

/// The frame; an answer that is too long for one is answered by that.
fn encode(message: &ToClient) -> Option<Vec<u8>> {
    let error = match frame::encode(message) {
        Ok(bytes) => return Some(bytes),
        Err(error) => error,
    };
    tracing::error!("a message to a client cannot be sent: {error}");
    let ToClient::Answer(number, _) = message else { return None };
    let fault = Fault::new(FaultKind::Unsupported, format!("the answer does not fit into a message: {error}"));
    frame::encode(&ToClient::Answer(*number, Err(fault))).ok()
}

#[cfg(test)]
mod tests {
    use segstore::control::frame::Message;

    use super::*;

    #[test]
    fn an_answer_that_is_too_long_is_answered() {
        let answer = |bytes| ToClient::Answer(7, Err(Fault::new(FaultKind::Internal, "x".repeat(bytes))));
        let told = |message| {
            let frame = encode(&message).expect("an answer");
            frame::decode::<ToClient>(&frame[4..]).expect("a message")
        };
        let long = answer(2 << 20);
        assert_eq!(told(long.clone()), long);
        let ToClient::Answer(7, Err(fault)) = told(answer(ToClient::LONGEST)) else { panic!("it does not fit") };
        assert!(fault.message.contains("the longest has"), "{}", fault.message.len());
    }
}
