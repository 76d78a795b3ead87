//! How fast replicas are filled: no faster, all together, than the network can spare.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A limit on bytes in a second, which whoever takes some waits for.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// None: without a limit.
    rate: Option<u64>,
    /// Until when what was taken so far lasts.
    taken_until: Mutex<Option<Instant>>,
}

impl Pace {
    /// So many bytes in a second; zero: without a limit.
    pub(super) fn new(rate: u64) -> Self {
        Self { rate: (rate > 0).then_some(rate), taken_until: Mutex::default() }
    }

    /// How long to wait after `now` until `bytes` may be taken. They are.
    pub(super) fn take(&self, bytes: u64, now: Instant) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let mut taken_until = self.taken_until.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = taken_until.map_or(now, |until| until.max(now));
        *taken_until = Some(begins + Duration::from_secs_f64(bytes as f64 / rate as f64));
        begins.duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_waited_for() {
        let (pace, now) = (Pace::new(1000), Instant::now());
        let seconds = |bytes, after| pace.take(bytes, now + Duration::from_secs(after)).as_secs_f64();
        assert_eq!([seconds(2000, 0), seconds(500, 0), seconds(500, 1), seconds(100, 9)], [0.0, 2.0, 1.5, 0.0]);
        assert_eq!(Pace::new(0).take(u64::MAX, now), Duration::ZERO);
    }
}
