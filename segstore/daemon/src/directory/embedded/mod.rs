//! The embedded directory: one daemon keeps it on its disk and serves the others. Nothing to set up; its host is a single point.
//!
//! One thread owns the file. Whatever has queued up is applied in one transaction, synced once, and answered together.

mod leases;
mod store;
mod worker;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use crossbeam_channel::Sender;
use tokio::sync::oneshot;

use super::{Directory, DirectoryError, Entry, LeaseId, Listing, Revision, Swapped, Value, Watch};
use store::Store;
use worker::{Request, Worker};

/// A directory in a file of this node. Cheap to clone; the file is closed with the last clone.
#[derive(Clone)]
pub struct Embedded {
    requests: Arc<Queue>,
}

struct Queue {
    sender: Option<Sender<Request>>,
    worker: Option<JoinHandle<()>>,
}

impl Drop for Queue {
    fn drop(&mut self) {
        // Without a sender the worker comes to its end.
        self.sender.take();
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

impl Embedded {
    /// Opens the directory in `file`, or makes one.
    ///
    /// # Errors
    /// The file cannot be opened or made, is no directory, is in use, or is of another version.
    pub fn open(file: &Path) -> Result<Self, DirectoryError> {
        let store = Store::open(file)?;
        let (sender, receiver) = crossbeam_channel::unbounded();
        let worker = Worker::new(store, receiver)?;
        let spawned = std::thread::Builder::new().name("directory".to_owned()).spawn(move || worker.run());
        let worker = spawned.map_err(|error| DirectoryError::Refused(format!("no thread for it: {error}")))?;
        Ok(Self { requests: Arc::new(Queue { sender: Some(sender), worker: Some(worker) }) })
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, DirectoryError> {
        let (answer, receiver) = oneshot::channel();
        let gone = || DirectoryError::NoAnswer("its thread has ended".to_owned());
        let sender = self.requests.sender.as_ref().ok_or_else(gone)?;
        sender.send(request(answer)).map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())
    }
}

#[async_trait]
impl Directory for Embedded {
    async fn read(&self, key: &str) -> Result<Option<Entry>, DirectoryError> {
        let key = key.to_owned();
        self.ask(|answer| Request::Read { key, answer }).await?
    }

    async fn list(&self, prefix: &str) -> Result<Listing, DirectoryError> {
        let prefix = prefix.to_owned();
        self.ask(|answer| Request::List { prefix, answer }).await?
    }

    async fn compare_swap(
        &self,
        key: &str,
        expected: Option<Revision>,
        new: Option<Value>,
    ) -> Result<Swapped, DirectoryError> {
        let key = key.to_owned();
        self.ask(|answer| Request::Swap { key, expected, new, answer }).await?
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, DirectoryError> {
        let prefix = prefix.to_owned();
        self.ask(|answer| Request::Watch { prefix, after, answer }).await?
    }

    async fn grant(&self, time: Duration) -> Result<LeaseId, DirectoryError> {
        self.ask(|answer| Request::Grant { time, answer }).await?
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), DirectoryError> {
        self.ask(|answer| Request::KeepAlive { lease, answer }).await?
    }

    async fn end(&self, lease: LeaseId) -> Result<(), DirectoryError> {
        self.ask(|answer| Request::End { lease, answer }).await?
    }
}
