//! Which bulk copies are hot: a plain copy over lines that are still cached is three times as fast as going around the
//! cache, over cold ones it is half as fast (measured). Size alone does not tell, so a writer remembers
//! where it wrote lately.

use super::copy::{copy_non_temporal, copy_plain, store_fence};

/// Below this length nothing is remembered, and the copy is plain.
const SMALL: usize = 4 << 10;
/// What was written within so many bytes of traffic is hot. Source and target both occupy the cache, so this is a
/// quarter of a common last-level cache's 16 MiB.
const WINDOW: usize = 4 << 20;
/// Memory is remembered in pieces of this size: few for a bulk copy. Whoever copies less finds its neighbours as hot as itself.
const PIECE: usize = 16 << 10;
/// How many pieces are remembered: four times the window.
const PIECES: usize = 1024;

/// One writer's memory of where it wrote lately.
pub(crate) struct Warmth {
    /// Which piece was written, and after how many bytes of traffic; one place for each remainder.
    written: Box<[(usize, usize)]>,
    traffic: usize,
}

impl Warmth {
    pub(crate) fn new() -> Warmth {
        Warmth { written: vec![(usize::MAX, 0); PIECES].into_boxed_slice(), traffic: 0 }
    }

    /// Copies `len` bytes, plain if they are few or their place is hot, else around the cache. What was stored before is seen before
    /// them: a mark that says what comes is never missed by who sees some of it.
    ///
    /// # Safety
    /// As for [`copy`](super::copy()).
    #[inline]
    pub(crate) unsafe fn copy(&mut self, from: *const u8, to: *mut u8, len: usize) {
        if len < SMALL {
            // SAFETY: the caller's promise is the callee's condition.
            return unsafe { copy_plain(from, to, len) };
        }
        // A plain copy that is long goes around the cache as well, where the C library thinks it better.
        store_fence();
        if self.note(to.addr(), len) {
            // SAFETY: the caller's promise is the callee's condition.
            unsafe { copy_plain(from, to, len) };
        } else {
            // SAFETY: the caller's promise is the callee's condition.
            unsafe { copy_non_temporal(from, to, len) };
        }
    }

    /// Remembers a write; tells whether all of its place was hot.
    fn note(&mut self, address: usize, len: usize) -> bool {
        let mut hot = len <= WINDOW;
        // What is longer than the window is not hot, so the rest of it needs no memory.
        for piece in (address / PIECE..=(address + len - 1) / PIECE).take(PIECES) {
            let place = &mut self.written[piece % PIECES];
            hot &= place.0 == piece && self.traffic - place.1 + len <= WINDOW;
            *place = (piece, self.traffic);
        }
        self.traffic += len;
        hot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_is_cold_and_a_second_visit_is_hot() {
        let mut warmth = Warmth::new();
        for (turn, len) in [2 * PIECE, 64 << 10, 1 << 20].into_iter().enumerate() {
            for step in 0..(64 << 20) / len {
                // Not aligned to pieces: neighbours share one.
                assert!(!warmth.note(4096 + step * len, len), "turn {turn}, step {step}");
            }
        }
        assert!(warmth.note(63 << 20, 1 << 20));
        assert!(warmth.note(63 << 20, 2 * PIECE));
        assert!(!warmth.note(0, SMALL), "a block that was not written for long");
        assert!(warmth.note(0, SMALL));
        assert!(!warmth.note(0, WINDOW + 1), "more than the window is never hot");
        assert!(!warmth.note(0, WINDOW + 1));
    }
}
