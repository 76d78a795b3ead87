//! A replica's two files: `.head`, which only this daemon touches, and `.slots`, which peers write.
//!
//! Together they are a replica as the format draws it, cut where slot 0 begins. The daemon reads and writes both by system calls,
//! never through a mapping: a file that somebody cut short is an error then, not the end of the process.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::fstatvfs;
use segstore_core::id::{Incarnation, SegmentId, Stamp};
use segstore_core::layout::geometry::SLOT_HEAD;
use segstore_core::layout::{Entry, Geometry, Key, Mark, Ownership, ReplicaHead, SlotHeader, header, replica_head};
use segstore_transport::Witness;

use super::error::ReplicaError;

/// The end of a head file's name.
pub(super) const HEAD: &str = "head";
/// The end of a head file's name while it is written.
pub(super) const NEW_HEAD: &str = "new-head";
/// How the end of a slots file's name begins while the transport copies it.
pub(super) const MOVING: &str = "moving-";
/// The end of a slots file's name.
pub(super) const SLOTS: &str = "slots";

/// The open files of one replica.
pub(super) struct Files {
    directory: PathBuf,
    stem: String,
    geometry: Geometry,
    head: File,
    slots: File,
}

/// Bytes of the slots file.
pub(super) fn slots_bytes(geometry: &Geometry) -> u64 {
    geometry.replica_bytes() - geometry.slot(0)
}

fn stem(segment: SegmentId, incarnation: Incarnation) -> String {
    format!("{segment}-{incarnation}")
}

impl Files {
    /// Makes the files of a fresh replica. The head comes last, whole: without it nothing of them counts.
    pub(super) fn create(directory: &Path, head: &ReplicaHead) -> Result<Self, ReplicaError> {
        let (geometry, stem) = (head.geometry, stem(head.segment, head.incarnation));
        let slots_path = directory.join(format!("{stem}.{SLOTS}"));
        let slots = create(&slots_path)?;
        let made = reserve(&slots, directory, slots_bytes(&geometry)).and_then(|()| create_head(directory, head));
        match made {
            Ok(file) => Ok(Self { directory: directory.to_owned(), stem, geometry, head: file, slots }),
            Err(error) => {
                let _ = std::fs::remove_file(slots_path);
                Err(error)
            }
        }
    }

    /// The same slots, blank, under the name of a fresh replica, whose head comes last, as for any. Without its head nothing counts of the
    /// one they were of, from before they are changed.
    pub(super) fn hand_over(&self, to: &ReplicaHead) -> Result<Self, ReplicaError> {
        let slots = self.slots.try_clone().map_err(|error| self.system("opening", error))?;
        remove(self.head_path())?;
        (0..self.geometry.slots()).try_for_each(|slot| self.write(slot, 0, &[0; SLOT_HEAD]))?;
        let (directory, stem) = (self.directory.clone(), stem(to.segment, to.incarnation));
        let slots_path = directory.join(format!("{stem}.{SLOTS}"));
        std::fs::rename(self.slots_path(), &slots_path).map_err(|error| self.system("renaming", error))?;
        let head = create_head(&directory, to).inspect_err(|_| drop(std::fs::remove_file(slots_path)))?;
        Ok(Self { directory, stem, geometry: self.geometry, head, slots })
    }

    /// Opens the files of a replica that a former life of this daemon made.
    pub(super) fn open(head_path: &Path) -> Result<(Self, ReplicaHead), ReplicaError> {
        let directory = head_path.parent().unwrap_or(Path::new(".")).to_owned();
        let stem = head_path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let head = open(head_path)?;
        let bytes = read_head(&head, head_path)?;
        let decoded = ReplicaHead::decode(&bytes);
        let decoded = decoded.map_err(|why| ReplicaError::Head { file: head_path.to_owned(), why })?;
        let slots = open(&directory.join(format!("{stem}.{SLOTS}")))?;
        let files = Self { directory, stem, geometry: decoded.geometry, head, slots };
        files.check_length()?;
        Ok((files, decoded))
    }

    /// Bytes of the slots file.
    pub(super) fn slots_length(&self) -> usize {
        usize::try_from(slots_bytes(&self.geometry)).unwrap_or(usize::MAX)
    }

    /// Where the slots are.
    pub(super) fn slots_path(&self) -> PathBuf {
        self.directory.join(format!("{}.{SLOTS}", self.stem))
    }

    fn head_path(&self) -> PathBuf {
        self.directory.join(format!("{}.{HEAD}", self.stem))
    }

    /// The slots stand in this file from now on: peers that wrote the other are kept out.
    pub(super) fn moved(&mut self, slots: File) {
        self.slots = slots;
    }

    /// Whether both files are as long as they should be.
    pub(super) fn check(&self) -> Result<(), ReplicaError> {
        read_head(&self.head, &self.head_path())?;
        self.check_length()
    }

    /// Whether the slots file is as long as it should be.
    pub(super) fn check_length(&self) -> Result<(), ReplicaError> {
        let should = slots_bytes(&self.geometry);
        let about = self.slots.metadata();
        let is = about.map_err(|error| self.system("looking at", error))?.len();
        if is < should {
            return Err(ReplicaError::CutShort { file: self.slots_path(), is, should });
        }
        Ok(())
    }

    /// Stores the highest term seen: two stores, one after the other.
    pub(super) fn remember(&self, segment: SegmentId, ownership: Ownership) -> Result<(), ReplicaError> {
        let head = read_head(&self.head, &self.head_path())?;
        for (at, line) in ReplicaHead::store(segment, &head, ownership) {
            let store = self.head.write_all_at(&line, at as u64);
            store.map_err(|error| ReplicaError::System { doing: "writing", file: self.head_path(), error })?;
        }
        Ok(())
    }

    /// The first bytes of every slot.
    pub(super) fn slot_heads(&self) -> Result<Vec<[u8; SLOT_HEAD]>, ReplicaError> {
        self.check_length()?;
        (0..self.geometry.slots())
            .map(|slot| {
                let mut head = [0; SLOT_HEAD];
                self.read(slot, 0, &mut head)?;
                Ok(head)
            })
            .collect()
    }

    /// Reads from a slot.
    pub(super) fn read(&self, slot: u32, at: u64, bytes: &mut [u8]) -> Result<(), ReplicaError> {
        self.slots.read_exact_at(bytes, self.place(slot, at)).map_err(|error| self.system("reading", error))
    }

    /// Writes to a slot.
    pub(super) fn write(&self, slot: u32, at: u64, bytes: &[u8]) -> Result<(), ReplicaError> {
        self.slots.write_all_at(bytes, self.place(slot, at)).map_err(|error| self.system("writing", error))
    }

    /// The block table of the image that `header` says stands in a slot.
    pub(super) fn table(&self, slot: u32, header: &SlotHeader) -> Result<Vec<Entry>, ReplicaError> {
        let mut raw = vec![0; self.geometry.blocks_of(header.length) as usize * size_of::<Entry>()];
        self.read(slot, self.geometry.entry_in_slot(0), &mut raw)?;
        Ok(Entry::rows(&raw).to_vec())
    }

    /// Closes a slot on an image whose table and blocks stand.
    pub(super) fn close_slot(&self, slot: u32, image: &SlotHeader) -> Result<(), ReplicaError> {
        let key = Key::of(image.segment);
        self.write(slot, header::OFFSET as u64, image.encode(key).as_slice())?;
        self.write(slot, 0, &Mark { image: image.image, former: None, is_closed: true }.encode(key))
    }

    /// The slots' marks, which a push changes before anything else of its slot. A slot that was written while it was moved to other
    /// memory is as one that a push was cut off in: nothing is said of what stood there before.
    pub(super) fn witnesses(&self, segment: SegmentId) -> Vec<Witness> {
        let torn = Mark { image: Stamp::EMPTY, former: None, is_closed: false }.encode(Key::of(segment));
        let offset = |slot| usize::try_from(self.place(slot, 0)).unwrap_or(usize::MAX);
        (0..self.geometry.slots()).map(|slot| Witness { offset: offset(slot), torn: torn.to_vec() }).collect()
    }

    fn place(&self, slot: u32, at: u64) -> u64 {
        self.geometry.slot(slot) - self.geometry.slot(0) + at
    }

    fn system(&self, doing: &'static str, error: io::Error) -> ReplicaError {
        ReplicaError::System { doing, file: self.slots_path(), error }
    }

    /// Takes the files' names away. The memory goes when nobody maps it any more.
    pub(super) fn remove(&self) -> Result<(), ReplicaError> {
        // The head first: without it nothing of the rest counts.
        [self.head_path(), self.slots_path()].into_iter().try_for_each(remove)
    }
}

/// What is not there need not be removed.
fn remove(file: PathBuf) -> Result<(), ReplicaError> {
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ReplicaError::System { doing: "removing", file, error })
        }
        _ => Ok(()),
    }
}

/// Under its name it is whole, or not there.
fn create_head(directory: &Path, head: &ReplicaHead) -> Result<File, ReplicaError> {
    let path = directory.join(format!("{}.{HEAD}", stem(head.segment, head.incarnation)));
    let beside = path.with_extension(NEW_HEAD);
    let file = create(&beside)?;
    let write = file.write_all_at(&head.encode(), 0).and_then(|()| std::fs::rename(&beside, path));
    write.map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        ReplicaError::System { doing: "writing", file: beside, error }
    })?;
    Ok(file)
}

fn create(path: &Path) -> Result<File, ReplicaError> {
    let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|error| ReplicaError::System { doing: "making", file: path.to_owned(), error })
}

fn open(path: &Path) -> Result<File, ReplicaError> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.map_err(|error| ReplicaError::System { doing: "opening", file: path.to_owned(), error })
}

fn read_head(file: &File, path: &Path) -> Result<[u8; replica_head::BYTES], ReplicaError> {
    let mut bytes = [0; replica_head::BYTES];
    let path = path.to_owned();
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let is = file.metadata().map_or(0, |about| about.len());
            Err(ReplicaError::CutShort { file: path, is, should: replica_head::BYTES as u64 })
        }
        Err(error) => Err(ReplicaError::System { doing: "reading", file: path, error }),
    }
}

/// Takes the memory now: later it would be missing in the middle of a push.
fn reserve(file: &File, directory: &Path, bytes: u64) -> Result<(), ReplicaError> {
    let length = i64::try_from(bytes).unwrap_or(i64::MAX);
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        Ok(()) => Ok(()),
        Err(nix::errno::Errno::ENOSPC) => {
            let free = fstatvfs(file).map_or(0, |about| about.blocks_available() * about.fragment_size());
            Err(ReplicaError::NoSpace { asked: bytes, free, directory: directory.to_owned() })
        }
        Err(error) => {
            Err(ReplicaError::System { doing: "reserving memory in", file: directory.to_owned(), error: error.into() })
        }
    }
}
