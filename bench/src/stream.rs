//! Several operations in flight, one behind the other.

use std::time::{Duration, Instant};

use segstore_transport::{Endpoint, Operation, Region};

use crate::Result;
use crate::moves::Movement;
use crate::second::relax;

/// After so long an operation has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked for between two looks at the clock, which may be a system call.
const LOOKS: usize = 1000;

/// What takes operations of one kind and length.
pub trait Pipe {
    /// Starts the next one.
    ///
    /// # Errors
    /// It is refused.
    fn post(&mut self) -> Result<()>;

    /// Waits for the end of the oldest one.
    ///
    /// # Errors
    /// It failed.
    fn complete(&mut self) -> Result<()>;
}

/// Writes or reads through an endpoint, each of the next bytes of the local memory at the same place of grant 0. Their ends are looked for
/// without a pause, as the tools of RDMA do.
pub struct OneSided<'e> {
    endpoint: &'e mut Endpoint,
    local: &'e Region,
    movement: Movement,
    len: usize,
    at: usize,
}

impl<'e> OneSided<'e> {
    /// Of `len` bytes each. A [`Movement::Notify`] is not looked for at the other side.
    pub fn new(endpoint: &'e mut Endpoint, local: &'e Region, movement: Movement, len: usize) -> Self {
        Self { endpoint, local, movement, len, at: 0 }
    }
}

impl Pipe for OneSided<'_> {
    fn post(&mut self) -> Result<()> {
        if self.at + self.len > self.local.memory().len() {
            self.at = 0;
        }
        let (slice, to) = (self.local.slice(self.at, self.len)?, self.at as u64);
        let operation = match self.movement {
            Movement::Write => Operation::write(slice, 0, to),
            Movement::Read => Operation::read(slice, 0, to),
            Movement::Notify => Operation::write_notify(slice, 0, to, to),
        };
        self.at += self.len;
        Ok(self.endpoint.post(&[operation], 0)?)
    }

    fn complete(&mut self) -> Result<()> {
        let mut since = None;
        loop {
            for _ in 0..LOOKS {
                if let Some(completion) = self.endpoint.poll() {
                    return Ok(completion.result?);
                }
                relax();
            }
            if since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                self.endpoint.abort();
                return Err(format!("an operation has not completed for {} s", PATIENCE.as_secs()).into());
            }
        }
    }
}

/// When each operation was posted, and had completed.
#[derive(Clone, Debug)]
pub struct Stream(Vec<(Duration, Duration)>);

impl Stream {
    /// Does `count` operations, of which `in_flight` are under way at a time.
    ///
    /// # Errors
    /// One was refused, or failed.
    pub fn measure(pipe: &mut impl Pipe, count: usize, in_flight: usize) -> Result<Self> {
        Self::measure_for(pipe, count, in_flight, Duration::MAX)
    }

    /// The same, but none is started after `longest`: on a slow fabric a thousand long ones would take minutes.
    ///
    /// # Errors
    /// One was refused, or failed.
    pub fn measure_for(pipe: &mut impl Pipe, count: usize, in_flight: usize, longest: Duration) -> Result<Self> {
        let mut times = Vec::with_capacity(count);
        let (began, mut completed, mut is_enough) = (Instant::now(), 0, false);
        while !is_enough || completed < times.len() {
            if !is_enough && times.len() - completed < in_flight {
                let posted = began.elapsed();
                times.push((posted, Duration::MAX));
                pipe.post()?;
                is_enough = times.len() >= count || posted > longest;
            } else {
                pipe.complete()?;
                times[completed].1 = began.elapsed();
                completed += 1;
            }
        }
        Ok(Self(times))
    }

    /// How many were done.
    pub fn done(&self) -> usize {
        self.0.len()
    }

    /// How long each took.
    pub fn latencies(&self) -> impl Iterator<Item = Duration> {
        self.0.iter().map(|(posted, completed)| *completed - *posted)
    }

    /// Operations in a second, on average.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let (first, last) = (self.0.first(), self.0.last());
        let took = first.zip(last).map_or(f64::NAN, |(first, last)| (last.1 - first.0).as_secs_f64());
        count(self.0.len()) / took
    }

    /// The same of the best stretch, of whatever length: what perftest calls the peak.
    #[must_use]
    pub fn best_rate(&self) -> f64 {
        let of_stretch = |(first, (posted, _)): (usize, &(Duration, Duration))| {
            let ends = self.0[first..].iter().zip(1..);
            ends.map(|((_, completed), long)| count(long) / (*completed - *posted).as_secs_f64()).fold(0.0, f64::max)
        };
        self.0.iter().enumerate().map(of_stretch).fold(0.0, f64::max)
    }
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 operations")]
pub(crate) fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_all_and_of_the_best_stretch() {
        let second = Duration::from_secs;
        let stream = Stream(vec![(second(0), second(4)), (second(4), second(5)), (second(4), second(6))]);
        assert_eq!((stream.rate(), stream.best_rate()), (0.5, 1.0));
    }

    #[test]
    fn so_many_are_in_flight() {
        #[derive(Default)]
        struct Counting(usize, usize);
        impl Pipe for Counting {
            fn post(&mut self) -> Result<()> {
                self.0 += 1;
                self.1 = self.1.max(self.0);
                Ok(())
            }

            fn complete(&mut self) -> Result<()> {
                self.0 -= 1;
                Ok(())
            }
        }
        let mut pipe = Counting::default();
        let stream = Stream::measure(&mut pipe, 10, 4).expect("nothing fails");
        assert_eq!((pipe.0, pipe.1, stream.latencies().count()), (0, 4, 10));
    }
}
