//! Mapped memory that peers may write at any moment.
//!
//! There are pointers, atomics and copies, and no `&[u8]`: what another process changes is never pretended to be still.
//! Memory whose file is cut short gives an error (`Lost`), and does not end the process: `loss.rs`.
//! Bytes read while somebody writes them may be torn; which bytes are whole is the affair of the protocol above.

mod backing;
mod copy;
pub(crate) mod loss;
mod mapping;
mod warmth;
mod witness;

pub(crate) use backing::{Moved, Tenant, read_only};
pub use copy::{NON_TEMPORAL_FROM, copy, copy_non_temporal};
pub(crate) use warmth::Warmth;
pub use witness::Witness;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use crate::sync::Ordering;
use crate::sync::shared::AtomicU64;
use crate::{Error, Result};
use mapping::Mapping;

/// A mapped range. Cheap to clone; unmapped when the last clone is gone.
#[derive(Clone)]
pub struct Memory {
    mapping: Arc<Mapping>,
}

impl Memory {
    /// `len` bytes of zeros that can be shared with other processes, without a name (a memfd).
    ///
    /// # Errors
    /// `InvalidInput` for a length of 0, `Exhausted` at a limit.
    pub fn anonymous(len: usize) -> Result<Memory> {
        Mapping::anonymous(len).map(Memory::from)
    }

    /// The file at `path`, shared; made with `len` zeros, readable and writable for this user only, if it is not there.
    /// When a revoke has to give it fresh backing, a new file takes the name: who opens the path sees the newest
    /// bytes, who had opened it before keeps the old file. Map a file once per process.
    ///
    /// # Errors
    /// `InvalidInput` when the file has another length; otherwise what the system said.
    pub fn named(path: &Path, len: usize) -> Result<Memory> {
        Mapping::named(path, len).map(Memory::from)
    }

    /// `len` bytes of an open file or device from `offset` (a multiple of the page size), shared. Unless it is a
    /// regular file without a name, it cannot be given fresh backing: somebody else relies on that file.
    ///
    /// # Errors
    /// `InvalidInput` when the file ends before, or the offset is not aligned; otherwise what the system said.
    pub fn shared(file: &File, offset: u64, len: usize) -> Result<Memory> {
        Mapping::shared(file, offset, len).map(Memory::from)
    }

    /// `len` bytes of an open file from `offset`, private: writes stay in this process (copy on write). No peer can be
    /// admitted to it, but this side's operations may use it.
    ///
    /// # Errors
    /// As [`Memory::shared`].
    pub fn private(file: &File, offset: u64, len: usize) -> Result<Memory> {
        Mapping::private(file, offset, len).map(Memory::from)
    }

    /// `len` bytes of zeros that only this process's operations may use, in large pages where the system has them: they
    /// come quicker, and cost fewer misses on the way of a copy.
    ///
    /// # Errors
    /// `InvalidInput` for a length of 0, `Exhausted` when the system promises no more memory.
    pub fn local(len: usize) -> Result<Memory> {
        Mapping::local(len).map(Memory::from)
    }

    /// A peer's memory. Children of this process do not inherit it, so that this process's death proves that nothing
    /// writes into it any more.
    pub(crate) fn foreign(fd: OwnedFd, offset: u64, len: usize, writable: bool) -> Result<Memory> {
        Mapping::foreign(fd, offset, len, writable).map(Memory::from)
    }

    /// The length in bytes; never 0.
    #[expect(clippy::len_without_is_empty, reason = "memory of length 0 cannot be mapped")]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Where it starts. The address stays the same as long as the memory lives, also when its backing is replaced.
    /// Never make a reference into memory that a peer may write.
    pub fn as_ptr(&self) -> *mut u8 {
        self.mapping.as_ptr()
    }

    /// Whether this process may write it.
    pub fn is_writable(&self) -> bool {
        self.mapping.is_writable()
    }

    /// A descriptor of the file behind it, as it is now.
    ///
    /// # Errors
    /// `Exhausted` when there are no descriptors left.
    pub fn fd(&self) -> Result<OwnedFd> {
        self.mapping.descriptor()
    }

    /// What peers that write here change first: after each move to fresh backing these bytes say what of it is torn, before
    /// anybody finds the new file.
    ///
    /// # Errors
    /// `InvalidInput` when one is not inside.
    pub fn set_witnesses(&self, witnesses: Vec<Witness>) -> Result<()> {
        witnesses.iter().try_for_each(|witness| self.check(witness.offset, witness.torn.len()))?;
        self.mapping.lock()?.witnesses = witnesses;
        Ok(())
    }

    /// Whether nothing of it was found to be gone, by whoever touched it first. What reads and writes here check it
    /// themselves; who goes through [`Memory::as_ptr`] asks afterwards.
    ///
    /// # Errors
    /// `Lost` when its file was cut short, or its file system is full: what was read since may be zeros, and what was
    /// written is lost.
    #[inline]
    pub fn check_whole(&self) -> Result<()> {
        self.mapping.check_whole()
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Copies from `offset` to `bytes`.
    ///
    /// # Errors
    /// `InvalidInput` when the range is not inside; `Lost` as [`Memory::check_whole`].
    pub fn read_at(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let from = self.at(offset, bytes.len())?;
        // SAFETY: `at` checked that the range is mapped; `bytes` is a buffer of that length that nobody else has.
        unsafe { copy(from, bytes.as_mut_ptr(), bytes.len()) };
        self.check_whole()
    }

    /// Has the system give memory for these bytes now, as touching them would: that takes its time, and may be done by a thread that has
    /// none of the work on them. Nothing is changed. Where the system does not do that, they get memory when they are touched.
    ///
    /// # Errors
    /// `InvalidInput` when the range is not inside.
    pub fn populate(&self, offset: usize, len: usize) -> Result<()> {
        self.at(offset, len)?;
        self.mapping.populate(offset, len);
        Ok(())
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    /// `InvalidInput` when the range is not inside, or the memory is mapped for reading only; `Lost` as
    /// [`Memory::check_whole`].
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let to = self.at(offset, bytes.len())?;
        self.check_writable()?;
        // SAFETY: `at` checked that the range is mapped, and it is writable; `bytes` is a buffer of that length, and no
        // reference into mapped memory exists, so it lies elsewhere.
        unsafe { copy(bytes.as_ptr(), to, bytes.len()) };
        self.check_whole()
    }

    /// Loads a native-endian word.
    ///
    /// # Errors
    /// `InvalidInput` when it is not inside, or `offset` is not a multiple of 8; `Lost` as [`Memory::check_whole`].
    ///
    /// # Panics
    /// With an ordering that loads cannot have.
    pub fn load_u64(&self, offset: usize, order: Ordering) -> Result<u64> {
        let value = self.word(offset)?.load(order);
        self.check_whole().map(|()| value)
    }

    /// Stores a native-endian word.
    ///
    /// # Errors
    /// As [`Memory::load_u64`], and when the memory is mapped for reading only.
    ///
    /// # Panics
    /// With an ordering that stores cannot have.
    pub fn store_u64(&self, offset: usize, value: u64, order: Ordering) -> Result<()> {
        self.check_writable()?;
        self.word(offset)?.store(value, order);
        self.check_whole()
    }

    /// Replaces a native-endian word if it is `expected`; gives what it was.
    ///
    /// # Errors
    /// As [`Memory::store_u64`].
    pub fn compare_swap_u64(&self, offset: usize, expected: u64, new: u64) -> Result<u64> {
        self.check_writable()?;
        let swapped = self.word(offset)?.compare_exchange(expected, new, Ordering::SeqCst, Ordering::SeqCst);
        self.check_whole().map(|()| swapped.unwrap_or_else(|was| was))
    }

    /// Checks that `len` bytes from `offset` are inside.
    ///
    /// # Errors
    /// `InvalidInput` when they are not.
    pub fn check(&self, offset: usize, len: usize) -> Result<()> {
        if offset.checked_add(len).is_none_or(|end| end > self.len()) {
            return Err(Error::invalid(format!(
                "offset {offset} and length {len} are not inside the memory of {} bytes",
                self.len()
            )));
        }
        Ok(())
    }

    fn check_writable(&self) -> Result<()> {
        self.is_writable().then_some(()).ok_or_else(|| Error::invalid("the memory is mapped for reading only"))
    }

    fn at(&self, offset: usize, len: usize) -> Result<*mut u8> {
        self.check(offset, len)?;
        Ok(self.as_ptr().wrapping_add(offset))
    }

    fn word(&self, offset: usize) -> Result<&AtomicU64> {
        let at = self.at(offset, 8)?.cast::<u64>();
        if !at.is_aligned() {
            return Err(Error::invalid(format!("offset {offset} of a word: it must be a multiple of 8")));
        }
        // SAFETY: eight mapped, aligned bytes that stay mapped as long as `self`; only atomics and copies touch them.
        Ok(unsafe { AtomicU64::from_ptr(at) })
    }
}

impl From<Mapping> for Memory {
    fn from(mapping: Mapping) -> Memory {
        Memory { mapping: Arc::new(mapping) }
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Memory({} bytes)", self.len())
    }
}
