//! The file: a `redb` database of three tables.
//!
//! | table | key | value |
//! |---|---|---|
//! | `entries` | name | revision, lease (0: none), bytes |
//! | `leases` | lease | its time in milliseconds |
//! | `about` | `version`, `revision` | the format's version, the last revision |

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::directory::{Change, DirectoryError, Entry, LeaseId, Revision, Value};
use crate::identity;

/// The version of the file.
const VERSION: u64 = 1;

type Row = (u64, u64, &'static [u8]);
const ENTRIES: TableDefinition<'_, &str, Row> = TableDefinition::new("entries");
const LEASES: TableDefinition<'_, u64, u64> = TableDefinition::new("leases");
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");

/// The open file.
pub(super) struct Store {
    path: PathBuf,
    database: Option<Database>,
}

/// Changes that are made together or not at all.
pub(super) struct Batch {
    transaction: WriteTransaction,
    revision: u64,
    changes: Vec<Change>,
    is_changed: bool,
}

impl Store {
    pub(super) fn open(path: &Path) -> Result<Self, DirectoryError> {
        let database = Database::create(path).map_err(|error| storage(path, &error))?;
        let store = Self { path: path.to_path_buf(), database: Some(database) };
        store.check_version()?;
        Ok(store)
    }

    fn check_version(&self) -> Result<(), DirectoryError> {
        let mut batch = self.batch()?;
        match batch.about("version")? {
            0 => {
                batch.set_about("version", VERSION)?;
                batch.transaction.open_table(ENTRIES).map_err(refused)?;
                batch.transaction.open_table(LEASES).map_err(refused)?;
                batch.commit().map(drop)
            }
            VERSION => Ok(()),
            other => Err(DirectoryError::Refused(format!(
                "{} is of version {other}, this daemon reads version {VERSION}",
                self.path.display()
            ))),
        }
    }

    fn database(&self) -> Result<&Database, DirectoryError> {
        let closed = || DirectoryError::Refused(format!("{} could not be opened again", self.path.display()));
        self.database.as_ref().ok_or_else(closed)
    }

    /// Closes and opens the file, as after an error of the disk: what stands in it then is what is true.
    pub(super) fn reopen(&mut self) -> Result<(), DirectoryError> {
        self.database = None;
        self.database = Some(Database::create(&self.path).map_err(|error| storage(&self.path, &error))?);
        Ok(())
    }

    pub(super) fn is_open(&self) -> bool {
        self.database.is_some()
    }

    pub(super) fn read(&self, key: &str) -> Result<Option<Entry>, DirectoryError> {
        let transaction = self.database()?.begin_read().map_err(refused)?;
        let table = transaction.open_table(ENTRIES).map_err(refused)?;
        Ok(table.get(key).map_err(refused)?.map(|row| entry(key, row.value())))
    }

    /// Entries by rising name, and the revision.
    pub(super) fn list(&self, prefix: &str) -> Result<(Vec<Entry>, Revision), DirectoryError> {
        let transaction = self.database()?.begin_read().map_err(refused)?;
        let table = transaction.open_table(ENTRIES).map_err(refused)?;
        let mut entries = Vec::new();
        for row in table.range(prefix..).map_err(refused)? {
            let (key, value) = row.map_err(refused)?;
            if !key.value().starts_with(prefix) {
                break;
            }
            entries.push(entry(key.value(), value.value()));
        }
        Ok((entries, revision(&transaction)?))
    }

    pub(super) fn revision(&self) -> Result<Revision, DirectoryError> {
        revision(&self.database()?.begin_read().map_err(refused)?)
    }

    pub(super) fn leases(&self) -> Result<Vec<(LeaseId, Duration)>, DirectoryError> {
        let transaction = self.database()?.begin_read().map_err(refused)?;
        let table = transaction.open_table(LEASES).map_err(refused)?;
        let rows = table.iter().map_err(refused)?;
        rows.map(|row| {
            let (id, time) = row.map_err(refused)?;
            Ok((LeaseId(id.value()), Duration::from_millis(time.value())))
        })
        .collect()
    }

    pub(super) fn batch(&self) -> Result<Batch, DirectoryError> {
        let transaction = self.database()?.begin_write().map_err(refused)?;
        let mut batch = Batch { transaction, revision: 0, changes: Vec::new(), is_changed: false };
        batch.revision = batch.about("revision")?;
        Ok(batch)
    }
}

impl Batch {
    pub(super) fn read(&self, key: &str) -> Result<Option<Entry>, DirectoryError> {
        let table = self.transaction.open_table(ENTRIES).map_err(refused)?;
        Ok(table.get(key).map_err(refused)?.map(|row| entry(key, row.value())))
    }

    pub(super) fn put(&mut self, key: &str, new: Option<Value>) -> Result<Revision, DirectoryError> {
        self.revision += 1;
        self.is_changed = true;
        let revision = Revision(self.revision);
        let mut table = self.transaction.open_table(ENTRIES).map_err(refused)?;
        let change = match new {
            Some(Value { bytes, lease }) => {
                let row = (revision.0, lease.map_or(0, |lease| lease.0), bytes.as_slice());
                table.insert(key, row).map_err(refused)?;
                Change::Put(Entry { key: key.to_owned(), value: bytes, revision, lease })
            }
            None => {
                table.remove(key).map_err(refused)?;
                Change::Deleted { key: key.to_owned(), revision }
            }
        };
        self.changes.push(change);
        Ok(revision)
    }

    pub(super) fn grant(&mut self, time: Duration) -> Result<LeaseId, DirectoryError> {
        self.is_changed = true;
        // Not the next in a row: in a copy of this file, or in another one, that may be another node's.
        let id = identity::random_number().map_err(|error| DirectoryError::Refused(error.to_string()))?;
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.transaction.open_table(LEASES).map_err(refused)?.insert(id, millis).map_err(refused)?;
        Ok(LeaseId(id))
    }

    /// Ends a lease and deletes what is tied to it.
    pub(super) fn end(&mut self, lease: LeaseId) -> Result<(), DirectoryError> {
        self.is_changed = true;
        self.transaction.open_table(LEASES).map_err(refused)?.remove(lease.0).map_err(refused)?;
        for key in self.tied_to(lease)? {
            self.put(&key, None)?;
        }
        Ok(())
    }

    fn tied_to(&self, lease: LeaseId) -> Result<Vec<String>, DirectoryError> {
        let table = self.transaction.open_table(ENTRIES).map_err(refused)?;
        let mut keys = Vec::new();
        for row in table.iter().map_err(refused)? {
            let (key, value) = row.map_err(refused)?;
            if value.value().1 == lease.0 {
                keys.push(key.value().to_owned());
            }
        }
        Ok(keys)
    }

    /// The revision without this.
    pub(super) fn before(&self) -> Revision {
        Revision(self.revision - self.changes.len() as u64)
    }

    /// Makes everything durable; gives the changes, in order.
    pub(super) fn commit(mut self) -> Result<Vec<Change>, DirectoryError> {
        if !self.is_changed {
            return Ok(Vec::new());
        }
        self.set_about("revision", self.revision)?;
        self.transaction.commit().map_err(refused)?;
        Ok(self.changes)
    }

    fn about(&self, name: &str) -> Result<u64, DirectoryError> {
        let table = self.transaction.open_table(ABOUT).map_err(refused)?;
        Ok(table.get(name).map_err(refused)?.map_or(0, |row| row.value()))
    }

    fn set_about(&mut self, name: &str, value: u64) -> Result<(), DirectoryError> {
        self.is_changed = true;
        self.transaction.open_table(ABOUT).map_err(refused)?.insert(name, value).map_err(refused)?;
        Ok(())
    }
}

fn revision(transaction: &ReadTransaction) -> Result<Revision, DirectoryError> {
    let about = transaction.open_table(ABOUT).map_err(refused)?;
    Ok(Revision(about.get("revision").map_err(refused)?.map_or(0, |row| row.value())))
}

fn entry(key: &str, (revision, lease, value): (u64, u64, &[u8])) -> Entry {
    let lease = (lease != 0).then_some(LeaseId(lease));
    Entry { key: key.to_owned(), value: value.to_vec(), revision: Revision(revision), lease }
}

#[allow(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn refused(error: impl Into<redb::Error>) -> DirectoryError {
    match error.into() {
        redb::Error::Io(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            DirectoryError::Full(error.to_string())
        }
        error => DirectoryError::Refused(error.to_string()),
    }
}

fn storage(path: &Path, error: &redb::DatabaseError) -> DirectoryError {
    DirectoryError::Refused(format!("opening {}: {error}", path.display()))
}
