//! The embedded database [`::redb`] on a segment: its file is the segment's state, and its sync is a checkpoint.
//!
//! A transaction that is committed durably is in the memory of other nodes when `commit` returns. After the owner's death the
//! next one finds the database exactly as it was at some sync, whole: there is no torn page and no missing write to look for. `redb`
//! does not know that, and checks everything when it finds that the database was not closed, unless the last commit was made with
//! [`set_quick_repair`](::redb::WriteTransaction::set_quick_repair). With it a commit is two checkpoints instead of one, and opening is
//! nearly nothing beside loading the segment; without it opening also reads the whole database once. After the owner was
//! killed, with rows of 1000 bytes, over shared memory on two cores (the example `reopen` prints the table anywhere):
//!
//! | data | a commit of one row, quick / as usual | segment loaded | database open, quick / as usual |
//! |---|---|---|---|
//! | 10 MB | 79 / 33 us | 11 to 24 ms | 1.0 / 5.6 ms |
//! | 100 MB | 81 / 35 us | 61 to 360 ms | 1.8 / 54 ms |
//! | 1 GB | 159 / 37 us | 450 to 570 ms | 2.7 / 450 ms |
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use segstore::{CreateOptions, OpenOptions, Session, redb::Backend};
//!
//! let session = Session::connect()?;
//! let segment = session.open_or_create("users", &CreateOptions::new(1 << 30), &OpenOptions::new())?;
//! let backend = Backend::new(segment);
//! let database = redb::Database::builder().set_cache_size(16 << 20).create_with_backend(backend)?;
//! # Ok(()) }
//! ```
//!
//! The segment is in memory already, so the database's own cache need not be large.

use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ::redb::StorageBackend;

use crate::error::Error;
use crate::segment::Segment;

/// A segment as the storage of a database. Clones share it.
#[derive(Clone, Debug)]
pub struct Backend {
    segment: Arc<RwLock<Segment>>,
}

impl Backend {
    /// The database in this segment; an empty segment becomes a new one.
    #[must_use]
    pub fn new(segment: Segment) -> Self {
        Self { segment: Arc::new(RwLock::new(segment)) }
    }

    /// The segment, to look at. While it is looked at, nothing is written.
    pub fn segment(&self) -> RwLockReadGuard<'_, Segment> {
        self.segment.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Segment> {
        self.segment.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `redb` hands on to its callers: the cause is found by `source`.
fn failed(error: Error) -> io::Error {
    let kind = match &error {
        Error::Pending { .. } => io::ErrorKind::TimedOut,
        Error::Fenced { .. } => io::ErrorKind::PermissionDenied,
        Error::Invalid(_) => io::ErrorKind::StorageFull,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

fn place(offset: u64, length: usize) -> std::ops::Range<usize> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    start..start.saturating_add(length)
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.segment().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let segment = self.segment();
        let range = place(offset, out.len());
        let bytes = segment.bytes().get(range.clone()).ok_or_else(|| {
            let text = format!("bytes {range:?} are beyond the {} bytes of segment {}", segment.len(), segment.name());
            io::Error::new(io::ErrorKind::UnexpectedEof, text)
        })?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change().set_len(usize::try_from(length).unwrap_or(usize::MAX)).map_err(failed)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change().checkpoint().map(drop).map_err(failed)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change().write(usize::try_from(offset).unwrap_or(usize::MAX), data).map_err(failed)
    }
}
