//! What many times come to.

use serde::Serialize;

/// Percentiles of times in microseconds: the value at the nearest rank.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// Of a hundred, one takes longer.
    pub p99: f64,
    /// Of a thousand, one takes longer.
    pub p999: f64,
    /// How many were timed.
    pub count: usize,
}

impl Percentiles {
    /// Of times in nanoseconds, which are sorted by this.
    #[must_use]
    pub fn of(nanoseconds: &mut [u64]) -> Self {
        nanoseconds.sort_unstable();
        let (p50, p99, p999) = (rank(nanoseconds, 500), rank(nanoseconds, 990), rank(nanoseconds, 999));
        Self { p50, p99, p999, count: nanoseconds.len() }
    }
}

fn rank(sorted: &[u64], thousandths: usize) -> f64 {
    let at = (sorted.len() * thousandths).div_ceil(1000).max(1) - 1;
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of minutes fit into 53 bits")]
    sorted.get(at).map_or(f64::NAN, |&nanoseconds| nanoseconds as f64 / 1000.0)
}

/// The middle value; not a number if there is none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_nearest() {
        let mut times: Vec<u64> = (1..=1000).rev().map(|micros| micros * 1000).collect();
        let all = Percentiles::of(&mut times);
        assert_eq!((all.p50, all.p99, all.p999, all.count), (500.0, 990.0, 999.0, 1000));
        let one = Percentiles::of(&mut [7000]);
        assert_eq!((one.p50, one.p99, one.p999), (7.0, 7.0, 7.0));
    }
}
