//! The transport's movements: write, read, write with a notification.

mod pair;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use segstore_transport::shm::Shm;
use segstore_transport::tcp::Tcp;
#[cfg(feature = "verbs")]
use segstore_transport::verbs::Verbs;
use segstore_transport::{Endpoint, Operation, Provider, Region, Wait};

#[cfg(feature = "verbs")]
use crate::raw::verbs;
use crate::raw::{copy, socket};
use crate::second::relax;
use crate::{Bench, Failure, Result, Role, Row, Taken, Way};
use pair::Pair;

/// The sizes that are measured.
pub const SIZES: [(usize, &str); 3] = [(64, "64 B"), (4 << 10, "4 KiB"), (1 << 20, "1 MiB")];
/// The largest of them.
const LONGEST: usize = 1 << 20;
/// In how many places of memory a row is taken.
const PLACES: usize = 3;
/// A request to read, in bytes, as the plain form sends it.
const REQUEST: usize = 32;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Movement {
    /// Posted until completed.
    Write,
    /// Posted until the bytes are here.
    Read,
    /// Posted until the other core has seen the notification.
    Notify,
}

impl Movement {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Write, Self::Read, Self::Notify];

    /// What a row calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Notify => "write and notify",
        }
    }
}

/// The providers, between two ends on this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Over {
    /// Shared memory.
    Shm,
    /// TCP over the loopback device.
    Tcp,
    /// RDMA, from the first device with an active port to itself.
    #[cfg(feature = "verbs")]
    Verbs,
}

impl Over {
    /// Those that this machine has.
    #[must_use]
    pub fn here() -> Vec<Self> {
        [
            Self::Shm,
            Self::Tcp,
            #[cfg(feature = "verbs")]
            Self::Verbs,
        ]
        .into_iter()
        .filter(|over| over.is_here())
        .collect()
    }

    fn is_here(self) -> bool {
        match self {
            Self::Shm | Self::Tcp => true,
            #[cfg(feature = "verbs")]
            Self::Verbs => verbs::first_device().is_ok(),
        }
    }

    /// As options name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Tcp => "tcp",
            #[cfg(feature = "verbs")]
            Self::Verbs => "verbs",
        }
    }

    fn pair(self) -> Result<Pair> {
        match self {
            Self::Shm => Pair::connect(&Shm::new().open()?, &Shm::new().open()?, LONGEST),
            Self::Tcp => {
                let target = Tcp::listening_on(([127, 0, 0, 1], 0)).open()?;
                Pair::connect(&target, &Tcp::dialing_only().open()?, LONGEST)
            }
            #[cfg(feature = "verbs")]
            Self::Verbs => Pair::connect(&Verbs::new().open()?, &Verbs::new().open()?, LONGEST),
        }
    }
}

/// One row: a movement of `len` bytes beside its plain form.
///
/// # Errors
/// What the provider fails with.
pub fn row(bench: &Bench, over: Over, movement: Movement, len: usize, name: &str) -> Result<Row> {
    let mut taken = Taken::default();
    for _ in 0..PLACES {
        with(over, movement, len, |ours, plain| bench.take(&mut taken, PLACES, ours, plain))?;
    }
    Ok(taken.row(name))
}

/// What a row is called.
#[must_use]
pub fn name(over: Over, movement: Movement, size: &str) -> String {
    format!("{} {size} over {}", movement.name(), over.name())
}

/// Sets a movement of `len` bytes and its plain forms up.
///
/// # Errors
/// What the provider fails with, and what `measure` gives.
pub fn with(
    over: Over,
    movement: Movement,
    len: usize,
    measure: impl FnOnce(Way<'_>, Vec<Way<'_>>) -> Result<()>,
) -> Result<()> {
    let mut pair = over.pair()?;
    let copies = copy::Plain::new(LONGEST)?;
    let plain = match (over, movement) {
        (Over::Shm, Movement::Write | Movement::Read) => copies.ways(len),
        (Over::Shm, Movement::Notify) => vec![copies.with_word(len)],
        (Over::Tcp, Movement::Write) => vec![socket::acknowledged(len, 1)?],
        (Over::Tcp, Movement::Read) => vec![socket::round_trip(REQUEST, len, 1)?],
        (Over::Tcp, Movement::Notify) => vec![socket::one_way(len)?],
        #[cfg(feature = "verbs")]
        (Over::Verbs, _) => {
            let device = verbs::first_device()?;
            match movement {
                Movement::Write => vec![verbs::write(&device, &device, len, 1)?],
                Movement::Read => vec![verbs::read(&device, &device, len)?],
                Movement::Notify => Vec::new(),
            }
        }
    };
    measure(pair.way(movement, len), plain)
}

impl Pair {
    /// The movement as this project does it.
    fn way(&mut self, movement: Movement, len: usize) -> Way<'_> {
        let Self { endpoint, local, target, peer } = self;
        if movement == Movement::Notify {
            let seen = Arc::new(AtomicU64::new(0));
            let (target, peer, noticed) = (target.clone(), peer.clone(), seen.clone());
            let other: Role = Arc::new(move |stop| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = target.progress();
                    if let Some(number) = peer.poll_notification() {
                        noticed.store(number, Ordering::Release);
                    }
                    relax();
                }
            });
            let act = notifying(endpoint, local, len, seen);
            return Way { what: "segstore", other: Some(other), act };
        }
        let (target, target_works) = (target.clone(), target.capabilities().needs_target_cpu);
        let other: Role = Arc::new(move |stop| {
            while !stop.load(Ordering::Relaxed) {
                let _ = target.progress();
                relax();
            }
        });
        let other = target_works.then_some(other);
        let act = move || {
            let slice = local.slice(0, len)?;
            let operation =
                if movement == Movement::Read { Operation::read(slice, 0, 0) } else { Operation::write(slice, 0, 0) };
            complete(endpoint, &[operation])
        };
        Way { what: "segstore", other, act: Box::new(act) }
    }
}

fn notifying<'a>(
    endpoint: &'a mut Endpoint,
    local: &'a Region,
    len: usize,
    seen: Arc<AtomicU64>,
) -> Box<dyn FnMut() -> Result<()> + 'a> {
    let mut number = 0;
    Box::new(move || {
        number += 1;
        endpoint.post(&[Operation::write_notify(local.slice(0, len)?, 0, 0, number)], 0)?;
        while seen.load(Ordering::Acquire) != number {
            // A long write is sent by this side's calls; completions are taken along the way.
            while let Some(completion) = endpoint.poll() {
                completion.result?;
            }
            relax();
        }
        Ok(())
    })
}

fn complete(endpoint: &mut Endpoint, batch: &[Operation<'_>]) -> Result<()> {
    endpoint.post(batch, 0)?;
    let completion = endpoint.wait(Wait::Busy, None).ok_or("nothing is in flight")?;
    completion.result.map_err(Failure::from)
}
