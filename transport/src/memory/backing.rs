//! Fresh backing: the same bytes at the same address, on other memory, so that who mapped the old one writes into an
//! orphan.

use std::ffi::c_void;
use std::fs::File;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat};
use nix::unistd::{Whence, lseek};

use super::mapping::{Mapping, Name, create, memfd};
use super::witness::Witness;
use crate::sync::{Ordering, fence};
use crate::{Error, ErrorKind, Result};

/// The file behind a mapping, which can be replaced while the mapping lives.
pub(super) struct Backing {
    pub(super) fd: OwnedFd,
    pub(super) offset: u64,
    /// Rises with every replacement.
    generation: u64,
    tenants: Vec<Weak<dyn Tenant>>,
    /// What tells whether a copy is whole.
    pub(super) witnesses: Vec<Witness>,
}

/// Somebody who gave the backing away, or pinned it, and must be told before it is left.
pub(crate) trait Tenant: Send + Sync {
    /// The memory leaves its backing: no operation may complete from here on that relied on it.
    fn leave(&self);
}

/// What became of a request for fresh backing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// The memory had left that backing before.
    Before,
    /// It left it now, with this many bytes copied.
    Now(u64),
}

/// A lease on the present backing, for handing it to a peer.
pub(crate) struct Share {
    pub(crate) fd: OwnedFd,
    pub(crate) offset: u64,
    pub(crate) generation: u64,
}

impl Backing {
    pub(super) fn new(fd: OwnedFd, offset: u64) -> Backing {
        Backing { fd, offset, generation: 0, tenants: Vec::new(), witnesses: Vec::new() }
    }
}

impl Mapping {
    /// Whether the memory can be given fresh backing.
    pub(crate) fn can_move(&self) -> bool {
        matches!(self.name, Name::None | Name::Path(_))
    }

    /// Whether the memory is shared with the file behind it at all.
    pub(crate) fn is_shared(&self) -> bool {
        !matches!(self.name, Name::Private)
    }

    /// The present backing, for a peer; `tenant` is told before the memory leaves it.
    pub(crate) fn share(&self, tenant: &Arc<dyn Tenant>) -> Result<Share> {
        let mut backing = self.lock()?;
        let fd = backing.fd.try_clone().map_err(|error| Error::system("duplicating a descriptor", error))?;
        backing.tenants.retain(|tenant| tenant.strong_count() > 0);
        backing.tenants.push(Arc::downgrade(tenant));
        Ok(Share { fd, offset: backing.offset, generation: backing.generation })
    }

    /// The file behind the memory now, and its generation.
    pub(crate) fn present(&self) -> Result<(OwnedFd, u64)> {
        let backing = self.lock()?;
        let fd = backing.fd.try_clone().map_err(|error| Error::system("duplicating a descriptor", error))?;
        Ok((fd, backing.generation))
    }

    /// Moves the memory to fresh backing, unless it has left `generation` already. Tenants are told first, so what
    /// they complete from then on is not lost silently: either it is in the copy, or it fails.
    pub(crate) fn leave(&self, generation: u64, keep: Option<&[Range<usize>]>) -> Result<Moved> {
        let mut backing = self.lock()?;
        if backing.generation != generation {
            return Ok(Moved::Before);
        }
        for tenant in backing.tenants.drain(..).filter_map(|tenant| tenant.upgrade()) {
            tenant.leave();
        }
        // After this barrier the copy sees every byte of each write whose fence check passed.
        fence(Ordering::SeqCst);
        let (fd, copied) = match &self.name {
            Name::None => {
                let fd = memfd(self.len())?;
                let copied = self.fill(&fd, &backing, keep)?;
                self.replace(&fd)?;
                (fd, copied)
            }
            Name::Path(path) => self.replace_file(path, &backing, keep)?,
            Name::Unknown | Name::Private => {
                let why = "this memory cannot have fresh backing: it is a device, or a file that others open by name";
                return Err(Error::operation(ErrorKind::Unsupported, why));
            }
        };
        backing.fd = fd;
        backing.offset = 0;
        backing.generation += 1;
        Ok(Moved::Now(copied))
    }

    /// A new file beside the old one takes its name, after the memory stands on it.
    fn replace_file(&self, path: &Path, old: &Backing, keep: Option<&[Range<usize>]>) -> Result<(OwnedFd, u64)> {
        let beside = path.with_added_extension(format!("moving-{}", old.generation + 1));
        let saying = |error| Error::system(&format!("moving {} to a new file", path.display()), error);
        let _ = std::fs::remove_file(&beside); // Left by a process that died here.
        let fd = OwnedFd::from(create(&beside, self.len()).map_err(saying)?);
        let mode = fstat(&old.fd).map(|about| Mode::from_bits_truncate(about.st_mode));
        mode.and_then(|mode| fchmod(&fd, mode)).map_err(|error| saying(error.into()))?;
        let filled =
            reserve(&fd, self.len()).map_err(saying).and_then(|()| self.fill(&fd, old, keep)).and_then(|copied| {
                std::fs::rename(&beside, path).map_err(saying)?;
                self.replace(&fd)?;
                Ok(copied)
            });
        if filled.is_err() {
            let _ = std::fs::remove_file(&beside);
        }
        filled.map(|copied| (fd, copied))
    }

    /// Brings what is worth keeping to the new file, and says there what of it is torn.
    fn fill(&self, new: &OwnedFd, old: &Backing, keep: Option<&[Range<usize>]>) -> Result<u64> {
        let copied = self.copy(new, old, keep)?;
        old.judge(new)?;
        // What is gone looks like a hole.
        old.reaches(self.len())?;
        self.check_whole()?;
        Ok(copied)
    }

    /// Copies what is worth keeping, and is not a hole: from the start on, in the order of the ranges. A peer may still be
    /// storing. Whoever finds in the copy what it stored last (a slot's head, which stands before the slot's content)
    /// finds all that it stored before: that was copied later.
    fn copy(&self, new: &OwnedFd, old: &Backing, keep: Option<&[Range<usize>]>) -> Result<u64> {
        let whole = 0..self.len();
        let mut copied = 0;
        for range in keep.unwrap_or(std::slice::from_ref(&whole)) {
            let mut at = range.start;
            while let Some(data) = old.next_data(at..range.end) {
                self.write_to(new, data.clone())?;
                copied += data.len() as u64;
                at = data.end;
            }
        }
        Ok(copied)
    }

    /// Writes a range of the memory to the same place of a file. The kernel reads the memory: bytes that a peer changes
    /// meanwhile are torn, nothing worse.
    fn write_to(&self, file: &OwnedFd, mut range: Range<usize>) -> Result<()> {
        while !range.is_empty() {
            let from = self.as_ptr().wrapping_add(range.start).cast::<c_void>();
            let at = i64::try_from(range.start).unwrap_or(i64::MAX);
            // SAFETY: the range is inside the mapping, which outlives the call. (nix wants a slice, which would promise
            // that nobody writes these bytes.)
            let wrote = unsafe { libc::pwrite(file.as_raw_fd(), from, range.len(), at) };
            match Errno::result(wrote) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(wrote) => range.start += wrote.unsigned_abs(),
                Err(Errno::EFAULT) => return Err(gone(self.len())),
                Err(error) => return Err(Error::system("copying memory to fresh backing", error)),
            }
        }
        Ok(())
    }

    /// Maps the new file over the old one: one system call, the address stays.
    fn replace(&self, fd: &OwnedFd) -> Result<()> {
        let (Some(at), Some(len)) = (NonZeroUsize::new(self.as_ptr().addr()), NonZeroUsize::new(self.len())) else {
            return Err(Error::operation(ErrorKind::System, "no mapping to replace"));
        };
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the range is exactly this mapping's own (offset 0 of a page, same length), so nothing else is
        // replaced. Only pointers and atomics point into it, which read the new bytes from here on.
        let mapped = unsafe { mmap(Some(at), len, protection, MapFlags::MAP_SHARED | MapFlags::MAP_FIXED, fd, 0) };
        let place = mapped.map_err(|error| Error::system("mapping fresh backing", error))?;
        debug_assert_eq!(NonNull::new(self.as_ptr().cast::<c_void>()), Some(place));
        Ok(())
    }
}

impl Backing {
    /// Whether the file is long enough for memory of this length.
    fn reaches(&self, len: usize) -> Result<()> {
        let about = fstat(&self.fd).map_err(|error| Error::system("looking at a mapped file", error))?;
        let file = SFlag::from_bits_truncate(about.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFREG;
        let end = self.offset.saturating_add(len as u64);
        if file && u64::try_from(about.st_size).unwrap_or(0) < end { Err(gone(len)) } else { Ok(()) }
    }

    /// The first part of `range` (offsets in the memory) that holds data. Where the file system cannot tell: all.
    fn next_data(&self, range: Range<usize>) -> Option<Range<usize>> {
        if range.is_empty() {
            return None;
        }
        let base = i64::try_from(self.offset).ok()?;
        let seek = |at: usize, whence| {
            let found = lseek(&self.fd, base + i64::try_from(at).unwrap_or(i64::MAX - base), whence);
            found.map(|found| usize::try_from(found - base).unwrap_or(range.end))
        };
        match seek(range.start, Whence::SeekData) {
            Ok(start) if start >= range.end => None,
            Ok(start) => {
                let end = seek(start, Whence::SeekHole).unwrap_or(range.end);
                Some(start..end.clamp(start + 1, range.end))
            }
            Err(Errno::ENXIO) => None,
            Err(_) => Some(range),
        }
    }
}

/// Takes the memory of a new file now: a move fails at once where there is too little, and no store into it later. A file system that
/// cannot promise memory gives it when it is written, as before.
fn reserve(fd: &OwnedFd, len: usize) -> std::io::Result<()> {
    match fallocate(fd, FallocateFlags::empty(), 0, i64::try_from(len).unwrap_or(i64::MAX)) {
        Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn gone(len: usize) -> Error {
    let text = format!("memory of {len} bytes cannot move: its file was cut short by somebody, what it held is lost");
    Error::operation(ErrorKind::Lost, text)
}

/// A descriptor of the same file that can only be mapped for reading.
pub(crate) fn read_only(fd: &OwnedFd) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    File::open(path).map(OwnedFd::from).map_err(|error| Error::system("reopening memory for reading only", error))
}

#[cfg(test)]
mod tests {
    use super::super::{Memory, Witness};
    use super::*;

    const PAGE: usize = 4096;

    fn page(memory: &Memory, at: usize) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        memory.read_at(at * PAGE, &mut bytes).unwrap();
        bytes
    }

    /// The first page speaks of the second, the third of the fourth. A peer that changes one of the latter after the copy has passed
    /// the page that speaks of it.
    #[test]
    fn what_changes_while_it_is_copied_counts_as_torn() {
        let memory = Memory::anonymous(4 * PAGE).unwrap();
        let witness = |at: usize| Witness { offset: at * PAGE, torn: b"torn".to_vec() };
        memory.set_witnesses(vec![witness(0), witness(2)]).unwrap();
        memory.write_at(0, b"calm").unwrap();
        memory.write_at(2 * PAGE, b"calm").unwrap();
        let mapping = memory.mapping();
        let backing = mapping.lock().unwrap();
        let new = memfd(memory.len()).unwrap();
        let copied = |range| mapping.copy(&new, &backing, Some(std::slice::from_ref(&range))).unwrap();
        copied(0..3 * PAGE);
        memory.write_at(2 * PAGE, b"push").unwrap();
        memory.write_at(3 * PAGE, b"push").unwrap();
        copied(3 * PAGE..4 * PAGE);
        backing.judge(&new).unwrap();
        let copy = Memory::shared(&File::from(new), 0, 4 * PAGE).unwrap();
        let pages: Vec<_> = (0..4).map(|at| page(&copy, at)).collect();
        assert_eq!(pages, [b"calm", b"\0\0\0\0", b"torn", b"push"]);
    }

    #[test]
    fn a_witness_stands_inside_the_memory() {
        let memory = Memory::anonymous(PAGE).unwrap();
        let outside = memory.set_witnesses(vec![Witness { offset: PAGE - 2, torn: b"torn".to_vec() }]);
        assert_eq!(outside.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
