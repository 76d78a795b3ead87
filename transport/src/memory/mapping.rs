//! One mapping and the file behind it.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind as Io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::backing::Backing;
use super::loss::{Watch, page};
use crate::{Error, ErrorKind, Result};

/// A mapped range and what stands behind it.
pub(crate) struct Mapping {
    // Field order is drop order: what is watched is mapped.
    watch: Watch,
    map: MmapRaw,
    len: usize,
    writable: bool,
    pub(super) name: Name,
    pub(super) backing: Mutex<Backing>,
}

/// How others find the file behind a mapping: what fresh backing has to respect.
pub(super) enum Name {
    /// Nobody does, unless this process gives them a descriptor.
    None,
    /// By this path: a new file can take it over.
    Path(PathBuf),
    /// In ways unknown here: it cannot be replaced.
    Unknown,
    /// It is not shared at all.
    Private,
}

impl Mapping {
    pub(super) fn anonymous(len: usize) -> Result<Mapping> {
        let fd = memfd(len)?;
        let map = map(&MmapOptions::new(), &fd, 0, len)?;
        Ok(Mapping::new(map, (fd, 0), len, true, Name::None))
    }

    pub(super) fn named(path: &Path, len: usize) -> Result<Mapping> {
        let file = match create(path, len) {
            Err(error) if error.kind() == Io::AlreadyExists => open(path, len)?,
            made => made.map_err(|error| Error::system(&format!("creating {}", path.display()), error))?,
        };
        let fd = OwnedFd::from(file);
        let map = map(&MmapOptions::new(), &fd, 0, len)?;
        Ok(Mapping::new(map, (fd, 0), len, true, Name::Path(path.to_path_buf())))
    }

    pub(super) fn shared(file: &File, offset: u64, len: usize) -> Result<Mapping> {
        let fd = dup(file)?;
        let map = map(&MmapOptions::new(), &fd, offset, len)?;
        let about = metadata(&fd)?;
        let name = if about.is_file() && about.nlink() == 0 { Name::None } else { Name::Unknown };
        Ok(Mapping::new(map, (fd, offset), len, true, name))
    }

    pub(super) fn private(file: &File, offset: u64, len: usize) -> Result<Mapping> {
        let fd = dup(file)?;
        check_range(&fd, offset, len)?;
        // SAFETY: the mapping is kept as a raw pointer, so that nothing relies on the file's bytes keeping still.
        let map = unsafe { MmapOptions::new().offset(offset).len(len).map_copy(&fd) };
        let map = map.map_err(|error| Error::system(&format!("mapping {len} bytes privately"), error))?;
        Ok(Mapping::new(map.into(), (fd, offset), len, true, Name::Private))
    }

    pub(super) fn local(len: usize) -> Result<Mapping> {
        let zeros = File::open("/dev/zero").map_err(|error| Error::system("opening /dev/zero", error))?;
        let mapping = Mapping::private(&zeros, 0, len)?;
        // Where the system has no large pages, it is memory all the same.
        let _ = mapping.map.advise(Advice::HugePage);
        Ok(mapping)
    }

    pub(super) fn foreign(fd: OwnedFd, offset: u64, len: usize, writable: bool) -> Result<Mapping> {
        let map = if writable {
            map(&MmapOptions::new(), &fd, offset, len)?
        } else {
            check_range(&fd, offset, len)?;
            let read_only = MmapOptions::new().offset(offset).len(len).map_raw_read_only(&fd);
            read_only.map_err(|error| Error::system(&format!("mapping {len} bytes for reading"), error))?
        };
        map.advise(Advice::DontFork).map_err(|error| Error::system("keeping a mapping from children", error))?;
        Ok(Mapping::new(map, (fd, offset), len, writable, Name::Unknown))
    }

    fn new(map: MmapRaw, file: (OwnedFd, u64), len: usize, writable: bool, name: Name) -> Mapping {
        let watch = Watch::new(map.as_mut_ptr(), len, writable);
        Mapping { watch, map, len, writable, name, backing: Mutex::new(Backing::new(file.0, file.1)) }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// Has the system give memory for these bytes now. Where it cannot, they get it when they are touched.
    pub(super) fn populate(&self, from: usize, len: usize) {
        let _ = self.map.advise_range(Advice::PopulateWrite, from, len);
    }

    /// Whether nothing of it was found to be gone.
    #[inline]
    pub(super) fn check_whole(&self) -> Result<()> {
        self.watch.check(self.len)
    }

    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }
}

/// A new memfd of `len` zeros. A peer that gets its descriptor cannot cut it off under this process.
pub(super) fn memfd(len: usize) -> Result<OwnedFd> {
    check_len(len)?;
    let making = |error: nix::Error| Error::system(&format!("making shared memory of {len} bytes"), error);
    let fd = memfd_create(c"segstore", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).map_err(making)?;
    nix::unistd::ftruncate(&fd, i64::try_from(len).unwrap_or(i64::MAX)).map_err(making)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).map_err(making)?;
    Ok(fd)
}

/// A new file of `len` zeros, for this user only.
pub(super) fn create(path: &Path, len: usize) -> std::io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    file.set_len(len as u64)?;
    Ok(file)
}

fn open(path: &Path, len: usize) -> Result<File> {
    let opening = |error| Error::system(&format!("opening {}", path.display()), error);
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(opening)?;
    let about = file.metadata().map_err(opening)?;
    if about.is_file() && about.len() == len as u64 {
        return Ok(file);
    }
    let is = if about.is_file() { format!("{} bytes long", about.len()) } else { "not a regular file".into() };
    Err(Error::invalid(format!(
        "{} is {is}, {len} bytes were asked for: give its length, or remove it",
        path.display()
    )))
}

fn map(options: &MmapOptions, fd: &OwnedFd, offset: u64, len: usize) -> Result<MmapRaw> {
    check_range(fd, offset, len)?;
    let mapped = options.clone().offset(offset).len(len).map_raw(fd);
    mapped.map_err(|error| Error::system(&format!("mapping {len} bytes"), error))
}

/// A mapping past the end of a file would be lost from the start.
fn check_range(fd: &OwnedFd, offset: u64, len: usize) -> Result<()> {
    check_len(len)?;
    let page = page() as u64;
    if !offset.is_multiple_of(page) {
        return Err(Error::invalid(format!("offset {offset} of a mapping: it must be a multiple of {page}")));
    }
    let about = metadata(fd)?;
    let kind = about.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        return Ok(()); // The device checks for itself.
    }
    if offset.checked_add(len as u64).is_none_or(|end| end > about.len()) {
        return Err(Error::invalid(format!(
            "offset {offset} and length {len} of a mapping are not inside the file of {} bytes",
            about.len()
        )));
    }
    Ok(())
}

fn check_len(len: usize) -> Result<()> {
    if len == 0 || isize::try_from(len).is_err() {
        return Err(Error::invalid(format!("memory of {len} bytes: give a length between 1 and {}", isize::MAX)));
    }
    Ok(())
}

fn metadata(fd: &OwnedFd) -> Result<std::fs::Metadata> {
    File::from(dup(fd)?).metadata().map_err(|error| Error::system("looking at a file to map", error))
}

fn dup(fd: &impl AsFd) -> Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned().map_err(|error| Error::system("duplicating a descriptor", error))
}

impl Mapping {
    pub(super) fn descriptor(&self) -> Result<OwnedFd> {
        let backing = self.lock()?;
        dup(&backing.fd)
    }

    pub(super) fn lock(&self) -> Result<std::sync::MutexGuard<'_, Backing>> {
        let poisoned = |_| Error::operation(ErrorKind::System, "a thread panicked while it moved this memory");
        self.backing.lock().map_err(poisoned)
    }
}
