//! Moments that lie ahead.

use std::time::{Duration, Instant};

/// As good as never, and a moment that can be counted on from.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// When `limit` has passed since `start`: somebody who wants no limit may say `Duration::MAX`.
pub(crate) fn after(start: Instant, limit: Duration) -> Instant {
    start + limit.min(NEVER)
}
