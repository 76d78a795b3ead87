//! Plain copies between two mappings.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use segstore_transport::Memory;
use segstore_transport::memory::copy_non_temporal;

use crate::{Result, Role, Way};

/// Two mappings of the same length, every page of which is there.
pub struct Plain {
    from: Memory,
    to: Memory,
}

impl Plain {
    /// Of `len` bytes each.
    ///
    /// # Errors
    /// No memory.
    pub fn new(len: usize) -> Result<Self> {
        let (from, to) = (Memory::anonymous(len)?, Memory::anonymous(len)?);
        for memory in [&from, &to] {
            memory.write_at(0, &vec![1; len])?;
        }
        Ok(Self { from, to })
    }

    fn memcpy(&self, at: usize, len: usize) -> Result<()> {
        let (from, to) = self.places(at, len)?;
        // SAFETY: `places` checked that both ranges are mapped; they are separate, and alive.
        unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
        Ok(())
    }

    fn streamed(&self, at: usize, len: usize) -> Result<()> {
        let (from, to) = self.places(at, len)?;
        // SAFETY: as above.
        unsafe { copy_non_temporal(from, to, len) };
        Ok(())
    }

    /// The same range of both mappings, which are of the same length.
    fn places(&self, at: usize, len: usize) -> Result<(*const u8, *mut u8)> {
        self.from.check(at, len)?;
        Ok((self.from.as_ptr().wrapping_add(at), self.to.as_ptr().wrapping_add(at)))
    }

    /// Copies of the first `len` bytes: ordinary and, where it can pay, past the caches.
    #[must_use]
    pub fn ways(&self, len: usize) -> Vec<Way<'_>> {
        let mut ways = vec![Way { what: "memcpy", other: None, act: Box::new(move || self.memcpy(0, len)) }];
        if len >= 1 << 16 {
            ways.push(Way { what: "non-temporal copy", other: None, act: Box::new(move || self.streamed(0, len)) });
        }
        ways
    }

    /// A copy to each of `copies` places, at places that `next` names.
    #[must_use]
    pub fn scattered<'a>(&'a self, len: usize, copies: usize, mut next: impl FnMut() -> usize + 'a) -> Way<'a> {
        let act = move || {
            let at = next();
            (0..copies).try_for_each(|_| self.memcpy(at, len))
        };
        Way { what: "memcpy", other: None, act: Box::new(act) }
    }

    /// A copy of `len` bytes, each time into fresh memory, in large pages: ordinary, and past the caches.
    #[must_use]
    pub fn into_fresh_memory(&self, len: usize) -> Vec<Way<'_>> {
        let fresh = move |copy: unsafe fn(*const u8, *mut u8, usize)| {
            self.from.check(0, len)?;
            let to = Memory::local(len)?;
            // SAFETY: both are at least `len` bytes long, as was checked and asked for, separate, and alive.
            unsafe { copy(self.from.as_ptr(), to.as_ptr(), len) };
            Ok(())
        };
        vec![
            Way { what: "memcpy", other: None, act: Box::new(move || fresh(std::ptr::copy_nonoverlapping::<u8>)) },
            Way { what: "non-temporal copy", other: None, act: Box::new(move || fresh(copy_non_temporal)) },
        ]
    }

    /// A copy, then a word by which the other core knows, and says so.
    #[must_use]
    pub fn with_word(&self, len: usize) -> Way<'_> {
        let words: Arc<[AtomicU64; 32]> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
        let other: Role = {
            let words = words.clone();
            Arc::new(move |stop| {
                while !stop.load(Ordering::Relaxed) {
                    words[16].store(words[0].load(Ordering::Acquire), Ordering::Release);
                    std::hint::spin_loop();
                }
            })
        };
        let mut number = 0;
        let act = move || {
            self.memcpy(0, len)?;
            number += 1;
            words[0].store(number, Ordering::Release);
            while words[16].load(Ordering::Acquire) != number {
                std::hint::spin_loop();
            }
            Ok(())
        };
        Way { what: "memcpy and a word", other: Some(other), act: Box::new(act) }
    }
}
