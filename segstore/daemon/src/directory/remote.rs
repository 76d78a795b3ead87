//! The directory that another daemon keeps.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::wire::{Answer, Question, WatchFrom, Watched};
use super::{Directory, DirectoryError, Entry, LeaseId, Listing, Revision, Swapped, Value, Watch};
use crate::peers::rpc::directory_client::DirectoryClient;
use crate::peers::{Channels, describe, was_not_sent};

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Changes that wait to be taken before the watch breaks off.
const PENDING: usize = 1024;

/// A directory behind another daemon. Cheap to clone.
#[derive(Clone)]
pub struct Remote {
    address: String,
    channel: Channel,
}

impl Remote {
    /// The directory of the daemon at `address`.
    ///
    /// # Errors
    /// It is no address.
    pub fn new(channels: &Channels, address: &str) -> Result<Self, String> {
        Ok(Self { address: address.to_owned(), channel: channels.to(address)? })
    }

    fn client(&self) -> DirectoryClient<Channel> {
        DirectoryClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    async fn ask(&self, question: Question) -> Result<Answer, DirectoryError> {
        let mut request = Request::new(question);
        request.set_timeout(ANSWER);
        match self.client().ask(request).await {
            Ok(response) => response.into_inner().0,
            Err(status) => Err(self.failed(&status)),
        }
    }

    fn failed(&self, status: &Status) -> DirectoryError {
        if was_not_sent(status) {
            return DirectoryError::OutOfReach(describe(status));
        }
        DirectoryError::NoAnswer(format!("the daemon at {} that keeps it: {}", self.address, describe(status)))
    }

    fn unexpected(&self, answer: &Answer) -> DirectoryError {
        DirectoryError::NoAnswer(format!("the daemon at {} answered something else: {answer:?}", self.address))
    }
}

#[async_trait]
impl Directory for Remote {
    async fn read(&self, key: &str) -> Result<Option<Entry>, DirectoryError> {
        match self.ask(Question::Read(key.to_owned())).await? {
            Answer::Entry(entry) => Ok(entry),
            other => Err(self.unexpected(&other)),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Listing, DirectoryError> {
        match self.ask(Question::List(prefix.to_owned())).await? {
            Answer::Listing(listing) => Ok(listing),
            other => Err(self.unexpected(&other)),
        }
    }

    async fn compare_swap(
        &self,
        key: &str,
        expected: Option<Revision>,
        new: Option<Value>,
    ) -> Result<Swapped, DirectoryError> {
        match self.ask(Question::Swap { key: key.to_owned(), expected, new }).await? {
            Answer::Swapped(swapped) => Ok(swapped),
            other => Err(self.unexpected(&other)),
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, DirectoryError> {
        let request = Request::new(WatchFrom { prefix: prefix.to_owned(), after });
        let response = self.client().watch(request).await.map_err(|status| self.failed(&status))?;
        let mut stream = response.into_inner();
        match stream.message().await.map_err(|status| self.failed(&status))? {
            Some(Watched::Begun) => {}
            Some(Watched::Failed(error)) => return Err(error),
            other => return Err(DirectoryError::NoAnswer(format!("a watch that begins with {other:?}"))),
        }
        let (sender, watch) = mpsc::channel(PENDING);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = sender.closed() => return,
                    // A watch that ends tells by that to list again.
                    message = stream.message() => match message {
                        Ok(Some(Watched::Changed(change))) => {
                            if sender.send(change).await.is_err() {
                                return;
                            }
                        }
                        _ => return,
                    }
                }
            }
        });
        Ok(watch)
    }

    async fn grant(&self, time: Duration) -> Result<LeaseId, DirectoryError> {
        match self.ask(Question::Grant(time)).await? {
            Answer::Granted(lease) => Ok(lease),
            other => Err(self.unexpected(&other)),
        }
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), DirectoryError> {
        self.ask(Question::KeepAlive(lease)).await.map(drop)
    }

    async fn end(&self, lease: LeaseId) -> Result<(), DirectoryError> {
        self.ask(Question::End(lease)).await.map(drop)
    }
}
