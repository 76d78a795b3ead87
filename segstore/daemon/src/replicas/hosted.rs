//! One replica: who may write it, and what stands in it.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use segstore_core::id::{Member, SegmentId};
use segstore_core::layout::geometry::SLOT_HEAD;
use segstore_core::layout::{Geometry, Ownership, ReplicaHead};
use segstore_core::replica::{Refused, Replica, Request};
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
    /// Ends the repair that fills this replica.
    repair: Option<Arc<AtomicBool>>,
    /// Why an earlier writer, perhaps of a former life of this daemon, may still write it: no owner is served until it is shut out.
    unfenced: Option<String>,
    is_gone: bool,
}

impl Hosted {
    pub(super) fn new(head: &ReplicaHead, files: Files) -> Self {
        let decisions = Replica { segment: head.segment, incarnation: head.incarnation, remembered: head.remembered };
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
                repair: None,
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

    /// Fences: nothing of a lower term lands from here on.
    pub(super) fn fence(&self, request: &Request, domains: &Domains) -> Result<Vec<Head>, ReplicaError> {
        self.lock().fence(request, domains)
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
        state.admit(request, domains)?;
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

    /// Begins to fill it: gives what says that it is to end.
    pub(super) fn begin_repair(&self) -> Arc<AtomicBool> {
        self.lock().begin_repair()
    }

    /// Fences it, and begins to change it in this owner's name: what stands in its slots, and what says that it is to end. In one
    /// step, so that no later owner comes between and finds nothing to end.
    pub(super) fn begin_level(
        &self,
        request: &Request,
        domains: &Domains,
    ) -> Result<(Vec<Head>, Arc<AtomicBool>), ReplicaError> {
        let mut state = self.lock();
        Ok((state.fence(request, domains)?, state.begin_repair()))
    }

    /// The repair that `end` would have ended is over, well or not.
    pub(super) fn end_repair(&self, end: &Arc<AtomicBool>) {
        let mut state = self.lock();
        if state.repair.as_ref().is_some_and(|present| Arc::ptr_eq(present, end)) {
            state.repair = None;
        }
        drop(state);
        self.report_progress(None);
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

    /// Forgets it: every peer is shut out, the memory is given back. In the name of an owner it is forgotten only if no later one
    /// came.
    pub(super) fn remove(&self, by: Option<Ownership>) -> Result<(), ReplicaError> {
        let mut state = self.lock();
        let remembered = state.decisions.remembered;
        if let Some(asked) = by.filter(|by| by.term < remembered.term) {
            return Err(Refused::TermOver { asked, remembered }.into());
        }
        state.is_gone = true;
        state.stop_repair();
        state.writer = None;
        state.readers.clear();
        state.regions.clear();
        state.memory = None;
        state.files.remove()
    }
}

impl State {
    /// Decides the request; stores, then revokes, as granted.
    fn admit(&mut self, request: &Request, domains: &Domains) -> Result<(), ReplicaError> {
        self.shut_former_out(domains)?;
        let mut decisions = self.decisions;
        let granted = decisions.decide(request)?;
        if let Some(ownership) = granted.remember {
            self.files.remember(decisions.segment, ownership)?;
        }
        self.decisions = decisions;
        if granted.revoke {
            self.stop_repair();
            self.revoke()?;
        }
        Ok(())
    }

    fn fence(&mut self, request: &Request, domains: &Domains) -> Result<Vec<Head>, ReplicaError> {
        self.admit(request, domains)?;
        self.files.slot_heads()
    }

    /// Moves the slots away from writers of a former life, if they may still write them. It may want room for a copy.
    fn shut_former_out(&mut self, domains: &Domains) -> Result<(), ReplicaError> {
        if self.unfenced.is_some()
            && let Some((provider, domain)) = domains.shm()
            && let Err(error) = self.region(domain, provider)
        {
            self.unfenced = Some(error.to_string());
            return Err(error);
        }
        self.unfenced = None;
        Ok(())
    }

    fn begin_repair(&mut self) -> Arc<AtomicBool> {
        self.stop_repair();
        self.repair.insert(Arc::new(AtomicBool::new(false))).clone()
    }

    fn stop_repair(&mut self) {
        if let Some(end) = self.repair.take() {
            end.store(true, Ordering::Release);
        }
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
