//! Taking a lock.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes it. What a thread left behind that panicked is whole: nothing here changes in more than one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
