//! The initiator's side of a connection: checks, leases, latching and waiting, once for every provider.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::driver::{EndpointDriver, Local, Place, Work};
use super::{Capabilities, Completion, Domain, Error, ErrorKind, Granted, Operation, Post, Region, Remote, Result};
use super::{Rights, Scope, Slice, Wait};
use crate::memory::loss;

/// A connection to one peer's granted regions. One thread at a time uses it.
///
/// Batches complete in the order posted. After the first error everything in flight and everything later fails with
/// that error. Dropping it gives up what is in flight.
pub struct Endpoint {
    // Field order is drop order: the driver goes first, so that no transfer outlives its leases.
    driver: Box<dyn EndpointDriver>,
    flights: VecDeque<Flight>,
    /// Lease lists of flights that ended, kept so that posting allocates nothing.
    spare: Vec<Vec<Region>>,
    /// The batch as the driver gets it.
    work: Vec<Work>,
    granted: Vec<Granted>,
    failed: Option<Error>,
    limits: Capabilities,
    domain: Domain,
}

/// A batch that was posted and has not been reported: it keeps its local memory registered and mapped.
struct Flight {
    id: u64,
    leases: Vec<Region>,
}

impl Endpoint {
    pub(super) fn new(driver: Box<dyn EndpointDriver>, domain: Domain, granted: Vec<Granted>) -> Endpoint {
        let limits = domain.capabilities();
        Endpoint {
            driver,
            flights: VecDeque::with_capacity(limits.max_outstanding),
            spare: Vec::with_capacity(limits.max_outstanding),
            work: Vec::with_capacity(64),
            granted,
            failed: None,
            limits,
            domain,
        }
    }

    /// What the target granted, in its order.
    pub fn granted(&self) -> &[Granted] {
        &self.granted
    }

    /// The batches in flight.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// The error that broke this endpoint, if one did.
    pub fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Posts a batch: all of it, or nothing. It ends with one [`Completion`] that carries `id` (any number).
    ///
    /// # Errors
    /// `WouldBlock`: no room now. `Failed`: a wrong value, when the error's scope is the operation; otherwise the
    /// endpoint is broken. Nothing of the batch happened in any of these cases.
    pub fn post(&mut self, batch: &[Operation<'_>], id: u64) -> std::result::Result<(), Post> {
        if let Some(error) = &self.failed {
            return Err(Post::Failed(error.clone()));
        }
        if self.flights.len() >= self.limits.max_outstanding {
            return Err(Post::WouldBlock);
        }
        self.prepare(batch)?;
        let mut leases = self.spare.pop().unwrap_or_default();
        lease(batch, &mut leases);
        // SAFETY: `prepare` took every local range from a slice, which lies inside its region's memory; the leases keep
        // that memory mapped, and go only when the batch was reported, or after an abort or the driver's drop.
        match unsafe { self.driver.post(&self.work) } {
            Ok(()) => {
                self.flights.push_back(Flight { id, leases });
                Ok(())
            }
            Err(refused) => {
                self.recycle(leases);
                if let Post::Failed(error) = refused {
                    return Err(Post::Failed(self.latch(error)));
                }
                Err(refused)
            }
        }
    }

    /// The end of the oldest batch in flight, if it has ended.
    pub fn poll(&mut self) -> Option<Completion> {
        if self.flights.is_empty() {
            return None;
        }
        let result = match &self.failed {
            Some(error) => Err(error.clone()),
            None => self.driver.poll()?.and_then(|()| self.whole()).map_err(|error| self.latch(error)),
        };
        let flight = self.flights.pop_front()?;
        self.recycle(flight.leases);
        Some(Completion { id: flight.id, result })
    }

    /// Waits for the end of the oldest batch in flight, at most until `deadline` (`None`: for ever). Gives `None` when
    /// the deadline has passed, or nothing is in flight. To give up after a time-out, call [`Endpoint::abort`].
    pub fn wait(&mut self, wait: Wait, deadline: Option<Instant>) -> Option<Completion> {
        // One cell for both closures: they are never called at the same time.
        let this = std::cell::RefCell::new(self);
        let idle = || this.borrow().flights.is_empty();
        let look = || if idle() { Some(None) } else { this.borrow_mut().poll().map(Some) };
        wait.until(deadline, look, |limit: Duration| this.borrow_mut().driver.sleep(limit)).flatten()
    }

    /// Gives the endpoint up. When it returns, nothing reads or writes local memory for it any more; what was in
    /// flight is reported by `poll` as `Aborted`, and may or may not have taken effect.
    pub fn abort(&mut self) {
        self.latch(Error::endpoint(ErrorKind::Aborted, "the endpoint was aborted by this side"));
    }

    /// Whether the local memory of the oldest batch is still memory.
    fn whole(&self) -> Result<()> {
        if !loss::any() {
            return Ok(());
        }
        let leases = self.flights.front().map_or(&[][..], |flight| &flight.leases);
        leases.iter().try_for_each(|region| region.memory().check_whole())
    }

    /// The first error is kept; the driver is stopped, so that the leases may go.
    fn latch(&mut self, error: Error) -> Error {
        if self.failed.is_none() {
            self.driver.abort();
        }
        let scope = error.scope().max(Scope::Endpoint);
        self.failed.get_or_insert_with(|| error.with_scope(scope)).clone()
    }

    fn recycle(&mut self, mut leases: Vec<Region>) {
        leases.clear();
        self.spare.push(leases);
    }

    /// Checks every operation and lays the batch out for the driver.
    fn prepare(&mut self, batch: &[Operation<'_>]) -> Result<()> {
        self.work.clear();
        let mut notifications = 0;
        for operation in batch {
            match *operation {
                Operation::Write { local, remote } => {
                    let place = self.place(remote, local.len(), Rights::WRITE)?;
                    self.split(local, place, |local, remote| Work::Write { local, remote })?;
                }
                Operation::Read { local, remote } => {
                    let place = self.place(remote, local.len(), Rights::READ)?;
                    writable(local)?;
                    self.split(local, place, |local, remote| Work::Read { local, remote })?;
                }
                Operation::WriteNotify { local, remote, value } => {
                    let place = self.place(remote, local.len(), Rights::WRITE)?;
                    self.supports(self.limits.notifications, "notifications")?;
                    self.split(local, place, |local, remote| Work::Write { local, remote })?;
                    self.work.push(Work::Notify { value });
                    notifications += 1;
                }
                Operation::CompareSwap { local, remote, expected, new } => {
                    let place = self.place(remote, 8, Rights::ATOMIC)?;
                    self.supports(self.limits.atomics, "compare_swap")?;
                    self.word(local, remote)?;
                    let local = self.local(local)?;
                    self.work.push(Work::CompareSwap { local, remote: place, expected, new });
                }
                Operation::Flush => self.work.push(Work::Flush),
            }
        }
        if notifications > self.limits.max_notifications {
            return Err(Error::invalid(format!(
                "the batch has {notifications} notifications, the limit is {}: post it in parts",
                self.limits.max_notifications
            )));
        }
        match self.work.len() {
            0 => Err(Error::invalid("the batch has nothing to do: post at least one operation that moves a byte")),
            len if len > self.limits.max_batch => Err(Error::invalid(format!(
                "the batch is {len} operations after splitting to {} bytes each, the limit is {}: post it in parts",
                self.limits.max_message, self.limits.max_batch
            ))),
            _ => Ok(()),
        }
    }

    /// A remote range inside a grant that has the right.
    fn place(&self, remote: Remote, len: usize, needed: Rights) -> Result<Place> {
        let granted = self.granted.get(remote.grant).ok_or_else(|| {
            Error::invalid(format!("grant {}: this endpoint was granted {} regions", remote.grant, self.granted.len()))
        })?;
        if remote.offset.checked_add(len as u64).is_none_or(|end| end > granted.len) {
            return Err(Error::invalid(format!(
                "offset {} and length {len} are not inside grant {} of {} bytes",
                remote.offset, remote.grant, granted.len
            )));
        }
        if !granted.rights.has(needed) {
            return Err(Error::invalid(format!(
                "the operation needs {needed:?}, grant {} has {:?}: have it granted",
                remote.grant, granted.rights
            )));
        }
        // The number of grants is limited far below u32::MAX.
        #[expect(clippy::cast_possible_truncation, reason = "an index into the grants")]
        Ok(Place { grant: remote.grant as u32, offset: remote.offset })
    }

    fn local(&self, slice: Slice<'_>) -> Result<Local> {
        if !slice.region().is_of(&self.domain) {
            return Err(Error::invalid("the local slice is of another domain's region: register its memory here"));
        }
        Ok(Local { address: slice.address(), len: slice.len(), key: slice.region().driver().local_key() })
    }

    /// One piece per `max_message` bytes; nothing for a slice of length 0.
    fn split(&mut self, slice: Slice<'_>, place: Place, make: impl Fn(Local, Place) -> Work) -> Result<()> {
        let whole = self.local(slice)?;
        let mut done = 0;
        while done < whole.len {
            let len = (whole.len - done).min(self.limits.max_message);
            let local = Local { address: whole.address.wrapping_add(done), len, key: whole.key };
            self.work.push(make(local, Place { grant: place.grant, offset: place.offset + done as u64 }));
            done += len;
        }
        Ok(())
    }

    fn supports(&self, able: bool, what: &str) -> Result<()> {
        let provider = self.limits.provider;
        let unable = || Error::operation(ErrorKind::Unsupported, format!("{provider} has no {what}"));
        able.then_some(()).ok_or_else(unable)
    }

    fn word(&self, local: Slice<'_>, remote: Remote) -> Result<()> {
        writable(local)?;
        if local.len() != 8 || !local.address().addr().is_multiple_of(8) || !remote.offset.is_multiple_of(8) {
            return Err(Error::invalid(format!(
                "compare_swap with {} local bytes at offset {} and remote offset {}: it takes 8 bytes, both aligned to 8",
                local.len(),
                local.offset(),
                remote.offset
            )));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("domain", &self.domain)
            .field("granted", &self.granted)
            .field("in_flight", &self.flights.len())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// Operations that change local memory need memory that may be changed.
fn writable(local: Slice<'_>) -> Result<()> {
    if local.region().memory().is_writable() {
        return Ok(());
    }
    Err(Error::invalid("the local slice is of memory mapped for reading only: read into other memory"))
}

/// Every region that the batch uses, once where neighbours are the same.
fn lease(batch: &[Operation<'_>], leases: &mut Vec<Region>) {
    for operation in batch {
        let (Operation::Write { local, .. }
        | Operation::Read { local, .. }
        | Operation::WriteNotify { local, .. }
        | Operation::CompareSwap { local, .. }) = operation
        else {
            continue;
        };
        if !leases.last().is_some_and(|last| last.same(local.region())) {
            leases.push(local.region().clone());
        }
    }
}
