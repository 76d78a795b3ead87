//! The fence word: how a writer that nobody can stop learns that its write does not count.
//!
//! ```text
//! writer                      revoker
//! W1  stores to the region    R1  fence word := raised
//! W2  full barrier            R2  full barrier
//! W3  reads the fence word    R3  copies the region (or takes it as it is)
//! ```
//!
//! With both barriers, either W3 sees R1 and the write fails, or R3 sees W1 and the write is in the copy. Without W2
//! the stores could leave the processor after the word was read: a completed write that the copy lacks.

use crate::sync::{Ordering, fence};
use crate::{Error, ErrorKind};

/// Writes count.
pub(super) const OPEN: u64 = 0;
/// The target has revoked this peer.
pub(super) const REVOKED: u64 = 1;
/// A region has moved to other memory.
pub(super) const MOVED: u64 = 2;
/// The target's process died, and another has taken its place.
pub(super) const RESTARTED: u64 = 3;

/// A fence word, also a model checker's.
pub(super) trait Word {
    fn read(&self) -> u64;
    /// Replaces `OPEN`; the first cause stays.
    fn raise(&self, cause: u64);
}

impl Word for crate::sync::shared::AtomicU64 {
    fn read(&self) -> u64 {
        self.load(Ordering::Relaxed)
    }

    fn raise(&self, cause: u64) {
        let _ = self.compare_exchange(OPEN, cause, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// W2 and W3: whether everything stored before counts.
#[inline]
pub(super) fn check(word: &impl Word) -> Result<(), Error> {
    fence(Ordering::SeqCst);
    peek(word)
}

/// Whether it is worth starting: no barrier, no proof.
#[inline]
pub(super) fn peek(word: &impl Word) -> Result<(), Error> {
    match word.read() {
        OPEN => Ok(()),
        cause => Err(refused(cause)),
    }
}

/// R1 and R2.
pub(super) fn raise(word: &impl Word, cause: u64) {
    word.raise(cause);
    fence(Ordering::SeqCst);
}

#[cold]
fn refused(cause: u64) -> Error {
    let (kind, text) = match cause {
        REVOKED => (ErrorKind::Revoked, "the target has revoked this endpoint".to_owned()),
        MOVED => (ErrorKind::Moved, "a granted region has moved to other memory: connect again".to_owned()),
        RESTARTED => (ErrorKind::PeerGone, "the target was started again since: connect again".to_owned()),
        other => (ErrorKind::Protocol, format!("the fence word holds {other}, which means nothing here")),
    };
    Error::endpoint(kind, text).with_code(i64::from_ne_bytes(cause.to_ne_bytes()))
}

#[cfg(all(loom, test))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64;

    impl Word for AtomicU64 {
        fn read(&self) -> u64 {
            self.load(Ordering::Relaxed)
        }

        fn raise(&self, cause: u64) {
            let _ = self.compare_exchange(OPEN, cause, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// Every interleaving: a write that completed is in the copy.
    #[test]
    fn a_completed_write_is_in_the_copy() {
        loom::model(|| {
            let (word, data) = (Arc::new(AtomicU64::new(OPEN)), Arc::new(AtomicU64::new(0)));
            let writer = {
                let (word, data) = (word.clone(), data.clone());
                loom::thread::spawn(move || {
                    data.store(1, Ordering::Relaxed);
                    check(&*word).is_ok()
                })
            };
            raise(&*word, REVOKED);
            let copy = data.load(Ordering::Relaxed);
            let completed = writer.join().expect("the writer ends");
            assert!(!completed || copy == 1, "the write completed and the copy lacks it");
        });
    }

    /// The proof can fail: without the writer's barrier there is an interleaving that loses the write.
    #[test]
    #[should_panic(expected = "the copy lacks it")]
    fn without_the_barrier_a_write_is_lost() {
        loom::model(|| {
            let (word, data) = (Arc::new(AtomicU64::new(OPEN)), Arc::new(AtomicU64::new(0)));
            let writer = {
                let (word, data) = (word.clone(), data.clone());
                loom::thread::spawn(move || {
                    data.store(1, Ordering::Relaxed);
                    peek(&*word).is_ok()
                })
            };
            raise(&*word, REVOKED);
            let copy = data.load(Ordering::Relaxed);
            let completed = writer.join().expect("the writer ends");
            assert!(!completed || copy == 1, "the write completed and the copy lacks it");
        });
    }
}
