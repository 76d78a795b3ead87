//! Counts of durations.

use std::time::Duration;

use crate::control::message::Histogram;

/// The last but one ends at 18 minutes, the last nowhere.
const BUCKETS: usize = 32;

/// Durations by powers of two of a microsecond. Recording allocates nothing.
#[derive(Clone, Debug)]
pub(crate) struct Durations {
    counts: [u64; BUCKETS],
    sum: Duration,
}

impl Default for Durations {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], sum: Duration::ZERO }
    }
}

impl Durations {
    pub(crate) fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        self.counts[bucket.min(BUCKETS - 1)] += 1;
        self.sum += time;
    }

    pub(crate) fn histogram(&self) -> Histogram {
        let sum = u64::try_from(self.sum.as_nanos()).unwrap_or(u64::MAX);
        Histogram { counts: self.counts.to_vec(), sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_at_its_power_of_two() {
        let mut durations = Durations::default();
        for micros in [0, 1, 2, 3, 4] {
            durations.record(Duration::from_micros(micros));
        }
        let Histogram { counts, sum } = durations.histogram();
        assert_eq!((&counts[..5], sum), (&[1, 1, 2, 1, 0][..], 10_000));
        durations.record(Duration::from_secs(7200));
        assert_eq!(durations.histogram().counts.last(), Some(&1), "what takes longer than all bounds");
    }
}
