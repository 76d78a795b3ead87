//! The directory on etcd: outlives any node. Entries are its keys under a prefix, of which each cluster has its own; revisions and
//! leases are etcd's.
//!
//! Reads are linearizable, changes one transaction each. A lease lasts whole seconds, and at least one and a half election
//! time-outs of etcd: longer than asked, never shorter.

mod access;
mod fault;
mod members;

use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Client, Compare, CompareOp, EventType, GetOptions, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse, WatchOptions,
    WatchResponse, WatchStream,
};
use tokio::sync::mpsc;

use super::{Change, Directory, DirectoryError, Entry, LeaseId, Listing, Revision, Swapped, Value, Watch};
pub use access::Access;
use fault::Fault;
use members::{Members, Repeat};

/// Changes that wait to be taken before the watch breaks off.
const PENDING: usize = 1024;

/// A cluster's entries in an etcd. Cheap to clone.
#[derive(Clone)]
pub struct Etcd {
    members: Members,
    prefix: String,
}

impl Etcd {
    /// What stands in that etcd under names that begin with `prefix`. Nothing is connected to so far.
    ///
    /// # Errors
    /// A member's address, a certificate or a key is none.
    pub fn new(access: &Access, prefix: &str) -> Result<Self, String> {
        Ok(Self { members: Members::new(access)?, prefix: prefix.to_owned() })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn entry(&self, found: &KeyValue) -> Result<Entry, Fault> {
        let lease = u64::try_from(found.lease()).ok().filter(|lease| *lease != 0).map(LeaseId);
        let (value, revision) = (found.value().to_vec(), revision(found.mod_revision()));
        Ok(Entry { key: self.name(found)?, value, revision, lease })
    }

    /// Without the prefix, for which alone was asked.
    fn name(&self, found: &KeyValue) -> Result<String, Fault> {
        let key = found.key_str().ok().and_then(|key| key.strip_prefix(&self.prefix));
        key.map(str::to_owned).ok_or_else(|| Fault::refused("a key that is no name stands under the prefix"))
    }

    fn change(&self, event: &etcd_client::Event) -> Result<Change, Fault> {
        let found = event.kv().ok_or_else(|| Fault::refused("a change of nothing"))?;
        Ok(match event.event_type() {
            EventType::Put => Change::Put(self.entry(found)?),
            EventType::Delete => Change::Deleted { key: self.name(found)?, revision: revision(found.mod_revision()) },
        })
    }

    /// Passes on what a watch tells until either side ends, or the member fails who tells it.
    async fn pass_on(self, first: WatchResponse, mut stream: WatchStream, sender: mpsc::Sender<Change>) {
        let mut failed = self.members.failed();
        let mut response = first;
        loop {
            for event in response.events() {
                let Ok(change) = self.change(event) else { return };
                if sender.send(change).await.is_err() {
                    return;
                }
            }
            if response.canceled() {
                return;
            }
            response = tokio::select! {
                () = sender.closed() => return,
                _ = failed.changed() => return,
                message = stream.message() => match message {
                    Ok(Some(response)) => response,
                    _ => return,
                },
            };
        }
    }
}

#[async_trait]
impl Directory for Etcd {
    async fn read(&self, key: &str) -> Result<Option<Entry>, DirectoryError> {
        let key = self.key(key);
        let ask = |client: Client| {
            let key = key.clone();
            async move { client.kv_client().get(key, None).await }
        };
        let got = self.members.ask(Repeat::Always, ask).await?;
        Ok(got.kvs().first().map(|found| self.entry(found)).transpose()?)
    }

    async fn list(&self, prefix: &str) -> Result<Listing, DirectoryError> {
        let prefix = self.key(prefix);
        let ask = |client: Client| {
            let (prefix, mut client) = (prefix.clone(), client.kv_client().max_decoding_message_size(usize::MAX));
            async move { client.get(prefix, Some(GetOptions::new().with_prefix())).await }
        };
        let got = self.members.ask(Repeat::Always, ask).await?;
        let entries = got.kvs().iter().map(|found| self.entry(found)).collect::<Result<_, _>>()?;
        Ok(Listing { entries, revision: revision(got.header().map_or(0, etcd_client::ResponseHeader::revision)) })
    }

    async fn compare_swap(
        &self,
        key: &str,
        expected: Option<Revision>,
        new: Option<Value>,
    ) -> Result<Swapped, DirectoryError> {
        let key = self.key(key);
        let lease = new.as_ref().and_then(|new| new.lease);
        let unchanged = match expected {
            Some(Revision(revision)) => Compare::mod_revision(key.as_str(), CompareOp::Equal, number(revision)),
            None => Compare::create_revision(key.as_str(), CompareOp::Equal, 0),
        };
        let change = match new {
            Some(Value { bytes, lease }) => {
                let tied = lease.map(|lease| PutOptions::new().with_lease(number(lease.0)));
                TxnOp::put(key.as_str(), bytes, tied)
            }
            None => TxnOp::delete(key.as_str(), None),
        };
        let swap = Txn::new().when([unchanged]).and_then([change]).or_else([TxnOp::get(key.as_str(), None)]);
        let ask = |client: Client| {
            let swap = swap.clone();
            async move { client.kv_client().txn(swap).await }
        };
        let done = self.members.ask(Repeat::Unsent, ask).await.map_err(|error| fault::about(error, lease))?;
        if done.succeeded() {
            return Ok(Swapped::Made(revision(done.header().map_or(0, etcd_client::ResponseHeader::revision))));
        }
        let found = done.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(got) => got.kvs().first().map(|found| self.entry(found)),
            _ => None,
        });
        Ok(Swapped::Conflict(found.transpose()?))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, DirectoryError> {
        let options = WatchOptions::new().with_prefix().with_start_revision(number(after.0 + 1));
        let key = self.key(prefix);
        let ask = |client: Client| {
            let (key, options) = (key.clone(), options.clone());
            async move {
                let mut watch = client.watch_client().max_decoding_message_size(usize::MAX);
                let mut stream = watch.watch(key, Some(options)).await?;
                let first = stream.message().await?;
                Ok((first, stream))
            }
        };
        let (first, stream) = self.members.ask(Repeat::Always, ask).await?;
        let first = first.ok_or_else(|| DirectoryError::NoAnswer("a watch that ends at once".into()))?;
        if first.compact_revision() > 0 {
            return Err(DirectoryError::Forgotten(after));
        }
        if first.canceled() {
            return Err(DirectoryError::NoAnswer(format!("a watch was ended: {}", first.cancel_reason())));
        }
        let (sender, watch) = mpsc::channel(PENDING);
        tokio::spawn(self.clone().pass_on(first, stream, sender));
        Ok(watch)
    }

    async fn grant(&self, time: Duration) -> Result<LeaseId, DirectoryError> {
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        let ask = |client: Client| async move { client.lease_client().grant(number(seconds), None).await };
        // One that nobody knows of ends by itself.
        let granted = self.members.ask(Repeat::Always, ask).await?;
        Ok(LeaseId(granted.id().cast_unsigned()))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), DirectoryError> {
        let ask = |client: Client| async move { client.lease_client().keep_alive(number(lease.0)).await };
        let kept = self.members.ask(Repeat::Always, ask).await;
        kept.map(drop).map_err(|error| fault::about(error, Some(lease)))
    }

    async fn end(&self, lease: LeaseId) -> Result<(), DirectoryError> {
        let ask = |client: Client| async move { client.lease_client().revoke(number(lease.0)).await };
        match self.members.ask(Repeat::Always, ask).await.map_err(|error| fault::about(error, Some(lease))) {
            Ok(_) | Err(DirectoryError::LeaseOver(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// etcd's numbers are signed, and none of those that are meant here is negative.
fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}

fn number(number: u64) -> i64 {
    number.cast_signed()
}
