//! One replica: who may write it, and what stands in it.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};

use segstore_core::forget::Forgettable;
use segstore_core::id::{Member, SegmentId};
use segstore_core::layout::geometry::SLOT_HEAD;
use segstore_core::layout::{Geometry, Ownership, ReplicaHead};
use segstore_core::replica::{Replica, Request, Turn};
use segstore_transport::{Domain, Grant, Memory, Peer, Region, Rights};

use super::Domains;
use super::error::ReplicaError;
use super::files::{Files, slots_bytes};

/// The most readers at once. Who comes then is refused until one has gone.
const READERS: usize = 64;

/// The first bytes of a slot.
pub type Head = [u8; SLOT_HEAD];

/// A replica that this node keeps.
pub(super) struct Hosted {
    pub(super) member: Member,
    pub(super) segment: SegmentId,
    pub(super) geometry: Geometry,
    state: Mutex<State>,
    progress: Mutex<Option<(u32, u32)>>,
}

struct State {
    decisions: Replica,
    files: Files,
    /// Mapped when the first peer comes.
    memory: Option<Memory>,
    regions: HashMap<String, Region>,
    writer: Option<Peer>,
    readers: Vec<Peer>,
    is_gone: bool,
}

impl Hosted {
    pub(super) fn new(head: &ReplicaHead, files: Files) -> Self {
        let decisions = Replica::new(head.segment, head.incarnation, head.remembered);
        Self {
            member: Member { node: head.node, incarnation: head.incarnation },
            segment: head.segment,
            geometry: head.geometry,
            state: Mutex::new(State {
                decisions,
                files,
                memory: None,
                regions: HashMap::new(),
                writer: None,
                readers: Vec::new(),
                is_gone: false,
            }),
            progress: Mutex::new(None),
        }
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> u64 {
        slots_bytes(&self.geometry)
    }

    /// The highest ownership that it has seen.
    pub(super) fn remembered(&self) -> Ownership {
        self.lock().decisions.remembered
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a replica up again that a former life of this daemon kept: whoever could write it then is shut out.
    pub(super) fn adopt(&self, domains: &Domains) -> Result<(), ReplicaError> {
        let mut state = self.lock();
        match domains.shm() {
            Some((provider, domain)) => state.region(domain, provider).map(drop),
            None => Ok(()),
        }
    }

    /// What stands at the start of every slot.
    pub(super) fn heads(&self) -> Result<Vec<Head>, ReplicaError> {
        self.lock().files.slot_heads()
    }

    /// Opens an endpoint for the writer of a term, after ending every earlier one.
    pub(super) fn connect_writer(
        &self,
        request: &Request,
        domains: &Domains,
        provider: &str,
        hello: &[u8],
    ) -> Result<Vec<u8>, ReplicaError> {
        let mut state = self.lock();
        state.admit(request)?;
        let (peer, reply) = state.open(domains, provider, hello, Rights::WRITE.and(Rights::READ))?;
        state.writer = Some(peer);
        Ok(reply)
    }

    /// Opens an endpoint that reads.
    pub(super) fn connect_reader(
        &self,
        domains: &Domains,
        provider: &str,
        hello: &[u8],
    ) -> Result<Vec<u8>, ReplicaError> {
        let mut state = self.lock();
        state.readers.retain(Peer::is_alive);
        if state.readers.len() >= READERS {
            let text = format!("{READERS} readers are connected to {}: try again when one has gone", self.member);
            return Err(ReplicaError::Invalid(text));
        }
        let (peer, reply) = state.open(domains, provider, hello, Rights::READ)?;
        state.readers.push(peer);
        Ok(reply)
    }

    /// The turn of whoever had it made.
    pub(super) fn turn(&self) -> Turn {
        self.lock().decisions.turn
    }

    /// Fences it for an owner that will have it changed: what stands in its slots, and the owner's turn.
    pub(super) fn admit(&self, request: &Request) -> Result<(Vec<Head>, Turn), ReplicaError> {
        let mut state = self.lock();
        let turn = state.admit(request)?;
        Ok((state.files.slot_heads()?, turn))
    }

    pub(super) fn report_progress(&self, progress: Option<(u32, u32)>) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    /// How far a repair is: blocks copied, blocks to copy.
    pub(super) fn progress(&self) -> Option<(u32, u32)> {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the files while no peer writes them.
    pub(super) fn with_files<T>(
        &self,
        work: impl FnOnce(&Files) -> Result<T, ReplicaError>,
    ) -> Result<T, ReplicaError> {
        let state = self.lock();
        if state.is_gone {
            return Err(ReplicaError::Ended);
        }
        work(&state.files)
    }

    /// Changes the files in an owner's turn. Asked with the replica locked, where the next owner is admitted.
    pub(super) fn change(
        &self,
        turn: Turn,
        work: impl FnOnce(&Files) -> Result<(), ReplicaError>,
    ) -> Result<(), ReplicaError> {
        let state = self.lock();
        if state.is_gone || !state.decisions.allows(turn) {
            return Err(ReplicaError::Ended);
        }
        work(&state.files)
    }

    /// Forgets it, of a segment that was unlinked.
    pub(super) fn remove(&self) -> Result<(), ReplicaError> {
        self.lock().remove()
    }

    /// Forgets it if it is covered; whether it was.
    pub(super) fn remove_if(&self, forgettable: &Forgettable) -> Result<bool, ReplicaError> {
        let mut state = self.lock();
        let is_covered = forgettable.covers(self.member, &state.decisions)?;
        if is_covered {
            state.remove()?;
        }
        Ok(is_covered)
    }
}

impl State {
    /// Decides the request; stores, then revokes, as granted.
    fn admit(&mut self, request: &Request) -> Result<Turn, ReplicaError> {
        let mut decisions = self.decisions;
        let granted = decisions.decide(request)?;
        if let Some(ownership) = granted.remember {
            self.files.remember(decisions.segment, ownership)?;
        }
        self.decisions = decisions;
        if granted.revoke {
            self.revoke()?;
        }
        Ok(granted.turn)
    }

    /// Every peer is shut out, the memory is given back.
    fn remove(&mut self) -> Result<(), ReplicaError> {
        self.is_gone = true;
        self.writer = None;
        self.readers.clear();
        self.regions.clear();
        self.memory = None;
        self.files.remove()
    }

    /// Shuts the writer out. One that cannot be shut out for certain stays known, so that the next request tries again.
    fn revoke(&mut self) -> Result<(), ReplicaError> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let how = writer.revoke().map_err(ReplicaError::transport("shutting the earlier writer out"))?;
        tracing::debug!(replica = %self.decisions.incarnation, "the earlier writer is shut out: {how:?}");
        self.writer = None;
        if let Some(memory) = &self.memory {
            // It may stand on fresh backing now, under the same name.
            let file = memory.fd().map_err(ReplicaError::transport("looking for the slots' file"))?;
            self.files.moved(File::from(file));
        }
        Ok(())
    }

    fn open(
        &mut self,
        domains: &Domains,
        provider: &str,
        hello: &[u8],
        rights: Rights,
    ) -> Result<(Peer, Vec<u8>), ReplicaError> {
        if self.is_gone {
            return Err(ReplicaError::Ended);
        }
        self.files.check_length()?;
        let domain = domains.get(provider)?;
        let region = self.region(domain, provider)?;
        let admitted = domain.admit(hello, &[Grant { region: &region, rights }]);
        admitted.map_err(ReplicaError::transport("opening an endpoint"))
    }

    fn region(&mut self, domain: &Domain, provider: &str) -> Result<Region, ReplicaError> {
        if let Some(region) = self.regions.get(provider) {
            return Ok(region.clone());
        }
        let memory = match &self.memory {
            Some(memory) => memory.clone(),
            None => {
                let memory = Memory::named(&self.files.slots_path(), self.files.slots_length());
                let memory = memory.map_err(ReplicaError::transport("mapping the slots"))?;
                let witnesses = memory.set_witnesses(self.files.witnesses(self.decisions.segment));
                witnesses.map_err(ReplicaError::transport("naming the slots' marks"))?;
                self.memory.insert(memory).clone()
            }
        };
        let region = domain.register(&memory, Rights::READ.and(Rights::WRITE));
        let region = region.map_err(ReplicaError::transport("registering the slots"))?;
        // Registering may have moved the memory away from a writer of the daemon's former life.
        let file = memory.fd().map_err(ReplicaError::transport("looking for the slots' file"))?;
        self.files.moved(File::from(file));
        self.regions.insert(provider.to_owned(), region.clone());
        Ok(region)
    }
}
