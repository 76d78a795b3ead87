//! What may be said of a stranger again and again: once, and then so seldom that a log stays readable.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long nothing more is said of an address.
const PAUSE: Duration = Duration::from_secs(60);

/// What was said of which address.
#[derive(Default)]
pub(super) struct Repeats(HashMap<IpAddr, Said>);

struct Said {
    at: Instant,
    left_out: u64,
}

impl Repeats {
    /// Whether to say it of `from` now: then, how many times it was left out since the last time.
    pub(super) fn due(&mut self, from: IpAddr, now: Instant) -> Option<u64> {
        // Who was away for a whole pause begins anew, so that no number of addresses is kept for ever.
        self.0.retain(|_, said| now.duration_since(said.at) < 2 * PAUSE);
        let Some(said) = self.0.get_mut(&from) else {
            self.0.insert(from, Said { at: now, left_out: 0 });
            return Some(0);
        };
        if now.duration_since(said.at) < PAUSE {
            said.left_out += 1;
            return None;
        }
        let left_out = std::mem::take(&mut said.left_out);
        said.at = now;
        Some(left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_a_minute_of_each_address() {
        let (mut repeats, began) = (Repeats::default(), Instant::now());
        let [one, other] = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])];
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(repeats.due(one, at(0)), Some(0), "the first is said at once");
        for second in 1..60 {
            assert_eq!(repeats.due(one, at(second)), None);
        }
        assert_eq!(repeats.due(other, at(59)), Some(0), "of another one nothing was said");
        assert_eq!(repeats.due(one, at(60)), Some(59));
        assert_eq!(repeats.due(one, at(61)), None);
        assert_eq!(repeats.due(one, at(125)), Some(1), "a pause is not counted from the last try");
        assert_eq!(repeats.due(other, at(200)), Some(0), "it was away");
        assert_eq!(repeats.0.len(), 2);
        repeats.due(other, at(1000));
        assert_eq!(repeats.0.len(), 1, "who stays away is forgotten");
    }
}
