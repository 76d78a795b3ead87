//! Tells a function of the caller's everything that its endpoints do.

use std::sync::Arc;
use std::time::Duration;

use super::{Layer, wrap};
use crate::contract::driver::{EndpointDriver, Work};
use crate::sync::{AtomicU64, Ordering};
use crate::{Domain, Error, Post};

/// One thing that happened on an endpoint.
#[derive(Debug)]
pub struct Event<'e> {
    /// Which endpoint: they are numbered from 0 as they connect.
    pub endpoint: u64,
    /// What happened.
    pub what: What<'e>,
}

/// What can happen.
#[derive(Debug)]
pub enum What<'e> {
    /// A batch was posted, or refused.
    Posted {
        /// It, as the driver gets it.
        batch: &'e [Work],
        /// How that ended.
        result: &'e Result<(), Post>,
    },
    /// The oldest batch ended.
    Completed(&'e Result<(), Error>),
    /// The endpoint was given up.
    Aborted,
}

type Sink = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// The domain, whose endpoints tell `sink` what they do, on the thread that does it.
pub fn around(domain: &Domain, sink: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Domain {
    wrap(domain, Tracer { sink: Arc::new(sink), endpoints: AtomicU64::new(0) })
}

struct Tracer {
    sink: Sink,
    endpoints: AtomicU64,
}

impl Layer for Tracer {
    fn around(&self, inner: Box<dyn EndpointDriver>) -> Box<dyn EndpointDriver> {
        let number = self.endpoints.fetch_add(1, Ordering::Relaxed);
        Box::new(Traced { inner, sink: self.sink.clone(), number })
    }
}

struct Traced {
    inner: Box<dyn EndpointDriver>,
    sink: Sink,
    number: u64,
}

impl Traced {
    fn tell(&self, what: What<'_>) {
        (self.sink)(&Event { endpoint: self.number, what });
    }
}

// SAFETY: it touches no local memory, and passes every call on.
unsafe impl EndpointDriver for Traced {
    unsafe fn post(&mut self, batch: &[Work]) -> Result<(), Post> {
        // SAFETY: as the caller promised.
        let result = unsafe { self.inner.post(batch) };
        self.tell(What::Posted { batch, result: &result });
        result
    }

    fn poll(&mut self) -> Option<Result<(), Error>> {
        let ended = self.inner.poll()?;
        self.tell(What::Completed(&ended));
        Some(ended)
    }

    fn abort(&mut self) {
        self.inner.abort();
        self.tell(What::Aborted);
    }

    fn sleep(&mut self, limit: Duration) {
        self.inner.sleep(limit);
    }
}
