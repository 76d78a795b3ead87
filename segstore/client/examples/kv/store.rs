//! The database. Whatever has queued up is one transaction, and one commit.

use std::sync::mpsc::{Receiver, Sender};

use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition};
use redis_protocol::resp2::types::OwnedFrame as Frame;
use segstore::redb::Backend;

use crate::command::Command;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("kv");
/// The most batches in one transaction.
const GROUP: usize = 1024;

type Failure = Box<dyn std::error::Error>;

/// The commands that a client has sent at once, and where the answers go.
pub(crate) struct Batch {
    pub(crate) commands: Vec<Command>,
    pub(crate) answers: Sender<Vec<Frame>>,
}

/// The database in a segment.
pub(crate) struct Store {
    database: Database,
    backend: Backend,
}

impl Store {
    pub(crate) fn open(backend: Backend) -> Result<Self, Failure> {
        // The segment is in memory: a large cache would hold it twice.
        let database = Database::builder().set_cache_size(32 << 20).create_with_backend(backend.clone())?;
        let store = Self { database, backend };
        let write = store.database.begin_write()?;
        write.open_table(TABLE)?;
        write.commit()?;
        Ok(store)
    }

    /// What people want to know.
    pub(crate) fn about(&self) -> String {
        let segment = self.backend.segment();
        format!("segment {} at epoch {} of term {}", segment.name(), segment.epoch(), segment.term())
    }

    /// Serves batches until a commit fails: what was not committed is not answered.
    pub(crate) fn serve(&self, batches: &Receiver<Batch>) -> Result<(), Failure> {
        while let Ok(first) = batches.recv() {
            let mut group = vec![first];
            group.extend(batches.try_iter().take(GROUP - 1));
            let answers = if group.iter().flat_map(|batch| &batch.commands).any(Command::writes) {
                let mut write = self.database.begin_write()?;
                // Opening after a crash is then instant, at the price of a second checkpoint for each commit.
                write.set_quick_repair(true);
                let answers = {
                    let mut table = write.open_table(TABLE)?;
                    self.answers(&group, |command| apply(command, &mut table, &self.about()))?
                };
                write.commit().map_err(cause)?;
                answers
            } else {
                let table = self.database.begin_read()?.open_table(TABLE)?;
                self.answers(&group, |command| look(command, &table, &self.about()))?
            };
            for (batch, answers) in group.iter().zip(answers) {
                let _ = batch.answers.send(answers); // The client may have gone.
            }
        }
        Ok(())
    }

    fn answers(
        &self,
        group: &[Batch],
        mut answer: impl FnMut(&Command) -> Result<Frame, Failure>,
    ) -> Result<Vec<Vec<Frame>>, Failure> {
        group.iter().map(|batch| batch.commands.iter().map(&mut answer).collect()).collect()
    }
}

/// What the segment said, under what the database made of it.
fn cause(error: redb::CommitError) -> Failure {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(found) = source {
        if let Some(found) = found.downcast_ref::<segstore::Error>() {
            return Box::new(found.clone());
        }
        let inner = found.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| inner.downcast_ref::<segstore::Error>()) {
            return Box::new(found.clone());
        }
        source = found.source();
    }
    Box::new(error)
}

fn ok() -> Frame {
    Frame::SimpleString(b"OK".to_vec())
}

fn count(n: u64) -> Frame {
    Frame::Integer(i64::try_from(n).unwrap_or(i64::MAX))
}

fn apply(command: &Command, table: &mut Table<'_, &[u8], &[u8]>, about: &str) -> Result<Frame, Failure> {
    Ok(match command {
        Command::Set { key, value, only_if } => {
            if only_if.is_some_and(|exists| exists != table.get(key.as_slice()).is_ok_and(|found| found.is_some())) {
                return Ok(Frame::Null);
            }
            table.insert(key.as_slice(), value.as_slice())?;
            ok()
        }
        Command::SetMany(pairs) => {
            for (key, value) in pairs {
                table.insert(key.as_slice(), value.as_slice())?;
            }
            ok()
        }
        Command::Delete(keys) => {
            let mut deleted = 0;
            for key in keys {
                deleted += u64::from(table.remove(key.as_slice())?.is_some());
            }
            count(deleted)
        }
        Command::Add(key, n) => {
            let old = table.get(key.as_slice())?.map(|value| value.value().to_vec());
            let old = old.map_or(Some(0), |old| std::str::from_utf8(&old).ok()?.parse::<i64>().ok());
            match old.and_then(|old| old.checked_add(*n)) {
                Some(new) => {
                    table.insert(key.as_slice(), new.to_string().as_bytes())?;
                    Frame::Integer(new)
                }
                None => Frame::Error("ERR value is not an integer or out of range".into()),
            }
        }
        Command::Clear => {
            table.retain(|_, _| false)?;
            ok()
        }
        other => look(other, table, about)?,
    })
}

fn look(
    command: &Command,
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    about: &str,
) -> Result<Frame, Failure> {
    let get = |key: &Vec<u8>| -> Result<Frame, Failure> {
        let found = table.get(key.as_slice())?;
        Ok(found.map_or(Frame::Null, |value| Frame::BulkString(value.value().to_vec())))
    };
    Ok(match command {
        Command::Get(key) => get(key)?,
        Command::GetMany(keys) => Frame::Array(keys.iter().map(get).collect::<Result<_, _>>()?),
        Command::Exists(keys) => {
            let mut there = 0;
            for key in keys {
                there += u64::from(table.get(key.as_slice())?.is_some());
            }
            count(there)
        }
        Command::Size => count(table.len()?),
        Command::Scan { after, most, pattern } => {
            let from = after.as_deref().unwrap_or_default();
            let mut keys = Vec::new();
            let mut last = None;
            for entry in table.range(from..)? {
                let key = entry?.0.value().to_vec();
                if after.as_ref() == Some(&key) {
                    continue;
                }
                if keys.len() == *most {
                    last = keys.last().cloned();
                    break;
                }
                keys.push(key);
            }
            let next = last.map_or_else(|| b"0".to_vec(), |last| crate::command::cursor(&last));
            let keys = keys.into_iter().filter(|key| crate::command::matches(pattern, key));
            Frame::Array(vec![Frame::BulkString(next), Frame::Array(keys.map(Frame::BulkString).collect())])
        }
        Command::Keys(pattern) => {
            let mut keys = Vec::new();
            for entry in table.iter()? {
                let key = entry?.0.value().to_vec();
                if crate::command::matches(pattern, &key) {
                    keys.push(Frame::BulkString(key));
                }
            }
            Frame::Array(keys)
        }
        Command::Info => Frame::BulkString(format!("# segstore\r\n{about}\r\nkeys:{}\r\n", table.len()?).into_bytes()),
        Command::Say(frame) => frame.clone(),
        write => Frame::Error(format!("ERR {write:?} is a write")),
    })
}
