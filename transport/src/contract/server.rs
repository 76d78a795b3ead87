//! Threads that do the target's part for providers that need its processor.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Domain, Error, Result, Wait, pin_thread};
use crate::sync::{AtomicBool, Ordering};

/// The longest single sleep: whatever a server has to do wakes it.
const NAP: Duration = Duration::from_secs(1);
/// Between two attempts to wake a thread that is to stop.
const STOPPING: Duration = Duration::from_micros(50);

/// How to run a [`Server`].
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The threads' name; a number follows.
    pub name: String,
    /// The processors to pin one thread to each; empty: one thread, not pinned.
    pub cpus: Vec<usize>,
    /// How the threads wait.
    pub wait: Wait,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions { name: "segstore".into(), cpus: Vec::new(), wait: Wait::default() }
    }
}

/// Threads that call `progress` until it is dropped.
pub struct Server {
    domain: Domain,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Server {
    /// Starts the threads.
    ///
    /// # Errors
    /// `Exhausted` or `System` when a thread cannot be started.
    pub fn start(domain: &Domain, options: &ServerOptions) -> Result<Server> {
        let mut server = Server { domain: domain.clone(), stop: Arc::new(AtomicBool::new(false)), threads: Vec::new() };
        let cpus = if options.cpus.is_empty() { vec![None] } else { options.cpus.iter().copied().map(Some).collect() };
        for (index, cpu) in cpus.into_iter().enumerate() {
            let (domain, stop, wait) = (domain.clone(), server.stop.clone(), options.wait);
            let body = move || {
                cpu.map_or(Ok(()), pin_thread)?;
                serve(&domain, &stop, wait)
            };
            let named = std::thread::Builder::new().name(format!("{}-{index}", options.name));
            server.threads.push(named.spawn(body).map_err(|error| Error::system("starting a server thread", error))?);
        }
        Ok(server)
    }

    /// Stops the threads; gives the error that ended one of them early, if any.
    ///
    /// # Errors
    /// What broke the domain, or a processor that does not exist.
    pub fn stop(mut self) -> Result<()> {
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        let ends = self.threads.drain(..).map(|thread| {
            // One at a time: a wake ends one sleep.
            while !thread.is_finished() {
                self.domain.driver().wake();
                std::thread::sleep(STOPPING);
            }
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        ends.collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = self.join();
        }
    }
}

fn serve(domain: &Domain, stop: &AtomicBool, wait: Wait) -> Result<()> {
    loop {
        let look = || {
            if stop.load(Ordering::Acquire) {
                return Some(Ok(0));
            }
            domain.progress().map(|done| (done > 0).then_some(done)).transpose()
        };
        wait.until_within(NAP, None, look, |limit| domain.driver().sleep(limit)).transpose()?;
        if stop.load(Ordering::Acquire) {
            return Ok(());
        }
    }
}
