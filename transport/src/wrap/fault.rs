//! Makes a chosen operation fail: before it, in the middle of it at a chosen byte, or after it took effect but before
//! that is known. For enumerating crash points over any provider.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Layer, wrap};
use crate::contract::driver::{EndpointDriver, Work};
use crate::{Domain, Error, ErrorKind, Post};

/// What happens to the chosen operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing of it happens, nor of what follows.
    Before,
    /// Its first bytes are written, the rest is not, nor what follows. (For other operations than writes: `Before`.)
    CutAt(usize),
    /// It takes effect, what follows in the batch does not, and the caller does not learn so.
    After,
    /// Its batch completes, but only after so many polls that give nothing.
    Delay(u32),
}

/// The plan: which operation, counted over all endpoints of the wrapped domain, and what happens to it. Every fault but
/// a delay breaks its endpoint. Cheap to clone.
#[derive(Clone, Default)]
pub struct Faults {
    plan: Arc<Mutex<Plan>>,
}

#[derive(Default)]
struct Plan {
    operations: u64,
    next: Option<(u64, Fault)>,
}

impl Faults {
    /// No fault yet.
    pub fn new() -> Faults {
        Faults::default()
    }

    /// The domain, with this plan's faults.
    pub fn around(&self, domain: &Domain) -> Domain {
        wrap(domain, self.clone())
    }

    /// The `nth` operation from now (0: the next) meets `fault`. Replaces what was planned before.
    pub fn inject(&self, nth: u64, fault: Fault) {
        self.with(|plan| plan.next = Some((plan.operations + nth, fault)));
    }

    /// How many operations were posted so far; a whole run without faults tells how many there are to fail.
    pub fn operations(&self) -> u64 {
        self.with(|plan| plan.operations)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Plan) -> T) -> T {
        act(&mut self.plan.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What this batch meets, and at which of its operations.
    fn draw(&self, len: usize) -> Option<(usize, Fault)> {
        self.with(|plan| {
            let (nth, fault) = plan.next?;
            let at = usize::try_from(nth.checked_sub(plan.operations)?).ok()?;
            (at < len).then(|| plan.next.take()).flatten().map(|_| (at, fault))
        })
    }
}

impl Layer for Faults {
    fn around(&self, inner: Box<dyn EndpointDriver>) -> Box<dyn EndpointDriver> {
        Box::new(Faulty { inner, faults: self.clone(), flights: VecDeque::new(), broken: false })
    }
}

/// How a batch in flight shall end.
enum Flight {
    Whole,
    Late(u32),
    /// Part of it was posted.
    Part,
    /// Nothing of it was posted.
    Nothing,
}

struct Faulty {
    inner: Box<dyn EndpointDriver>,
    faults: Faults,
    flights: VecDeque<Flight>,
    broken: bool,
}

impl Faulty {
    /// # Safety
    /// As for `post`.
    unsafe fn post_part(&mut self, batch: &[Work], at: usize, fault: Fault) -> Result<Flight, Post> {
        let mut part = batch[..at].to_vec();
        match (fault, batch[at]) {
            (Fault::After | Fault::Delay(_), work) => part.push(work),
            (Fault::CutAt(len), Work::Write { mut local, remote }) => {
                local.len = local.len.min(len);
                part.push(Work::Write { local, remote });
            }
            (Fault::CutAt(_) | Fault::Before, _) => {}
        }
        part.retain(|work| !matches!(work, Work::Write { local, .. } if local.len == 0));
        if part.is_empty() {
            return Ok(Flight::Nothing);
        }
        // SAFETY: every range is one that the caller promised, or its beginning.
        unsafe { self.inner.post(&part)? };
        Ok(Flight::Part)
    }
}

// SAFETY: it touches no local memory; a batch is reported when the inner driver has reported its part, or after the
// inner driver was aborted.
unsafe impl EndpointDriver for Faulty {
    unsafe fn post(&mut self, batch: &[Work]) -> Result<(), Post> {
        if self.broken {
            return Err(injected().into());
        }
        let drawn = self.faults.draw(batch.len());
        let flight = match drawn {
            None | Some((_, Fault::Delay(_))) => {
                // SAFETY: as the caller promised.
                unsafe { self.inner.post(batch) }.map(|()| match drawn {
                    Some((_, Fault::Delay(polls))) => Flight::Late(polls),
                    _ => Flight::Whole,
                })
            }
            // SAFETY: as the caller promised.
            Some((at, fault)) => unsafe { self.post_part(batch, at, fault) },
        };
        match flight {
            Ok(flight) => {
                self.broken = matches!(flight, Flight::Part | Flight::Nothing);
                self.flights.push_back(flight);
                self.faults.with(|plan| plan.operations += batch.len() as u64);
                Ok(())
            }
            Err(refused) => {
                // Nothing happened, so the fault is still to come.
                if let Some((at, fault)) = drawn {
                    self.faults.inject(at as u64, fault);
                }
                Err(refused)
            }
        }
    }

    fn poll(&mut self) -> Option<Result<(), Error>> {
        match self.flights.front_mut()? {
            Flight::Late(polls) if *polls > 0 => {
                *polls -= 1;
                return None;
            }
            Flight::Nothing => {
                self.inner.abort();
                return Some(Err(injected()));
            }
            Flight::Whole | Flight::Late(_) | Flight::Part => {}
        }
        let ended = self.inner.poll()?;
        let flight = self.flights.pop_front();
        if matches!(flight, Some(Flight::Part)) { Some(ended.and(Err(injected()))) } else { Some(ended) }
    }

    fn abort(&mut self) {
        self.inner.abort();
    }

    fn sleep(&mut self, limit: Duration) {
        self.inner.sleep(limit.min(Duration::from_micros(100)));
    }
}

fn injected() -> Error {
    Error::endpoint(ErrorKind::PeerGone, "an injected fault broke the endpoint")
}
