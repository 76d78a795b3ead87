//! How to wait: spinning, sleeping, or first the one and then the other.

use std::time::{Duration, Instant};

use super::{Error, Result};

/// How a thread waits for something that another core or machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Look again and again: the shortest delay, and a whole core.
    Busy,
    /// Look for `spin`, letting others have the core in between, then sleep.
    Adaptive {
        /// How long to look before sleeping.
        spin: Duration,
    },
    /// Sleep at once.
    Event,
}

impl Default for Wait {
    /// Adaptive: 20 microseconds of looking, about what one sleep and wake costs.
    fn default() -> Wait {
        Wait::Adaptive { spin: Duration::from_micros(20) }
    }
}

/// The longest single sleep: a missed wake-up costs no more than this.
const NAP: Duration = Duration::from_millis(10);

/// How often to look before the clock is read once.
const LOOKS: u32 = 4;

/// How long to look before others have the core, if there are any. (A yield to nobody costs a sixth of a microsecond.)
const TURN: Duration = Duration::from_micros(1);

impl Wait {
    /// Calls `look` until it gives something or `deadline` has passed; in between spins, or calls `sleep` with how
    /// long it may sleep. `None` as the deadline waits for ever. Looks at least once.
    pub fn until<T>(
        self,
        deadline: Option<Instant>,
        look: impl FnMut() -> Option<T>,
        sleep: impl FnMut(Duration),
    ) -> Option<T> {
        self.until_within(NAP, deadline, look, sleep)
    }

    /// The same, sleeping for longer at a time where nothing can be missed.
    pub(crate) fn until_within<T>(
        self,
        nap: Duration,
        deadline: Option<Instant>,
        mut look: impl FnMut() -> Option<T>,
        mut sleep: impl FnMut(Duration),
    ) -> Option<T> {
        if let Some(found) = look() {
            return Some(found);
        }
        let started = Instant::now();
        let mut yielded = started;
        loop {
            let now = Instant::now();
            let left = deadline.map_or(nap, |end| end.saturating_duration_since(now));
            if left.is_zero() {
                return look();
            }
            let spinning = match self {
                Wait::Busy => true,
                Wait::Adaptive { spin } => now - started < spin,
                Wait::Event => false,
            };
            if !spinning {
                sleep(left.min(nap));
            } else if self != Wait::Busy && now - yielded > TURN {
                // Whom this waits for may want this very core.
                std::thread::yield_now();
                yielded = now;
            }
            for _ in 0..if spinning { LOOKS } else { 1 } {
                if let Some(found) = look() {
                    return Some(found);
                }
                std::hint::spin_loop();
            }
        }
    }
}

/// Binds the calling thread to one processor.
///
/// # Errors
/// `InvalidInput` when there is no such processor, or it is not allowed to this process.
pub fn pin_thread(cpu: usize) -> Result<()> {
    let mut set = nix::sched::CpuSet::new();
    let bound = set.set(cpu).and_then(|()| nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set));
    bound.map_err(|error| {
        Error::invalid(format!(
            "cannot pin a thread to processor {cpu}: {error}; see Cpus_allowed in /proc/self/status"
        ))
    })
}
