//! A directory of the domain's own: what a target that is started again has to know of the peers of its former life.
//!
//! A peer maps its control page and the granted memory, and goes on when the target's process is gone: it notices that
//! in its own time. So each peer's control page is a file here, and beside it stands a record of who may write what. Whoever
//! opens the directory next raises every fence word that it finds (from then on no write of the former life completes)
//! and moves each recorded file to fresh backing when it is registered, unless its writers are proven dead (so that
//! bytes which were under way land nowhere). Files of another boot of the kernel are of nobody who lives.

use std::fs::File;
use std::io::{ErrorKind as Io, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::control::{self, Control};
use super::fence;
use super::record::{FileId, Record};
use crate::memory::Memory;
use crate::random::random;
use crate::{Error, ErrorKind, Result};

const LOCK: &str = "lock";
const PAGE: &str = "page";
const RECORD: &str = "record";
/// What a socket's name starts with.
pub(super) const SOCKET: &str = "segstore-shm-";

pub(super) struct Directory {
    path: PathBuf,
    /// What names of this boot start with.
    prefix: String,
    /// Peers of a former life that were not proven dead.
    suspects: Mutex<Vec<Suspect>>,
    /// Locked while this domain lives.
    _lock: File,
}

struct Suspect {
    path: PathBuf,
    record: Record,
}

impl Directory {
    /// Makes the directory if need be, locks it, and ends the former life's peers.
    pub(super) fn open(path: &Path, boot: &[u8; 16]) -> Result<Directory> {
        let saying = |error| Error::system(&format!("opening the domain's directory {}", path.display()), error);
        std::fs::create_dir_all(path).map_err(saying)?;
        let lock = lock(path)?;
        let prefix = format!("peer-{:032x}-", u128::from_be_bytes(*boot));
        let mut suspects = Vec::new();
        for entry in std::fs::read_dir(path).map_err(saying)? {
            let path = entry.map_err(saying)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let kind = path.extension().unwrap_or_default();
            if !name.starts_with("peer-") && !name.starts_with(SOCKET) {
                continue;
            }
            if name.starts_with(&prefix) && kind == PAGE {
                end(&path)?;
            }
            if name.starts_with(&prefix) && kind == RECORD {
                let record = read(&path)?;
                if !record.files.is_empty() && !record.is_dead() {
                    suspects.push(Suspect { path, record });
                    continue;
                }
            }
            std::fs::remove_file(&path).map_err(|error| Error::system(&format!("removing {name}"), error))?;
        }
        Ok(Directory { path: path.to_path_buf(), prefix, suspects: Mutex::new(suspects), _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A control page that a later life finds.
    pub(super) fn page(&self) -> Result<(Memory, Files)> {
        let stem = self.path.join(format!("{}{:032x}", self.prefix, u128::from_ne_bytes(random()?)));
        let files = Files { page: stem.with_extension(PAGE), record: stem.with_extension(RECORD) };
        Ok((Memory::named(&files.page, control::LEN)?, files))
    }

    /// Moves memory that a peer of a former life may still write to fresh backing. Its fence word was raised by `open`,
    /// so what it completed is in the copy, and what it stores from here on lands in a file that nobody else maps.
    pub(super) fn part_from_former_peers(&self, memory: &Memory) -> Result<()> {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        if suspects.is_empty() {
            return Ok(());
        }
        let (fd, generation) = memory.mapping().present()?;
        let file = FileId::of(&fd)?;
        let writer = suspects.iter().find(|suspect| suspect.may_write(&file));
        if let Some(writer) = writer {
            memory.mapping().leave(generation, None).map_err(|error| writer.in_the_way(&error))?;
        }
        for suspect in suspects.iter_mut() {
            suspect.acquit_of(&file)?;
        }
        suspects.retain(|suspect| !suspect.record.files.is_empty());
        Ok(())
    }
}

impl Suspect {
    fn may_write(&self, file: &FileId) -> bool {
        self.record.files.contains(file) && !self.record.is_dead()
    }

    /// The file is in use no more, or this peer is dead: a later life need not know. A crash in between costs a copy.
    fn acquit_of(&mut self, file: &FileId) -> Result<()> {
        let before = self.record.files.len();
        self.record.files.retain(|other| other != file);
        match (self.record.files.len(), before) {
            (now, before) if now == before => Ok(()),
            (0, _) => {
                std::fs::remove_file(&self.path).map_err(|error| Error::system("removing a peer's record", error))
            }
            _ => write(&self.path, &self.record),
        }
    }

    fn in_the_way(&self, error: &Error) -> Error {
        let who = match &self.record.process {
            Some(process) => format!("process {}", process.number),
            None => "a process that is not known".to_owned(),
        };
        let text = format!(
            "{who} was admitted to this memory before this target was started again, may still write it, and: {error}"
        );
        Error::operation(error.kind(), text).with_code(error.code())
    }
}

/// The files of one peer.
pub(super) struct Files {
    page: PathBuf,
    record: PathBuf,
}

impl Files {
    /// Before the peer gets descriptors.
    pub(super) fn remember(&self, record: &Record) -> Result<()> {
        write(&self.record, record)
    }

    /// Nothing of this peer lands any more. What cannot be removed costs a later life a copy.
    pub(super) fn forget(&self) {
        let _ = std::fs::remove_file(&self.record);
        let _ = std::fs::remove_file(&self.page);
    }
}

fn lock(directory: &Path) -> Result<File> {
    let path = directory.join(LOCK);
    let saying = |error| Error::system(&format!("locking {}", path.display()), error);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(saying)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::invalid(format!(
            "another living domain uses the directory {}: give each its own, or end the other first",
            directory.display()
        ))),
        Err(std::fs::TryLockError::Error(error)) => Err(saying(error)),
    }
}

/// Raises the fence word of a page that somebody may still map.
fn end(page: &Path) -> Result<()> {
    let saying = |error| Error::system(&format!("opening the control page {}", page.display()), error);
    // A process that died while it made the page, or a peer that cut it off, left it short.
    let file = File::options().write(true).open(page).map_err(saying)?;
    file.set_len(control::LEN as u64).map_err(saying)?;
    let control = Control::new(Memory::named(page, control::LEN)?)?;
    fence::raise(control.fence(), fence::RESTARTED);
    Ok(())
}

fn read(path: &Path) -> Result<Record> {
    let text = std::fs::read(path).map_err(|error| Error::system(&format!("reading {}", path.display()), error))?;
    str::from_utf8(&text).ok().and_then(Record::parse).ok_or_else(|| {
        let text = format!(
            "{} is not a record of version 1, so it is not known which memory its process may write: upgrade, or end \
             every process that was connected to this target and remove it",
            path.display()
        );
        Error::operation(ErrorKind::Incompatible, text)
    })
}

/// Whole or not at all.
fn write(path: &Path, record: &Record) -> Result<()> {
    let saying = |error| Error::system(&format!("writing {}", path.display()), error);
    let beside = path.with_added_extension("new");
    if let Err(error) = std::fs::remove_file(&beside)
        && error.kind() != Io::NotFound
    {
        return Err(saying(error));
    }
    let mut file = File::create_new(&beside).map_err(saying)?;
    file.write_all(record.encode().as_bytes()).map_err(saying)?;
    std::fs::rename(&beside, path).map_err(saying)
}
