//! Finds what changed by comparing working memory with a copy.

use segstore_core::changes::Changes;

use crate::working::{Working, in_memory};

/// Working memory as it was.
pub(crate) struct Before(Vec<u8>);

impl Before {
    pub(crate) fn of(working: &Working, length: u64) -> Self {
        let mut bytes = vec![0; working.bytes().len()];
        let length = in_memory(length);
        bytes[..length].copy_from_slice(&working.bytes()[..length]);
        Self(bytes)
    }

    /// Marks the blocks that differ, and remembers them as they are now.
    pub(crate) fn mark(&mut self, working: &Working, changes: &mut Changes) {
        let blocks = changes.geometry().blocks_of(changes.length());
        let size = changes.geometry().block_size() as usize;
        for (index, old) in (0..blocks).zip(self.0.chunks_exact_mut(size)) {
            let now = working.block(index);
            if old != now {
                changes.mark(index);
                old.copy_from_slice(now);
            }
        }
    }
}
