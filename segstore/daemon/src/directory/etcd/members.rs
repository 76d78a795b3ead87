//! etcd's members, of which one is asked, until it fails.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::access::Access;
use super::fault::{Fault, is_outdated};
use crate::directory::DirectoryError;

/// How long a member may take for one answer, and all of them together.
const ANSWER: Duration = Duration::from_secs(2);
const ALL: Duration = Duration::from_secs(5);
/// After so long without a word the next one is asked as well: a lease, of which a quarter has passed then, is confirmed well before only a
/// third of it is left, when programs are ended.
const SILENT: Duration = Duration::from_millis(500);
/// How long one may take to be connected to.
const CONNECT: Duration = Duration::from_secs(1);
/// How often a connection without traffic is tried, which etcd allows no more often, and how long an answer to that may take.
const PING: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(2));

/// Whether a member may be asked what another was asked already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Doing it twice is doing it once.
    Always,
    /// Only if that one was certainly not asked.
    Unsent,
}

#[derive(Clone)]
pub(super) struct Members {
    members: Arc<[Member]>,
    /// Counts those that have failed: it says whose turn it is to be asked first.
    failures: watch::Sender<usize>,
}

struct Member {
    endpoint: String,
    options: ConnectOptions,
    client: OnceCell<Client>,
}

impl Members {
    pub(super) fn new(access: &Access) -> Result<Self, String> {
        let member = |endpoint: &String| {
            let options = options(access, endpoint)?;
            Ok(Member { endpoint: endpoint.clone(), options, client: OnceCell::new() })
        };
        let members = access.endpoints.iter().map(member).collect::<Result<Vec<_>, String>>()?;
        if members.is_empty() {
            return Err("no member of etcd is named".into());
        }
        Ok(Self { members: members.into(), failures: watch::Sender::new(0) })
    }

    /// Changes when the member that is asked has failed: what it still tells may stop at any moment.
    pub(super) fn failed(&self) -> watch::Receiver<usize> {
        self.failures.subscribe()
    }

    /// Asks one member after the other, the one first that answered last. One that is silent may still answer while the next is asked,
    /// where doing it twice does no harm.
    pub(super) async fn ask<T, A: Future<Output = Result<T, etcd_client::Error>> + Send>(
        &self,
        repeat: Repeat,
        call: impl Fn(Client) -> A + Send + Sync,
    ) -> Result<T, DirectoryError> {
        let (end, turn) = (Instant::now() + ALL, *self.failures.borrow());
        let mut others = turn..turn + self.members.len();
        let mut asked = FuturesUnordered::new();
        let (mut problems, mut was_asked) = (Vec::new(), false);
        loop {
            if asked.is_empty() {
                let is_over = was_asked && repeat == Repeat::Unsent || Instant::now() >= end;
                let Some(next) = others.next().filter(|_| !is_over) else { break };
                asked.push(self.ask_one(next, end, &call));
            }
            let may_go_on = repeat == Repeat::Always && !others.is_empty();
            let (which, outcome) = tokio::select! {
                Some(outcome) = asked.next() => outcome,
                () = sleep(SILENT), if may_go_on => {
                    asked.extend(others.next().map(|next| self.ask_one(next, end, &call)));
                    continue;
                }
            };
            let why = match outcome {
                Ok(answer) => {
                    self.leave(turn..which);
                    return Ok(answer);
                }
                Err(Fault::Final(error)) => return Err(error),
                Err(Fault::NotAsked(why)) => why,
                Err(Fault::Unknown(why)) => {
                    was_asked = true;
                    why
                }
            };
            let member = self.member(which);
            problems.push(format!("{}: {why}{}", member.endpoint, member.advice(&why)));
            self.leave(which..which + 1);
        }
        let why = format!("etcd: {}", problems.join("; "));
        Err(if was_asked { DirectoryError::NoAnswer(why) } else { DirectoryError::OutOfReach(why) })
    }

    /// Asks the member whose turn is this one.
    async fn ask_one<T, A: Future<Output = Result<T, etcd_client::Error>> + Send>(
        &self,
        turn: usize,
        end: Instant,
        call: &(impl Fn(Client) -> A + Send + Sync),
    ) -> (usize, Result<T, Fault>) {
        let answer = timeout_at(end.min(Instant::now() + ANSWER), self.member(turn).ask(call)).await;
        (turn, answer.unwrap_or_else(|_| Err(Fault::Unknown("no answer in time".into()))))
    }

    fn member(&self, turn: usize) -> &Member {
        &self.members[turn % self.members.len()]
    }

    /// Those whose turns are these have failed: if it is one of them that is asked first, the next one is from here on.
    fn leave(&self, failed: Range<usize>) {
        self.failures.send_if_modified(|turn| {
            let is_left = failed.contains(turn);
            if is_left {
                *turn = failed.end;
            }
            is_left
        });
    }
}

/// How it sounds when a certificate is not taken: by the alert, or by what comes of writing on before it has been read.
const REFUSALS: [&str; 4] = ["fatal alert", "connection closed", "broken pipe", "reset"];

impl Member {
    /// What to do about an error, where TLS says little.
    fn advice(&self, why: &str) -> &'static str {
        let is_refused = REFUSALS.iter().any(|refusal| why.contains(refusal));
        if !self.endpoint.starts_with("https") {
            return if is_refused { "; does it want https?" } else { "" };
        }
        if why.contains("invalid peer certificate") {
            "; is `etcd_ca_file` the authority of its certificate?"
        } else if is_refused {
            "; does it take this node's certificate (`etcd_cert_file`, `etcd_key_file`)?"
        } else {
            ""
        }
    }

    async fn ask<T, A: Future<Output = Result<T, etcd_client::Error>> + Send>(
        &self,
        call: impl Fn(Client) -> A + Send + Sync,
    ) -> Result<T, Fault> {
        let connect = || Client::connect([self.endpoint.as_str()], Some(self.options.clone()));
        let client = self.client.get_or_try_init(connect).await.map_err(|error| Fault::of(&error).of_introduction())?;
        match call(client.clone()).await {
            // Which the client knows of a token that has expired, and not of one from before users were changed.
            Err(error) if is_outdated(&error) => {
                client.refresh_token().await.map_err(|error| Fault::of(&error).of_introduction())?;
                call(client.clone()).await
            }
            answer => answer,
        }
        .map_err(|error| Fault::of(&error))
    }
}

fn options(access: &Access, endpoint: &str) -> Result<ConnectOptions, String> {
    let mut options = ConnectOptions::new()
        .with_require_leader(true)
        .with_connect_timeout(CONNECT)
        .with_keep_alive(PING.0, PING.1)
        .with_keep_alive_while_idle(true);
    let uri: tonic::transport::Uri = endpoint.parse().map_err(|error| format!("{endpoint:?}: {error}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.port_u16().is_none() {
        return Err(format!("{endpoint:?}: write it as https://192.0.2.1:2379"));
    }
    if uri.scheme_str() == Some("https") {
        let mut tls = TlsOptions::new();
        if let Some(authority) = &access.authority {
            tls = tls.ca_certificate(Certificate::from_pem(authority));
        }
        if let Some((certificate, key)) = &access.identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        options = options.with_tls(tls);
    }
    if let Some((name, password)) = &access.user {
        options = options.with_user(name, password).with_auto_token_refresh(true);
    }
    Ok(options)
}
