//! Replica memory that this node keeps for owners elsewhere: files on tmpfs, who may write them, and how they are filled.
//!
//! What is allowed is decided by [`segstore_core::replica`]; here it is carried out: a term is stored before anything is done in its
//! name, earlier writers are shut out before an answer is given. Everything blocks but [`Replicas::usage`]; nothing here knows of the
//! directory.

mod domains;
mod error;
mod files;
mod former;
mod hosted;
mod level;
mod making;
mod pace;
mod renew;
mod repair;
mod verify;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::statvfs::statvfs;
use segstore_core::forget::Forgettable;
use segstore_core::id::{Incarnation, Member, NodeId, SegmentId, Stamp};
use segstore_core::layout::{Geometry, Ownership, ReplicaHead, SlotHeader};
use segstore_core::replica::{Request, Turn};
use segstore_core::slot::{Damage, SlotView};
use segstore_transport::Endpoint;

pub use domains::{Domains, SHM};
pub use error::ReplicaError;
pub use hosted::Head;
pub use making::{Begun, Making};
pub use repair::{Filled, Source};

use crate::identity::random;
use files::Files;
use hosted::Hosted;
use pace::Pace;

/// Where and how much.
#[derive(Clone, Debug)]
pub struct Options {
    /// A directory on tmpfs, for this daemon alone.
    pub directory: PathBuf,
    /// The node.
    pub node: NodeId,
    /// Bytes that replicas may take.
    pub budget: u64,
    /// What peers can come over.
    pub domains: Domains,
    /// What tells this boot of the machine from every other: memory does not outlive it.
    pub boot: String,
    /// Bytes in a second that replicas being filled may take together; zero: without a limit.
    pub repair_bandwidth: u64,
}

#[cfg(test)]
impl Options {
    /// Of node 1, with a budget of 1 GiB.
    fn of_test(directory: &std::path::Path, domains: Domains) -> Self {
        let (directory, boot) = (directory.to_owned(), "b".to_owned());
        Self { directory, node: NodeId(1), budget: 1 << 30, domains, boot, repair_bandwidth: 0 }
    }
}

/// How much is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Bytes.
    pub used: u64,
    /// Bytes that may be used.
    pub budget: u64,
    /// Replicas.
    pub replicas: u32,
}

/// A replica, and for whom it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Whose it is.
    pub segment: SegmentId,
    /// Which.
    pub member: Member,
    /// The highest ownership that it has seen.
    pub remembered: Ownership,
    /// Whether it is being filled, or written: an owner may be about to add it to the in-sync set.
    pub is_in_use: bool,
    /// Why it is of no use any more.
    pub problem: Option<String>,
}

/// A replica, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Whose it is.
    pub segment: SegmentId,
    /// Which.
    pub member: Member,
    /// The newest whole image, as far as its head tells.
    pub image: Option<Stamp>,
    /// While it is filled: blocks copied, blocks to copy.
    pub repair: Option<(u32, u32)>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// Every replica of this node.
pub struct Replicas {
    options: Options,
    /// Locked for a moment at a time: nothing is done to a replica or a file meanwhile.
    hosted: Mutex<BTreeMap<(SegmentId, Incarnation), Arc<Hosted>>>,
    /// Bytes of the budget that are taken, by replicas that are being made as well.
    used: AtomicU64,
    /// Of which segments replicas are being made: nobody can find these so far.
    making: Making,
    pace: Pace,
}

impl Replicas {
    /// Takes up what a former life of this daemon kept.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(options: Options) -> Result<Self, ReplicaError> {
        let hosted = former::take_up(&options)?;
        let used = AtomicU64::new(hosted.values().map(|replica| replica.bytes()).sum());
        let pace = Pace::new(options.repair_bandwidth);
        Ok(Self { options, hosted: Mutex::new(hosted), used, making: Making::default(), pace })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(SegmentId, Incarnation), Arc<Hosted>>> {
        self.hosted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What peers can come over.
    #[must_use]
    pub fn domains(&self) -> &Domains {
        &self.options.domains
    }

    fn get(&self, segment: SegmentId, incarnation: Incarnation) -> Result<Arc<Hosted>, ReplicaError> {
        let found = self.lock().get(&(segment, incarnation)).cloned();
        found.ok_or(ReplicaError::NotFound { segment, incarnation })
    }

    fn of_segment(&self, segment: SegmentId) -> Vec<Arc<Hosted>> {
        let all = (segment, Incarnation(0))..=(segment, Incarnation(u128::MAX));
        self.lock().range(all).map(|(_, replica)| replica.clone()).collect()
    }

    /// Makes an empty replica, whose slots are closed on the empty image.
    ///
    /// # Errors
    /// No room.
    pub fn create(
        &self,
        segment: SegmentId,
        geometry: Geometry,
        remembered: Ownership,
    ) -> Result<Member, ReplicaError> {
        let (replica, turn) = self.make(segment, geometry, remembered)?;
        let empty = SlotHeader::of_empty_segment(segment, &geometry);
        replica.change(turn, |files| (0..geometry.slots()).try_for_each(|slot| files.close_slot(slot, &empty)))?;
        Ok(replica.member)
    }

    /// Makes a replica whose slots hold nothing. The turn is of who has it made: from before anybody else can find it.
    fn make(
        &self,
        segment: SegmentId,
        geometry: Geometry,
        remembered: Ownership,
    ) -> Result<(Arc<Hosted>, Turn), ReplicaError> {
        let incarnation = Incarnation(random()?);
        let head = ReplicaHead { segment, incarnation, node: self.options.node, geometry, remembered };
        let bytes = files::slots_bytes(&geometry);
        self.reserve(bytes)?;
        let _making = self.making.begin(segment);
        // The kernel clears the memory first, which takes seconds where it is much.
        let files = Files::create(&self.options.directory, &head).inspect_err(|_| self.give_back(bytes))?;
        let replica = Arc::new(Hosted::new(&head, files));
        let turn = replica.turn();
        self.lock().insert((segment, incarnation), replica.clone());
        Ok((replica, turn))
    }

    /// Takes so much of the budget.
    fn reserve(&self, asked: u64) -> Result<(), ReplicaError> {
        let budget = self.options.budget;
        let more = |used: u64| used.checked_add(asked).filter(|used| *used <= budget);
        let reserved = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        reserved.map(drop).map_err(|used| ReplicaError::NoBudget { asked, used, budget })
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Knows a replica no longer.
    fn take(&self, segment: SegmentId, incarnation: Incarnation) -> Option<Arc<Hosted>> {
        let replica = self.lock().remove(&(segment, incarnation))?;
        self.give_back(replica.bytes());
        Some(replica)
    }

    /// Fences a replica, and gives the first bytes of its slots.
    ///
    /// # Errors
    /// It refuses, is not here, or the earlier writer cannot be shut out for certain.
    pub fn fence(&self, request: &Request) -> Result<Vec<Head>, ReplicaError> {
        self.get(request.segment, request.incarnation)?.admit(request, &self.options.domains).map(|(heads, _)| heads)
    }

    /// Opens an endpoint for the writer of a term; the reply is for it.
    ///
    /// # Errors
    /// As [`Replicas::fence`]; the provider is not served, or its hello is wrong.
    pub fn connect_writer(&self, request: &Request, provider: &str, hello: &[u8]) -> Result<Vec<u8>, ReplicaError> {
        let replica = self.get(request.segment, request.incarnation)?;
        replica.connect_writer(request, &self.options.domains, provider, hello)
    }

    /// Opens an endpoint that reads.
    ///
    /// # Errors
    /// The replica is not here, the provider is not served, its hello is wrong, or there are too many readers.
    pub fn connect_reader(
        &self,
        segment: SegmentId,
        incarnation: Incarnation,
        provider: &str,
        hello: &[u8],
    ) -> Result<Vec<u8>, ReplicaError> {
        self.get(segment, incarnation)?.connect_reader(&self.options.domains, provider, hello)
    }

    /// Brings every slot of a replica to its newest whole image, for an owner that writes no more.
    ///
    /// # Errors
    /// As [`Replicas::fence`]; a later owner came.
    pub fn level(&self, request: &Request) -> Result<(), ReplicaError> {
        let replica = self.get(request.segment, request.incarnation)?;
        let (heads, turn) = replica.admit(request, &self.options.domains)?;
        level::level(&replica, &replica.views(&heads), turn)
    }

    /// What is wrong with the image that a slot holds: its table and its blocks are read where they stand.
    ///
    /// # Errors
    /// The replica is not here, was cut short, or the slot does not hold this image any more.
    pub fn verify(
        &self,
        segment: SegmentId,
        incarnation: Incarnation,
        slot: u32,
        image: Stamp,
    ) -> Result<Option<Damage>, ReplicaError> {
        verify::verify(&*self.get(segment, incarnation)?, slot, image)
    }

    /// The first bytes of a replica's slots, as they are.
    ///
    /// # Errors
    /// It is not here, or was cut short.
    pub fn heads(&self, segment: SegmentId, incarnation: Incarnation) -> Result<Vec<Head>, ReplicaError> {
        self.get(segment, incarnation)?.heads()
    }

    /// Makes a replica in the place of those that may be forgotten, or out of one of them, and fills it over `endpoint`, which reads the
    /// source. It is forgotten again if that fails.
    ///
    /// # Errors
    /// No room; the source does not hold what is said, or is gone; a later owner came.
    pub fn fill(
        &self,
        source: &Source,
        replaced: &Forgettable,
        provider: &str,
        mut endpoint: Endpoint,
    ) -> Result<Filled, ReplicaError> {
        let (domain, by) = (self.options.domains.get(provider)?, replaced.by);
        let mut repair = repair::begin(&domain, &mut endpoint, source)?;
        let (replica, turn) = match self.renew(&mut repair, source, replaced)? {
            Some(renewed) => renewed,
            None => {
                self.retire(source.segment, replaced)?;
                self.make(source.segment, source.geometry, by)?
            }
        };
        // Those that it was not made out of.
        let filled = self.retire(source.segment, replaced);
        let filled = filled.and_then(|()| repair::fill(repair, &replica, &domain, endpoint, source, turn, &self.pace));
        replica.report_progress(None);
        if let Err(error) = &filled {
            tracing::warn!(segment = %source.segment, replica = %replica.member.incarnation, "the replica is not filled: {error}");
            // Unless a later owner has found it, and made it its own.
            if let Err(error) = self.retire(source.segment, &Forgettable { by, members: vec![replica.member] }) {
                tracing::warn!("a replica that was not filled stays: {error}");
            }
        }
        filled
    }

    /// Forgets the replicas of a segment that may be forgotten. Those that are not here are no error.
    ///
    /// # Errors
    /// One has seen a later owner; its files cannot be removed.
    pub fn retire(&self, segment: SegmentId, forgettable: &Forgettable) -> Result<(), ReplicaError> {
        for replica in self.of_segment(segment) {
            if replica.remove_if(forgettable)? {
                self.take(segment, replica.member.incarnation);
            }
        }
        Ok(())
    }

    /// Forgets every replica of a segment that was removed, or only those that nobody has ever owned: of one that was half made.
    ///
    /// # Errors
    /// One is left: it is being made, has been owned, or its files cannot be removed.
    pub fn forget(&self, segment: SegmentId, unowned_only: bool) -> Result<(), ReplicaError> {
        // Looked at first: whoever has ended to make one has put it among the others before.
        if self.making.has(segment) {
            return Err(ReplicaError::BeingMade(segment));
        }
        for replica in self.of_segment(segment) {
            if unowned_only && replica.remembered() != Ownership::default() {
                return Err(ReplicaError::Owned(segment));
            }
            replica.remove()?;
            self.take(segment, replica.member.incarnation);
        }
        Ok(())
    }

    /// What is kept of a segment.
    #[must_use]
    pub fn summaries(&self, segment: SegmentId) -> Vec<Summary> {
        self.of_segment(segment).iter().map(|replica| summary(replica)).collect()
    }

    /// Whose replicas are kept.
    #[must_use]
    pub fn list(&self) -> Vec<Kept> {
        let kept = |replica: &Arc<Hosted>| Kept {
            segment: replica.segment,
            member: replica.member,
            remembered: replica.remembered(),
            is_in_use: replica.is_in_use(),
            problem: replica.check().err().map(|error| error.to_string()),
        };
        let all: Vec<_> = self.lock().values().cloned().collect();
        all.iter().map(kept).collect()
    }

    /// How much is in use, and how much further replicas can have now: no more than the file system has free.
    #[must_use]
    pub fn room(&self) -> Usage {
        let usage = self.usage();
        let free = statvfs(&self.options.directory).map(|about| about.blocks_available() * about.fragment_size());
        Usage { budget: usage.budget.min(usage.used.saturating_add(free.unwrap_or(u64::MAX))), ..usage }
    }

    /// How much is in use. It waits for nobody.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            used: self.used.load(Ordering::Relaxed),
            budget: self.options.budget,
            replicas: u32::try_from(self.lock().len()).unwrap_or(u32::MAX),
        }
    }
}

fn summary(replica: &Hosted) -> Summary {
    let (image, problem) = match replica.heads() {
        Ok(heads) => (replica.views(&heads).iter().filter_map(SlotView::image).max(), replica.problem()),
        Err(error) => (None, Some(error.to_string())),
    };
    Summary { segment: replica.segment, member: replica.member, image, repair: replica.progress(), problem }
}

#[cfg(test)]
mod tests {
    use segstore_core::id::{OwnerId, Term};
    use segstore_transport::{Provider, shm::Shm};

    use super::*;

    #[test]
    fn a_replica_that_somebody_may_write_is_in_use() {
        let place = tempfile::TempDir::new_in("/dev/shm").expect("a directory");
        let domains = Domains::new(vec![(SHM.to_owned(), Shm::new().open().expect("a domain"))]);
        let replicas = Replicas::open(Options::of_test(place.path(), domains)).expect("an empty directory");
        let (segment, geometry) = (SegmentId(1), Geometry::new(1 << 20, 4096, 2).expect("a geometry"));
        let incarnation = replicas.create(segment, geometry, Ownership::default()).expect("room").incarnation;
        assert!(!replicas.list()[0].is_in_use);
        let dialing = Shm::new().open().expect("a domain").dial().expect("an endpoint");
        let request = Request { segment, incarnation, asker: Ownership { term: Term(1), owner: OwnerId(1) } };
        let reply = replicas.connect_writer(&request, SHM, dialing.hello()).expect("an endpoint");
        let endpoint = dialing.complete(&reply).expect("connected");
        assert!(replicas.list()[0].is_in_use);
        drop(endpoint);
        while replicas.list()[0].is_in_use {
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_cannot_be_removed_is_in_use() {
        let place = tempfile::TempDir::new_in("/dev/shm").expect("a directory");
        let replicas = Replicas::open(Options::of_test(place.path(), Domains::default()));
        let replicas = replicas.expect("an empty directory");
        let (segment, geometry) = (SegmentId(1), Geometry::new(1 << 20, 4096, 2).expect("a geometry"));
        replicas.create(segment, geometry, Ownership::default()).expect("room");
        let files = std::fs::read_dir(place.path()).expect("a directory").flatten().map(|file| file.path());
        let head = files.into_iter().find(|file| file.extension().is_some_and(|kind| kind == files::HEAD));
        let head = head.expect("a head");
        std::fs::remove_file(&head).and_then(|()| std::fs::create_dir(&head)).expect("something in its place");
        let used = replicas.usage().used;
        assert!(replicas.forget(segment, false).is_err());
        assert_eq!(replicas.usage().used, used, "its memory is not free");
        std::fs::remove_dir(&head).expect("nothing is in its place");
        replicas.forget(segment, false).expect("removed");
        assert_eq!((replicas.usage().used, replicas.usage().replicas), (0, 0));
        assert!(std::fs::read_dir(place.path()).expect("a directory").flatten().all(|file| file.file_name() == "boot"));
    }

    /// The node's sign of life says how much is in use: it must not wait until a large replica is made.
    #[test]
    fn what_is_in_use_is_told_while_a_replica_is_made() {
        let place = tempfile::TempDir::new_in("/dev/shm").expect("a directory");
        let replicas = Replicas::open(Options::of_test(place.path(), Domains::default()));
        let replicas = replicas.expect("an empty directory");
        let geometry = Geometry::new(64 << 20, 4096, 2).expect("a geometry");
        let create = |segment| replicas.create(SegmentId(segment), geometry, Ownership::default());
        let is_seen = || {
            std::thread::scope(|scope| {
                let making = scope.spawn(|| create(1).expect("room"));
                let seen = std::iter::repeat_with(|| replicas.usage()).take_while(|usage| usage.replicas == 0);
                let is_seen = seen.filter(|usage| usage.used > 128 << 20).count() > 0;
                making.join().expect("made");
                is_seen
            })
        };
        // Now and then this thread does not run while the other makes one.
        let forgotten = |_: &i32| replicas.forget(SegmentId(1), false).is_ok();
        assert!((0..50).take_while(forgotten).any(|_| is_seen()), "its room is taken before it is there");
        let usage = replicas.usage();
        assert!((2..).map_while(|segment| create(segment).ok()).count() < 7, "the budget is kept");
        (1..10).for_each(|segment| replicas.forget(SegmentId(segment), false).expect("removed"));
        assert_eq!((replicas.usage().used, usage.replicas), (0, 1));
    }
}
