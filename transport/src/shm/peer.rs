//! The target's side: admits one process once, and revokes it.

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::agent::Agent;
use super::control::{self, Control};
use super::directory::{Directory, Files};
use super::process::Process;
use super::record::{FileId, Record};
use super::wire::{Token, Welcomed, encode_welcome};
use super::{fence, socket};
use crate::contract::driver::PeerDriver;
use crate::memory::{Memory, Moved, Tenant, read_only};
use crate::setup::ADMITTED;
use crate::sync::{AtomicBool, AtomicU64, Ordering, fence as barrier};
use crate::{Error, Grant, Keep, PeerStatistics, Result, Revocation, Rights};

/// What one peer was admitted to.
pub(super) struct Admission {
    pub(super) token: Token,
    /// The token opens nothing any more from here on.
    until: Instant,
    control: Control,
    /// What a later life of this target would find of the peer.
    files: Option<Files>,
    grants: Vec<Admitted>,
    state: Mutex<State>,
    /// A revoke has begun. Beside the state, so that nobody has to wait for a long copy to learn so.
    revoking: AtomicBool,
    /// The peer's socket was closed.
    gone: AtomicBool,
    /// Notifications taken: this side's own count.
    taken: AtomicU64,
    /// Notifications from here on came after the revoke, and are not given out.
    limit: AtomicU64,
}

struct Admitted {
    memory: Memory,
    rights: Rights,
}

enum State {
    /// The token was not presented yet.
    Expected,
    /// Descriptors of these generations of the granted memories were sent to this process.
    Connected {
        process: Option<Process>,
        generations: Vec<u64>,
    },
    Revoked,
}

impl Admission {
    pub(super) fn new(token: Token, grants: &[Grant<'_>], directory: Option<&Directory>) -> Result<Admission> {
        let (page, files) = match directory.map(Directory::page).transpose()? {
            Some((page, files)) => (page, Some(files)),
            None => (Memory::anonymous(control::LEN)?, None),
        };
        let admitted = |grant: &Grant<'_>| Admitted { memory: grant.region.memory().clone(), rights: grant.rights };
        Ok(Admission {
            token,
            until: Instant::now() + ADMITTED,
            control: Control::new(page)?,
            files,
            grants: grants.iter().map(admitted).collect(),
            state: Mutex::new(State::Expected),
            revoking: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            limit: AtomicU64::new(u64::MAX),
        })
    }

    /// Sends the descriptors to whom presented the token, the first time.
    pub(super) fn welcome(self: &Arc<Admission>, socket: &OwnedFd) -> Result<()> {
        let mut state = self.state();
        if !matches!(*state, State::Expected) || Instant::now() > self.until {
            return Err(Error::invalid("the token was used, or revoked, or is too old"));
        }
        let tenant: Arc<dyn Tenant> = self.clone();
        let mut fds = vec![self.control.memory().fd()?];
        let process = Process::connected_to(socket);
        let identity = process.as_ref().and_then(|process| process.identity(socket));
        let mut record = Record { process: identity, files: Vec::new() };
        let (mut welcomed, mut generations) = (Vec::new(), Vec::new());
        for grant in &self.grants {
            let share = grant.memory.mapping().share(&tenant)?;
            if grant.rights.can_change() {
                record.files.push(FileId::of(&share.fd)?);
            }
            fds.push(if grant.rights.can_change() { share.fd } else { read_only(&share.fd)? });
            generations.push(share.generation);
            let len = grant.memory.len() as u64;
            welcomed.push(Welcomed { offset: share.offset, len, rights: grant.rights });
        }
        self.files.as_ref().map_or(Ok(()), |files| files.remember(&record))?;
        // From here on the peer counts as a mapper, whether or not the message arrives.
        *state = State::Connected { process, generations };
        let raw: Vec<_> = fds.iter().map(|fd| fd.as_fd().as_raw_fd()).collect();
        let sent = socket::send(socket, &encode_welcome(&welcomed), &raw);
        sent.map_err(|error| Error::system("sending descriptors to a peer", error))
    }

    /// The peer's socket was closed.
    pub(super) fn is_gone(&self) {
        self.gone.store(true, Ordering::Release);
        self.control.wake();
    }

    /// Whether no revoke has begun.
    pub(super) fn is_welcome(&self) -> bool {
        !self.revoking.load(Ordering::Acquire)
    }

    /// Whether the process is connected, or may still connect.
    fn is_expected(&self) -> bool {
        Instant::now() <= self.until || !matches!(*self.state(), State::Expected)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn revoke(&self, keep: Keep<'_>) -> Result<Revocation> {
        self.revoking.store(true, Ordering::Release);
        let mut state = self.state();
        let revocation = match &*state {
            State::Expected => Revocation::NeverConnected,
            State::Revoked => return Ok(Revocation::AccessRemoved),
            State::Connected { process, generations } => {
                fence::raise(self.control.fence(), fence::REVOKED);
                // Those pushed before were checked against the fence; later ones are not given out.
                self.limit.fetch_min(self.control.pushed(), Ordering::AcqRel);
                self.leave(process.as_ref(), generations, keep)?
            }
        };
        *state = State::Revoked;
        self.files.iter().for_each(Files::forget);
        // Pairs with the writer's barrier: what completed is visible here.
        barrier(Ordering::SeqCst);
        Ok(revocation)
    }

    /// Leaves every backing that the peer can still write.
    fn leave(&self, process: Option<&Process>, generations: &[u64], keep: Keep<'_>) -> Result<Revocation> {
        let changeable = || self.grants.iter().zip(generations).enumerate().filter(|(_, (g, _))| g.rights.can_change());
        if changeable().next().is_none() || process.is_some_and(Process::is_dead) {
            return Ok(Revocation::Proven);
        }
        let mut copied = 0;
        for (index, (grant, &generation)) in changeable() {
            let ranges = match keep {
                Keep::All => None,
                // Another grant may be of the same memory, so its ranges are worth keeping too.
                Keep::Ranges(ranges) => Some(self.ranges_of(index, ranges)),
            };
            if let Moved::Now(bytes) = grant.memory.mapping().leave(generation, ranges.as_deref())? {
                copied += bytes;
            }
        }
        Ok(Revocation::FreshBacking { copied })
    }

    fn ranges_of(&self, index: usize, ranges: &[(usize, Range<usize>)]) -> Vec<Range<usize>> {
        let same = |grant: usize| self.grants[grant].memory.as_ptr() == self.grants[index].memory.as_ptr();
        ranges.iter().filter(|(grant, _)| same(*grant)).map(|(_, range)| range.clone()).collect()
    }
}

impl Tenant for Admission {
    fn leave(&self) {
        fence::raise(self.control.fence(), fence::MOVED);
    }
}

pub(super) struct ShmPeer {
    admission: Arc<Admission>,
    agent: Arc<Agent>,
}

impl ShmPeer {
    pub(super) fn new(admission: Arc<Admission>, agent: Arc<Agent>) -> ShmPeer {
        ShmPeer { admission, agent }
    }
}

impl PeerDriver for ShmPeer {
    fn revoke(&self, keep: Keep<'_>) -> Result<Revocation> {
        let revocation = self.admission.revoke(keep)?;
        self.agent.forget(&self.admission);
        Ok(revocation)
    }

    fn is_alive(&self) -> bool {
        let admission = &self.admission;
        !admission.gone.load(Ordering::Acquire) && admission.is_welcome() && admission.is_expected()
    }

    fn poll_notification(&self) -> Option<u64> {
        let admission = &*self.admission;
        loop {
            let taken = admission.taken.load(Ordering::Acquire);
            let pushed = admission.control.pushed().min(admission.limit.load(Ordering::Acquire));
            // A count that makes no sense is a broken peer's: it hurts nobody but itself.
            if pushed <= taken || pushed - taken > control::RING {
                return None;
            }
            let value = admission.control.at(taken);
            // Whoever counts it has it; the slot is given back after that.
            let next = taken + 1;
            if admission.taken.compare_exchange(taken, next, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                admission.control.took(next);
                return Some(value);
            }
        }
    }

    fn sleep(&self, limit: Duration) {
        if !self.is_alive() {
            // Nothing will come; whoever waits on does not have to spin for it.
            return std::thread::sleep(limit);
        }
        self.admission.control.sleep(self.admission.taken.load(Ordering::Acquire), limit);
    }

    fn statistics(&self) -> PeerStatistics {
        PeerStatistics { notifications: self.admission.taken.load(Ordering::Acquire), operations: None, bytes: None }
    }
}
