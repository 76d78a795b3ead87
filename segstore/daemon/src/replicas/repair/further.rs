//! Whether what was modified during a copy is copied as well, before the replica is given to its owner.
//!
//! What a replica lacks then is pushed by the owner with a checkpoint, for which its application waits: it is to be little. Each copy takes
//! as long as there was something to copy, so each has less to do than the one before, unless the application changes more than is copied.

use segstore_core::id::Stamp;

use super::{LOOK_PAUSE, LOOKS};

/// So few bytes are pushed as soon as anything.
const LITTLE: u64 = 1 << 20;
/// A copy is worth its while if it was at most this part of the one before.
const SHRINKS: u64 = 2;

/// The copies so far.
#[derive(Default)]
pub(super) struct Further {
    /// What the last one came to.
    base: Option<Stamp>,
    /// Bytes copied by all, and by the last one.
    all: u64,
    last: Option<u64>,
    /// Looks at the source since then.
    looks: u32,
}

impl Further {
    /// A copy has ended, or the source was found as before: the target is now at least `base`, and `copied` bytes were copied in all. Waits
    /// a little where nothing has changed.
    pub(super) fn is_worthwhile(&mut self, base: Stamp, copied: u64) -> bool {
        if self.base == Some(base) {
            self.looks += 1;
            std::thread::sleep(LOOK_PAUSE);
            return self.looks < LOOKS;
        }
        let now = copied - self.all;
        let shrinks = self.last.is_none_or(|last| now <= last / SHRINKS);
        *self = Self { base: Some(base), all: copied, last: Some(now), looks: 0 };
        shrinks && now > LITTLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_go_on_as_long_as_they_become_smaller() {
        let mut further = Further::default();
        let mib = |count: u64| count << 20;
        let mut copied = 0;
        let mut after = |epoch: u64, bytes: u64| {
            copied += bytes;
            further.is_worthwhile(Stamp::new(1, epoch), copied)
        };
        assert!(after(1, mib(64)), "the first");
        assert!(after(2, mib(32)) && after(3, mib(9)), "half of it, and less");
        assert!(!after(4, mib(5)), "more than half");
        assert!(!after(5, LITTLE), "little is left");
    }

    #[test]
    fn a_source_that_stays_as_it_is_is_looked_at_for_a_while() {
        let mut further = Further::default();
        let looks = (0..).take_while(|_| further.is_worthwhile(Stamp::new(1, 1), 2 * LITTLE)).count();
        assert_eq!(looks, LOOKS as usize);
    }
}
