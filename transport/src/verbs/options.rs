//! Which device and address a domain uses, and how long it waits for a peer.

use std::time::Duration;

use super::gid::Wanted;

/// How often the device sends again before a peer counts as gone. (7 would mean: for ever.)
pub(super) const RETRIES: u8 = 6;

/// The shortest and the longest time-out of one attempt that is asked of a device: 1 ms and 8.6 s.
const CODES: std::ops::RangeInclusive<u8> = 8..=21;

#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) device: Option<String>,
    pub(super) gid: Wanted,
    pub(super) patience: Duration,
    pub(super) courtesy: Duration,
    pub(super) traffic_class: u8,
    pub(super) service_level: u8,
    pub(super) windows: bool,
}

impl Options {
    pub(super) fn new() -> Options {
        Options {
            device: None,
            gid: Wanted::Best,
            patience: Duration::from_millis(500),
            courtesy: Duration::from_millis(1),
            traffic_class: 0,
            service_level: 0,
            windows: true,
        }
    }
}

/// The device's code for the time-out of one attempt, so that all of them fit into `patience`: 4.096 microseconds, doubled
/// as often as it says.
pub(super) fn timeout_code(patience: Duration) -> u8 {
    let attempts = u128::from(RETRIES) + 1;
    let units = patience.as_nanos() / attempts / 4096;
    let code = u8::try_from(units.checked_ilog2().unwrap_or(0)).unwrap_or(u8::MAX);
    code.clamp(*CODES.start(), *CODES.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_attempts_fit_into_the_patience() {
        assert_eq!(timeout_code(Duration::from_millis(500)), 14);
        for millis in [8, 10, 100, 469, 470, 1000, 10_000, 60_000] {
            let code = u32::from(timeout_code(Duration::from_millis(millis)));
            let longest = u128::from(RETRIES + 1) * 4096 * 2_u128.pow(code);
            assert!(longest <= u128::from(millis) * 1_000_000, "{millis} ms: code {code}");
            assert!(2 * longest > u128::from(millis) * 1_000_000, "{millis} ms: code {code} is shorter than need be");
        }
    }

    #[test]
    fn no_patience_is_endless_and_none_is_nothing() {
        assert_eq!(timeout_code(Duration::ZERO), 8);
        assert_eq!(timeout_code(Duration::MAX), 21);
    }
}
