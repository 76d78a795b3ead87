//! The initiator's side: batches become lists of work for the device, and its completions their ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ibverbs_sys::ibv_wc_status::{IBV_WC_SUCCESS, IBV_WC_WR_FLUSH_ERR};
use zerocopy::IntoBytes;

use super::completions::{BATCH, Done};
use super::fault;
use super::notifications::RING;
use super::queue_pair::{Depth, QueuePair};
use super::registration::{ProtectionDomain, Registration, local_access};
use super::requests::{Requests, There};
use super::wire::{Address, MAX_PACKET, MESSAGE, Message, Opened, kind};
use crate::contract::driver::{EndpointDriver, Local, Place, Work};
use crate::memory::Memory;
use crate::sync::Ordering;
use crate::{Error, ErrorKind, Post, Scope};

/// The most requests in a batch.
pub(super) const MAX_BATCH: u32 = 256;
/// Requests that fit onto the device's queue: more than two batches of the longest kind, and one to ask for room.
const REQUESTS: u32 = 2 * MAX_BATCH + 1;
/// Room for the target's last message.
const MESSAGES: u32 = 1;
/// What the message's completion says.
const RECEIVED: u64 = 1 << 63;

/// Where in the scratch memory things come to: the count of notifications taken, what a flush reads, the last message. The knock
/// leaves from there, and a packet as long comes back to where it stood.
const TAKEN: usize = 0;
const FLUSHED: usize = 8;
const GOODBYE: usize = 64;
const KNOCK: usize = 128;

/// A queue pair with what it needs of its own, before and after it is connected.
pub(super) struct VerbsEndpoint {
    // Field order is drop order: the queue pair goes before the memory that it may still use.
    queue_pair: QueuePair,
    scratch: Registration,
    requests: Requests,
    /// Where the target counts notifications, and the regions that it granted.
    taken_at: There,
    granted: Vec<There>,
    /// Requests posted, and done by the device's word.
    posted: u64,
    done: u64,
    /// Where the batches that were not reported end.
    ends: VecDeque<u64>,
    /// Notifications sent, and taken by the target's word.
    notified: u64,
    taken: u64,
    /// The request that asks for the target's word.
    asked: Option<u64>,
    broken: Option<Error>,
}

impl VerbsEndpoint {
    pub(super) fn new(domain: &Arc<ProtectionDomain>) -> Result<VerbsEndpoint, Error> {
        let depth = Depth { requests: REQUESTS, messages: MESSAGES };
        let completions = super::completions::Completions::new(domain.device.clone(), depth.requests + depth.messages)?;
        let queue_pair = QueuePair::new(domain, &Arc::new(completions), depth)?;
        let memory = Memory::local(KNOCK + MAX_PACKET as usize)?;
        let scratch = Registration::new(domain, &memory, local_access(&memory))?;
        queue_pair.post_room(&scratch, GOODBYE, MESSAGE, RECEIVED)?;
        Ok(VerbsEndpoint {
            queue_pair,
            scratch,
            requests: Requests::new(MAX_BATCH as usize),
            taken_at: There { address: 0, key: 0 },
            granted: Vec::new(),
            posted: 0,
            done: 0,
            ends: VecDeque::with_capacity(128),
            notified: 0,
            taken: 0,
            asked: None,
            broken: None,
        })
    }

    pub(super) fn address(&self) -> Address {
        self.queue_pair.address()
    }

    pub(super) fn queue_pair(&self) -> &QueuePair {
        &self.queue_pair
    }

    /// The target's side of what operations name.
    pub(super) fn grant(&mut self, taken: (u64, u32), granted: &[Opened]) {
        self.taken_at = There { address: taken.0, key: taken.1 };
        self.granted = granted.iter().map(|opened| There { address: opened.base, key: opened.key }).collect();
    }

    /// Tells the target that this side is connected; `Ok` when the target has it. In both directions with a packet of the full
    /// length: a way may let short ones through alone, and then no data.
    pub(super) fn knock(&mut self, packet: u32, until: Instant) -> Result<(), Error> {
        self.scratch.memory.write_at(KNOCK, Message::new(kind::KNOCK, 0).as_bytes())?;
        let place = self.place(KNOCK, packet as usize);
        self.requests.clear();
        self.requests.long_message(place);
        self.requests.read(place, self.taken_at);
        self.send()?;
        while self.done < self.posted && self.broken.is_none() && Instant::now() < until {
            self.sleep(until.saturating_duration_since(Instant::now()));
            self.hear();
        }
        match &self.broken {
            Some(error) => Err(error.clone()),
            None if self.done < self.posted => {
                Err(Error::endpoint(ErrorKind::TimedOut, "the device did not say in time whether the target answers"))
            }
            None => Ok(()),
        }
    }

    /// Whether the batch may start: room on the queue, and for its notifications at the target.
    fn may_start(&mut self, batch: &[Work]) -> Result<(), Post> {
        let requests = batch.len() as u64;
        // One is left for asking for the target's word.
        if self.in_use() + requests >= REQUESTS.into() {
            self.hear();
            if self.in_use() + requests >= REQUESTS.into() {
                return self.blocked();
            }
        }
        let notifications = batch.iter().filter(|work| matches!(work, Work::Notify { .. })).count() as u64;
        if notifications > 0 && self.notified + notifications - self.taken > RING {
            // Nobody polls when nothing is in flight, so news of room is looked for here.
            self.hear();
            if self.notified + notifications - self.taken > RING {
                self.ask()?;
                return self.blocked();
            }
        }
        self.notified += notifications;
        Ok(())
    }

    fn in_use(&self) -> u64 {
        self.posted - self.done
    }

    fn blocked(&self) -> Result<(), Post> {
        Err(self.broken.clone().map_or(Post::WouldBlock, Post::Failed))
    }

    /// Reads the target's count of notifications taken, if that is not under way.
    fn ask(&mut self) -> Result<(), Error> {
        if self.asked.is_some() || self.broken.is_some() {
            return Ok(());
        }
        self.requests.clear();
        self.requests.read(self.word(TAKEN), self.taken_at);
        self.send()?;
        self.asked = Some(self.posted);
        Ok(())
    }

    fn push(&mut self, work: &Work) {
        let inline = self.queue_pair.inline;
        match *work {
            Work::Write { local, remote } => self.requests.write(local, self.there(remote), inline),
            Work::Read { local, remote } => self.requests.read(local, self.there(remote)),
            Work::CompareSwap { local, remote, expected, new } => {
                self.requests.compare_swap(local, self.there(remote), expected, new);
            }
            Work::Notify { value } => self.requests.message(Message::new(kind::NOTIFY, value)),
            // A read takes effect after what was posted before it, and drives that to where the target's processor sees it.
            Work::Flush => self.requests.read(self.word(FLUSHED), self.taken_at),
        }
    }

    /// Posts what was collected.
    fn send(&mut self) -> Result<(), Error> {
        self.posted += self.requests.len() as u64;
        // SAFETY: local places are the scratch memory, which goes after the queue pair, or of the batch, which the caller
        // of `post` keeps until a completion that comes later, or the queue pair was taken away.
        let sent = unsafe { self.queue_pair.post(&mut self.requests, self.posted) };
        sent.map_err(|error| self.fail(error))
    }

    fn word(&self, offset: usize) -> Local {
        self.place(offset, 8)
    }

    fn place(&self, offset: usize, len: usize) -> Local {
        let address = self.scratch.memory.as_ptr().wrapping_add(offset);
        Local { address, len, key: self.scratch.local_key().into() }
    }

    /// The contract checked the place against the grants.
    fn there(&self, place: Place) -> There {
        let grant = self.granted[place.grant as usize];
        There { address: grant.address + place.offset, key: grant.key }
    }

    /// Takes what the device has to say.
    fn hear(&mut self) {
        loop {
            let found = match self.queue_pair.completions().poll() {
                Ok(found) => found,
                Err(error) => return drop(self.fail(error)),
            };
            let mut count = 0;
            for done in found {
                count += 1;
                if let Err(error) = self.take(done) {
                    self.fail(error);
                }
            }
            if count < BATCH {
                break;
            }
        }
        if let Err(error) = self.learn().and_then(|()| self.queue_pair.completions().device.health.check()) {
            self.fail(error);
        }
    }

    fn take(&mut self, done: Done) -> Result<(), Error> {
        if done.status == IBV_WC_WR_FLUSH_ERR && done.id & RECEIVED != 0 && self.in_use() > 0 {
            // Why, the end of what is under way says.
            return Ok(());
        }
        if done.status != IBV_WC_SUCCESS {
            return Err(fault::of_request(done.status, &self.queue_pair.completions().device.health));
        }
        if done.id & RECEIVED == 0 {
            self.done = self.done.max(done.id);
            return Ok(());
        }
        let mut bytes = [0; MESSAGE as usize];
        self.scratch.memory.read_at(GOODBYE, &mut bytes)?;
        let there = bytes.get(..done.len).unwrap_or(&bytes);
        Message::parse(there).and_then(|message| Err(fault::heard(&message)))
    }

    /// The answer to `ask`, if it is here.
    fn learn(&mut self) -> Result<(), Error> {
        if self.asked.is_none_or(|asked| self.done < asked) {
            return Ok(());
        }
        self.asked = None;
        let taken = self.scratch.memory.load_u64(TAKEN, Ordering::Acquire)?;
        if taken < self.taken || taken > self.notified {
            let text = format!("the target says that it took {taken} notifications of {}: it is broken", self.notified);
            return Err(Error::operation(ErrorKind::Protocol, text));
        }
        self.taken = taken;
        Ok(())
    }

    /// The first error stays.
    fn fail(&mut self, error: Error) -> Error {
        let scope = error.scope().max(Scope::Endpoint);
        self.broken.get_or_insert_with(|| error.with_scope(scope)).clone()
    }

    fn has_news(&self) -> bool {
        self.ends.front().is_some_and(|end| *end <= self.done) || self.broken.is_some()
    }
}

// SAFETY: `poll` reports a batch only when the device has done its last request, and so all of them, or after an error, which
// the contract follows with `abort`; `abort` and the drop take the queue pair away, after which the device touches nothing for it.
unsafe impl EndpointDriver for VerbsEndpoint {
    unsafe fn post(&mut self, batch: &[Work]) -> Result<(), Post> {
        if let Some(error) = &self.broken {
            return Err(error.clone().into());
        }
        self.may_start(batch)?;
        self.requests.clear();
        for work in batch {
            self.push(work);
        }
        self.send()?;
        self.ends.push_back(self.posted);
        Ok(())
    }

    fn poll(&mut self) -> Option<Result<(), Error>> {
        if !self.has_news() {
            self.hear();
        }
        if self.ends.front().is_some_and(|end| *end <= self.done) {
            self.ends.pop_front();
            return Some(Ok(()));
        }
        self.broken.clone().map(Err)
    }

    fn abort(&mut self) {
        // What fails here fails because the device is gone, and then it touches nothing.
        let _ = self.queue_pair.take_away();
    }

    fn sleep(&mut self, limit: Duration) {
        if self.queue_pair.completions().arm().is_err() {
            return std::thread::sleep(limit);
        }
        // What came before it was armed makes no event.
        let before = self.done;
        self.hear();
        if self.done == before && !self.has_news() {
            self.queue_pair.completions().sleep(limit);
        }
    }
}
