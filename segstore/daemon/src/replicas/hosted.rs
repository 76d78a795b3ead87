//! One replica: who may write it, and what stands in it.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};

use segstore_core::forget::Forgettable;
use segstore_core::id::{Member, SegmentId};
use segstore_core::layout::geometry::SLOT_HEAD;
use segstore_core::layout::{Geometry, Ownership, ReplicaHead};
use segstore_core::replica::{Replica, Request, Turn};
use segstore_core::slot::SlotView;
use segstore_transport::{Domain, Grant, Keep, Memory, Peer, Region, Rights};

use super::error::ReplicaError;
use super::files::{Files, slots_bytes};
use super::{Domains, SHM};

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
    /// Whether the writer maps the slots: unless its process is dead, shutting it out takes fresh memory, and a copy.
    is_mapped: bool,
    readers: Vec<Peer>,
    /// Why an earlier writer, perhaps of a former life of this daemon, may still write it: no owner is served until it is shut out.
    unfenced: Option<String>,
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
                is_mapped: false,
                readers: Vec::new(),
                unfenced: None,
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

    /// A replica that a former life of this daemon kept: whoever could write it then is shut out, now or before the next owner is served.
    pub(super) fn of_former_life(head: &ReplicaHead, files: Files, domains: &Domains) -> Self {
        let replica = Self::new(head, files);
        let mut state = replica.lock();
        state.unfenced = Some("not tried yet".to_owned());
        if let Err(error) = state.shut_former_out(domains) {
            tracing::error!(
                segment = %head.segment, replica = %head.incarnation,
                "a writer of this daemon's former life may still write it, so no owner is served until it is shut out, which is tried again \
                 when one asks: {error}"
            );
        }
        drop(state);
        replica
    }

    /// What keeps owners from being served.
    pub(super) fn problem(&self) -> Option<String> {
        let why = self.lock().unfenced.clone()?;
        Some(format!("it is whole, but no owner is served until an earlier writer is shut out: {why}"))
    }

    /// Whether somebody has cut its files short.
    pub(super) fn check(&self) -> Result<(), ReplicaError> {
        self.lock().files.check()
    }

    /// What stands at the start of every slot.
    pub(super) fn heads(&self) -> Result<Vec<Head>, ReplicaError> {
        self.with_files(Files::slot_heads)
    }

    /// What these first bytes of its slots say.
    pub(super) fn views(&self, heads: &[Head]) -> Vec<SlotView> {
        heads.iter().map(|head| SlotView::parse(self.segment, &self.geometry, head)).collect()
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
        state.admit(request, domains)?;
        let (peer, reply) = state.open(domains, provider, hello, Rights::WRITE.and(Rights::READ))?;
        (state.writer, state.is_mapped) = (Some(peer), provider == SHM);
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
    pub(super) fn admit(&self, request: &Request, domains: &Domains) -> Result<(Vec<Head>, Turn), ReplicaError> {
        let mut state = self.lock();
        let turn = state.admit(request, domains)?;
        Ok((state.files.slot_heads()?, turn))
    }

    /// Whether it can take a copy of all of it to shut its writer out.
    pub(super) fn is_costly_to_fence(&self) -> bool {
        let state = self.lock();
        state.writer.is_some() && state.is_mapped
    }

    /// Whether it is being filled, or somebody is connected who may write it.
    pub(super) fn is_in_use(&self) -> bool {
        self.progress().is_some() || self.lock().writer.as_ref().is_some_and(Peer::is_alive)
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

    /// Its slots are another replica's from here on, and blank: nothing is left of this one. Done in an owner's turn.
    pub(super) fn hand_over(&self, turn: Turn, to: &ReplicaHead) -> Result<Files, ReplicaError> {
        let mut state = self.lock();
        if state.is_gone || !state.decisions.allows(turn) {
            return Err(ReplicaError::Ended);
        }
        let files = state.files.hand_over(to)?;
        state.let_go();
        Ok(files)
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
    fn admit(&mut self, request: &Request, domains: &Domains) -> Result<Turn, ReplicaError> {
        if self.is_gone {
            return Err(ReplicaError::Ended);
        }
        self.shut_former_out(domains)?;
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
        if let Some(writer) = &self.writer {
            // Whether that can be made sure of or not: nothing that is there is worth a copy.
            let _ = writer.revoke_keeping(Keep::Ranges(&[]));
        }
        self.let_go();
        self.files.remove()
    }

    /// Nobody is served any more.
    fn let_go(&mut self) {
        self.is_gone = true;
        self.writer = None;
        self.readers.clear();
        self.regions.clear();
        self.memory = None;
    }

    /// Moves the slots away from writers of a former life, if they may still write them. It may want room for a copy.
    fn shut_former_out(&mut self, domains: &Domains) -> Result<(), ReplicaError> {
        if self.unfenced.is_some()
            && let Some(domain) = domains.shm()
            && let Err(error) = self.region(&domain, SHM)
        {
            self.unfenced = Some(error.to_string());
            return Err(error);
        }
        self.unfenced = None;
        Ok(())
    }

    /// Shuts the writer out. One that cannot be shut out for certain stays known, so that the next request tries again.
    fn revoke(&mut self) -> Result<(), ReplicaError> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let how = match writer.revoke() {
            Ok(how) => how,
            Err(error) => {
                let error = ReplicaError::transport("shutting the earlier writer out")(error);
                tracing::error!(
                    replica = %self.decisions.incarnation,
                    "no owner is served until it is done, which is tried again when one asks: {error}"
                );
                self.unfenced = Some(error.to_string());
                return Err(error);
            }
        };
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
        let region = self.region(&domain, provider)?;
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
