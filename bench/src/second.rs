//! The other core: a thread that plays the other side while something is timed, and rests otherwise.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};
use segstore_transport::pin_thread;

use crate::Result;
use crate::percentiles::median;

/// What the other side does until the flag is set.
pub type Role = Arc<dyn Fn(&AtomicBool) + Send + Sync>;

/// The thread on the second core.
pub struct Second {
    /// Where the caller may run otherwise.
    callers: Option<CpuSet>,
    orders: Option<Sender<(Role, Arc<Signals>)>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Signals {
    stop: AtomicBool,
    stopped: AtomicBool,
}

/// The caller runs wherever it may until this ends, and on the first core again then.
pub(crate) struct Freed;

/// A role that is being played; it ends with this.
pub(crate) struct Playing(Arc<Signals>);

impl Second {
    /// Starts it, and pins the caller to the first core until it is dropped: with one core only, both share it, and the probe shows
    /// it.
    ///
    /// # Errors
    /// No thread.
    pub fn start() -> Result<Self> {
        let callers = sched_getaffinity(Pid::from_raw(0)).ok();
        let _ = pin_thread(0);
        let (orders, received) = channel::<(Role, Arc<Signals>)>();
        let thread = std::thread::Builder::new().name("bench-second".into()).spawn(move || {
            let _ = pin_thread(1);
            for (role, signals) in received {
                role(&signals.stop);
                signals.stopped.store(true, Ordering::Release);
            }
        })?;
        Ok(Self { callers, orders: Some(orders), thread: Some(thread) })
    }

    /// Lets the caller run wherever it may: it, or threads of its own, take what cores there are, as in an application.
    pub(crate) fn free(&self) -> Freed {
        if let Some(callers) = &self.callers {
            let _ = sched_setaffinity(Pid::from_raw(0), callers);
        }
        Freed
    }

    /// Has it play a role.
    pub(crate) fn play(&self, role: &Role) -> Playing {
        let signals = Arc::new(Signals::default());
        if let Some(orders) = &self.orders {
            // It ends only with `self`.
            let _ = orders.send((role.clone(), signals.clone()));
        }
        Playing(signals)
    }

    /// A cache line there and back, in microseconds: the median of many.
    pub(crate) fn cache_line(&self) -> f64 {
        const TIMES: u64 = 2000;
        #[derive(Default)]
        #[repr(align(128))]
        struct Line(AtomicU64);
        let lines: Arc<(Line, Line)> = Arc::default();
        let (asked, answered) = (&lines.0.0, &lines.1.0);
        let role: Role = {
            let lines = lines.clone();
            Arc::new(move |stop| {
                while !stop.load(Ordering::Relaxed) {
                    lines.1.0.store(lines.0.0.load(Ordering::Acquire), Ordering::Release);
                    relax();
                }
            })
        };
        let playing = self.play(&role);
        let round = |number| {
            let began = Instant::now();
            asked.store(number, Ordering::Release);
            while answered.load(Ordering::Acquire) != number {
                relax();
            }
            began.elapsed().as_secs_f64() * 1e6
        };
        let rounds = (1..=TIMES).map(round).collect();
        drop(playing);
        median(rounds)
    }
}

/// Lets a moment pass before the other side is looked at again: on a machine with one core the other side needs it.
pub(crate) fn relax() {
    static IS_SHARED: OnceLock<bool> = OnceLock::new();
    if *IS_SHARED.get_or_init(|| sysconf(SysconfVar::_NPROCESSORS_ONLN) == Ok(Some(1))) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

impl Drop for Freed {
    fn drop(&mut self) {
        let _ = pin_thread(0);
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
        while !self.0.stopped.load(Ordering::Acquire) {
            relax();
        }
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // Processes that the caller starts inherit where it may run: a daemon on the measuring core alone would be half of what it is.
        if let Some(callers) = &self.callers {
            let _ = sched_setaffinity(Pid::from_raw(0), callers);
        }
    }
}
