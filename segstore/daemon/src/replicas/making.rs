//! Of which segments replicas are being made.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use segstore_core::id::SegmentId;

/// The segments, each as often as it was begun and has not ended. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Making(Arc<Mutex<Vec<SegmentId>>>);

/// One that was begun: it has ended when this goes.
#[derive(Debug)]
pub struct Begun {
    segment: SegmentId,
    making: Making,
}

impl Making {
    /// One more.
    #[must_use]
    pub fn begin(&self, segment: SegmentId) -> Begun {
        self.lock().push(segment);
        Begun { segment, making: self.clone() }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<SegmentId> {
        self.lock().clone()
    }

    /// Whether one of this segment is among them.
    #[must_use]
    pub fn has(&self, segment: SegmentId) -> bool {
        self.lock().contains(&segment)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SegmentId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut making = self.making.lock();
        if let Some(at) = making.iter().position(|segment| *segment == self.segment) {
            making.swap_remove(at);
        }
    }
}
