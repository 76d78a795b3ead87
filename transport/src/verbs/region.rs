//! Memory that operations and peers use. What is granted has a protection domain of its own; all of it is registered again
//! when the memory has moved to fresh backing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ibverbs_sys::ibv_access_flags;

use super::device::Device;
use super::options::Options;
use super::peer::Admission;
use super::registration::{Access, ProtectionDomain, Registration, local_access, remote_access};
use crate::contract::driver::RegionDriver;
use crate::memory::{Memory, Tenant};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::{Error, ErrorKind, Result, RevokeKind, Rights};

/// A local key is known.
const KNOWN: u64 = 1 << 32;

pub(super) struct VerbsRegion {
    held: Arc<Held>,
}

/// The registrations of one memory.
struct Held {
    memory: Memory,
    /// Where peers' queue pairs and keys are.
    granted: Arc<ProtectionDomain>,
    /// Where this side's queue pairs are.
    local: Arc<ProtectionDomain>,
    windows: bool,
    registrations: Mutex<Vec<(Access, Arc<Registration>)>>,
    /// The key for this side's operations, with [`KNOWN`]; 0 while it is not registered for them.
    local_key: AtomicU64,
    /// The memory has left what the registrations stand on.
    stale: AtomicBool,
    peers: Mutex<Vec<Weak<Admission>>>,
}

impl VerbsRegion {
    pub(super) fn new(
        device: &Arc<Device>,
        local: &Arc<ProtectionDomain>,
        memory: &Memory,
        rights: Rights,
        options: &Options,
    ) -> Result<VerbsRegion> {
        if rights != Rights::LOCAL && !memory.mapping().is_shared() {
            let text = "private memory can only be used by this side's operations: map it shared to grant it";
            return Err(Error::operation(ErrorKind::Unsupported, text));
        }
        if rights.can_change() && !memory.is_writable() {
            return Err(Error::invalid("memory mapped for reading only cannot be granted for writing"));
        }
        let own = || ProtectionDomain::new(device.clone()).map(Arc::new);
        let granted = if rights == Rights::LOCAL { local.clone() } else { own()? };
        let held = Arc::new(Held {
            memory: memory.clone(),
            granted,
            local: local.clone(),
            windows: options.windows && device.limits.windows,
            registrations: Mutex::default(),
            local_key: AtomicU64::new(0),
            // Its first backing has still to be asked for.
            stale: AtomicBool::new(true),
            peers: Mutex::default(),
        });
        // What cannot be registered is refused here, not by the first operation.
        if rights == Rights::LOCAL {
            held.find_local_key()?;
        } else {
            held.registration(&held.granted, held.access(rights))?;
        }
        Ok(VerbsRegion { held })
    }

    /// The protection domain of what is granted.
    pub(super) fn granted(&self) -> &Arc<ProtectionDomain> {
        &self.held.granted
    }

    /// The peer is told when the memory moves, from here on.
    pub(super) fn attach(&self, peer: &Arc<Admission>) {
        let mut peers = lock(&self.held.peers);
        peers.retain(|peer| peer.strong_count() > 0);
        peers.push(Arc::downgrade(peer));
    }

    /// The memory, registered so that a peer of that protection domain can be given these rights.
    pub(super) fn registered(&self, domain: &Arc<ProtectionDomain>, rights: Rights) -> Result<Arc<Registration>> {
        self.held.registration(domain, self.held.access(rights))
    }
}

impl RegionDriver for VerbsRegion {
    fn local_key(&self) -> u64 {
        let known = self.held.local_key.load(Ordering::Acquire);
        let key = if known & KNOWN != 0 { known } else { self.held.find_local_key().unwrap_or(0) };
        // Key 0 is nobody's: the device refuses the operation that needs what could not be registered.
        key & !KNOWN
    }

    fn revoke_kind(&self) -> RevokeKind {
        RevokeKind::Access
    }
}

impl Held {
    /// With windows only they open the memory; without, the registration does.
    fn access(&self, rights: Rights) -> Access {
        let write = if rights.can_change() { ibv_access_flags::IBV_ACCESS_LOCAL_WRITE.0 } else { 0 };
        let remote = if self.windows { ibv_access_flags::IBV_ACCESS_MW_BIND.0 } else { remote_access(rights) };
        write | remote
    }

    /// The memory as it stands now, registered in that protection domain.
    fn registration(self: &Arc<Held>, domain: &Arc<ProtectionDomain>, access: Access) -> Result<Arc<Registration>> {
        let mut registrations = lock(&self.registrations);
        loop {
            if self.stale.swap(false, Ordering::SeqCst) {
                registrations.clear();
                let tenant: Arc<dyn Tenant> = self.clone();
                // Waits for a move under way.
                let shared = self.memory.mapping().share(&tenant);
                shared.inspect_err(|_| self.stale.store(true, Ordering::SeqCst))?;
            }
            let same = |(has, held): &&(Access, Arc<Registration>)| *has == access && Arc::ptr_eq(&held.domain, domain);
            let registration = match registrations.iter().find(same) {
                Some((_, held)) => held.clone(),
                None => {
                    let made = Arc::new(Registration::new(domain, &self.memory, access)?);
                    // What a peer was granted beside another region lives in that one's domain, as long as the peer.
                    if Arc::ptr_eq(domain, &self.granted) || Arc::ptr_eq(domain, &self.local) {
                        registrations.push((access, made.clone()));
                    }
                    made
                }
            };
            if !self.stale.load(Ordering::SeqCst) {
                return Ok(registration);
            }
        }
    }

    fn find_local_key(self: &Arc<Held>) -> Result<u64> {
        loop {
            let registration = self.registration(&self.local, local_access(&self.memory))?;
            let key = KNOWN | u64::from(registration.local_key());
            self.local_key.store(key, Ordering::SeqCst);
            // A move after this look forgets the key that was stored before it.
            if !self.stale.load(Ordering::SeqCst) {
                return Ok(key);
            }
            self.local_key.store(0, Ordering::SeqCst);
        }
    }
}

impl Tenant for Held {
    /// When it returns, no peer's operation completes on what the memory leaves.
    fn leave(&self) {
        self.stale.store(true, Ordering::SeqCst);
        self.local_key.store(0, Ordering::SeqCst);
        let peers = std::mem::take(&mut *lock(&self.peers));
        for peer in peers.iter().filter_map(Weak::upgrade) {
            peer.leave();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
