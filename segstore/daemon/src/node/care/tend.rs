//! One segment: taken over as a caretaker, its replicas restored. Nothing of it is loaded: what is copied is verified where it stands.

use std::sync::Arc;
use std::time::Duration;

use segstore::control::message::{Bytes, Fault, FaultKind, Keeping};
use segstore_core::id::{Member, NodeId, OwnerId, SegmentId, Stamp};
use segstore_core::layout::{Geometry, Ownership, SlotHeader};
use segstore_core::owner::{self, Owner, Start};
use segstore_core::record::{RecordVersion, Swap, Versioned};
use segstore_core::replica::Request;
use segstore_core::slot::SlotView;
use segstore_core::takeover::{self, Failure, Takeover, Unusable};
use tokio::task::JoinSet;

use super::need;
use crate::cluster::SegmentEntry;
use crate::directory::Revision;
use crate::identity::random;
use crate::node::{Added, Came, Change, Further, LONG, Node, Origin, REPAIR, SHORT, geometry, unexpected};
use crate::peers::message::{Call, Reply};

/// How often it is looked whether somebody owns the segment while a replica is filled.
const LOOK: Duration = Duration::from_secs(2);

/// Why a segment was not restored.
pub(super) enum Stopped {
    /// It is somebody's again, or it was removed.
    Owned,
    /// Something is in the way.
    Failed(String),
}

impl From<Fault> for Stopped {
    fn from(fault: Fault) -> Self {
        match fault.kind {
            FaultKind::Refused(_) => Self::Owned,
            _ => Self::Failed(fault.message),
        }
    }
}

/// Restores what the segment lacks, as long as nobody has it open.
pub(super) async fn tend(node: &Arc<Node>, name: &str) -> Result<(), Stopped> {
    let (entry, _) = read(node, name).await?;
    let (geometry, keeping) = (geometry(entry.shape)?, entry.keeping);
    let number = u64::try_from(random().map_err(|error| Stopped::Failed(error.to_string()))? >> 64).unwrap_or_default();
    let beside = node.holder(name).await?.map(|(holder, _)| holder.node);
    let caretaker = Caretaker { node, name, segment: entry.segment, geometry, keeping, beside };
    let (start, verified) = caretaker.take_over(OwnerId::caretaker(number)).await?;
    caretaker.restore(start, verified).await
}

/// A segment, which may have been removed.
async fn read(node: &Node, name: &str) -> Result<(SegmentEntry, Revision), Stopped> {
    node.segment(name).await.map_err(|fault| match fault.kind {
        FaultKind::NotFound => Stopped::Owned,
        _ => fault.into(),
    })
}

struct Caretaker<'n> {
    node: &'n Arc<Node>,
    name: &'n str,
    segment: SegmentId,
    geometry: Geometry,
    keeping: Keeping,
    /// Where the next owner is expected, since the name is held there: what is there does not count.
    beside: Option<NodeId>,
}

/// What became of a change of the record.
enum Changed {
    Made(RecordVersion),
    Conflict(Versioned),
    Unknown,
}

impl Caretaker<'_> {
    // ---- the directory ----

    async fn record(&self) -> Result<Versioned, Stopped> {
        let (entry, revision) = read(self.node, self.name).await?;
        Ok(entry.versioned(revision))
    }

    async fn change(&self, swap: Swap) -> Result<Changed, Stopped> {
        let (old, new) = (&swap.expected.record, &swap.new);
        let claims = old.owner != new.owner && new.owner.is_caretaker();
        let why = if claims {
            "nobody has it open, and its replicas are to be restored"
        } else if old.owner != new.owner {
            "its replicas cannot be restored, and the claim is taken back"
        } else if old.in_sync.iter().all(|member| new.in_sync.contains(member)) {
            "it was filled, while nobody has the segment open"
        } else {
            "nobody has the segment open, and its replicas are restored without it"
        };
        // After the record was read: who has claimed it before has it open, and who comes later claims over this.
        if claims
            && let Some((holder, _)) = self.node.holder(self.name).await?
            && !self.node.is_idle(self.name, &holder)
        {
            return Err(Stopped::Owned);
        }
        let (entry, revision) = read(self.node, self.name).await?;
        let mut claimant = entry.claimant.clone().filter(|_| claims);
        if let Some(claimant) = &mut claimant {
            // Otherwise it may live, and hold it again: from here on it does not.
            need::check_ended(self.node, self.name, claimant).await?.map_err(Stopped::Failed)?;
            claimant.has_ended = true;
        }
        let who = format!("the daemon of node {}", self.node.name);
        let change = Change { who: &who, why, came: &Came::Unowned, causes: &[], claimant };
        match self.node.change_record(self.name, (entry, revision), swap, change).await {
            Ok(Ok(version)) => Ok(Changed::Made(version)),
            Ok(Err(current)) => Ok(Changed::Conflict(current)),
            Err(fault) if fault.kind == FaultKind::NoAnswer => Ok(Changed::Unknown),
            Err(fault) => Err(fault.into()),
        }
    }

    // ---- the takeover ----

    /// Where to go on from, and whose copy was verified.
    async fn take_over(&self, owner: OwnerId) -> Result<(Start, Vec<Member>), Stopped> {
        let (mut takeover, mut verified) = (Takeover::new(owner), Vec::new());
        loop {
            let halt = || Stopped::Failed("the takeover came to a halt".to_owned());
            match takeover.poll().ok_or_else(halt)? {
                takeover::Action::ReadRecord => takeover.record_read(self.record().await?),
                takeover::Action::Swap(swap) => match self.change(swap).await? {
                    Changed::Made(version) => takeover.swapped(version),
                    Changed::Conflict(current) => takeover.conflicted(current),
                    Changed::Unknown => takeover.swap_unknown(),
                },
                takeover::Action::Fence { member, request } => self.fence(&mut takeover, (member, request)).await?,
                takeover::Action::Load { header, sources } => {
                    verified.push(self.verify(&mut takeover, &header, sources).await?);
                }
                takeover::Action::Done(start) => return Ok((start, verified)),
                takeover::Action::Failed(Failure::Overtaken(_)) => return Err(Stopped::Owned),
                takeover::Action::Failed(failure) => return Err(Stopped::Failed(self.with_names(failure.to_string()))),
            }
        }
    }

    /// Fences this replica, and every other whose turn comes next: all at once. Who does not answer and may come back is not given up: nobody
    /// waits for this segment.
    async fn fence(&self, takeover: &mut Takeover, first: (Member, Request)) -> Result<(), Stopped> {
        let mut fencing = JoinSet::new();
        let mut next = Some(first);
        while let Some((member, request)) = next {
            let node = self.node.clone();
            fencing.spawn(async move { (member, node.call(member.node, Call::Fence { request }, LONG).await) });
            next = match takeover.poll() {
                Some(takeover::Action::Fence { member, request }) => Some((member, request)),
                // Nothing else is wanted before the fences are answered.
                _ => None,
            };
        }
        let (unwanted, mut fenced) = (self.node.view.unwanted(), Vec::new());
        while let Some(answer) = fencing.join_next().await {
            fenced.push(answer.map_err(|error| Stopped::Failed(error.to_string()))?);
        }
        let is_refused = |(_, answer): &(Member, _)| matches!(answer, Err(Fault { kind: FaultKind::Refused(_), .. }));
        // Where one refuses, it is to be found out why, and the claim is taken back if it must be.
        let may_stop = !fenced.iter().any(is_refused);
        let is_lost =
            |member: &Member, fault: &Fault| fault.kind == FaultKind::NotFound || unwanted.contains(&member.node);
        let silent = fenced.iter().find_map(|(member, answer)| match answer {
            Err(fault) if may_stop && !is_lost(member, fault) => Some((member, fault)),
            _ => None,
        });
        if let Some((member, fault)) = silent {
            return Err(Stopped::Failed(need::may_come_back(&self.node.view.name(member.node), &fault.message)));
        }
        for (member, answer) in fenced {
            match answer {
                Ok(Reply::Heads(heads)) => takeover.fenced(member, self.views(&heads)),
                Err(Fault { kind: FaultKind::Refused(why), .. }) => takeover.not_fenced(member, why.into()),
                Ok(_) | Err(_) => takeover.not_fenced(member, Unusable::OutOfReach),
            }
        }
        Ok(())
    }

    /// Has a copy of the image verified where it stands, of those first that are to stay: whose it is. Where none is good, an owner may still
    /// make a good one of several.
    async fn verify(
        &self,
        takeover: &mut Takeover,
        header: &SlotHeader,
        mut sources: Vec<(Member, u32)>,
    ) -> Result<Member, Stopped> {
        let (unwanted, mut problems) = (self.node.view.unwanted(), Vec::new());
        sources.sort_by_key(|(member, _)| unwanted.contains(&member.node));
        for (member, slot) in sources {
            let call = Call::Verify { segment: self.segment, member, slot, image: header.image };
            let problem = match self.node.call(member.node, call, REPAIR).await {
                Ok(Reply::Verified { damage: None }) => {
                    takeover.loaded();
                    return Ok(member);
                }
                Ok(Reply::Verified { damage: Some(damage) }) => {
                    let damage = Unusable::Damaged(header.image, damage);
                    takeover.damaged(member, slot, &damage);
                    damage.to_string()
                }
                Ok(other) => unexpected(&other).message,
                Err(fault) => fault.message,
            };
            problems.push(format!("{member}: {problem}"));
        }
        let text = format!("no copy of {} is good as it is: {}", header.image, problems.join("; "));
        Err(Stopped::Failed(self.with_names(text)))
    }

    // ---- the ownership ----

    /// `good` are those that were verified, or filled with what was.
    async fn restore(&self, start: Start, mut good: Vec<Member>) -> Result<(), Stopped> {
        let owner = Owner::new(start, self.keeping.policy());
        let mut owner = if let Some(node) = self.beside { owner.on_node(node) } else { owner };
        // Those that were fenced can be reached; nothing is pushed.
        let members: Vec<_> = owner.followers().collect();
        members.into_iter().for_each(|member| owner.connected(member));
        loop {
            self.act(&mut owner).await?;
            let unwanted = self.node.view.unwanted();
            let (leave, stay): (Vec<Member>, Vec<Member>) =
                owner.in_sync().iter().partition(|member| unwanted.contains(&member.node));
            let elsewhere = stay.iter().filter(|member| Some(member.node) != self.beside).count();
            if elsewhere < self.keeping.replicas as usize {
                good.push(self.add(&mut owner, &good).await?);
            } else if let Some(member) = leave.first() {
                if !stay.iter().any(|member| good.contains(member)) {
                    let text = format!("{member} stays: the copies of those that are to stay could not be verified");
                    return Err(Stopped::Failed(self.with_names(text)));
                }
                self.let_go(&mut owner, *member).await?;
            } else {
                return Ok(());
            }
        }
    }

    /// Has a further replica filled, from a good one, which is in sync then.
    async fn add(&self, owner: &mut Owner, good: &[Member]) -> Result<Member, Stopped> {
        let source = owner.repair_sources().find(|(member, ..)| good.contains(member));
        let (source, slot, base) = source.ok_or_else(|| Stopped::Failed("there is nothing to copy from".to_owned()))?;
        let (ownership, members) = (owner.ownership(), owner.followers().collect());
        let (further, from) = (Further { ownership, beside: self.beside, members }, Origin { source, slot, base });
        let added = tokio::select! {
            added = self.node.add_replica(self.name, self.segment, &further, &from) => added,
            // What is filled there is the next one's to go on with.
            () = self.until_claimed(ownership) => return Err(Stopped::Owned),
        };
        let added = match added {
            // By whom the segment is owned now, or since its node remembers a later term than the directory.
            Err(fault)
                if matches!(fault.kind, FaultKind::Refused(_)) && self.record().await?.ownership() == ownership =>
            {
                Err(Stopped::Failed(fault.message))
            }
            added => added.map_err(Stopped::from),
        };
        let Added { member, base, closed } = added?;
        owner.repaired(ownership, member, self.geometry.slots(), base, closed);
        owner.connected(member);
        self.act(owner).await?;
        let in_sync = owner.in_sync().contains(&member);
        let other = || Stopped::Failed(self.with_names(format!("{member} was filled with something else than {base}")));
        in_sync.then_some(member).ok_or_else(other)
    }

    /// Waits until somebody else owns the segment, or it is removed.
    async fn until_claimed(&self, own: Ownership) {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.record().await {
                Ok(record) if record.ownership() != own => return,
                Err(Stopped::Owned) => return,
                Ok(_) | Err(Stopped::Failed(_)) => {}
            }
        }
    }

    /// Has a replica let go whose place others have taken.
    async fn let_go(&self, owner: &mut Owner, member: Member) -> Result<(), Stopped> {
        let is_begun = owner.dismiss(member);
        self.act(owner).await?;
        let is_gone = is_begun && !owner.follows(member);
        let stays = || {
            let why = "those that are to stay do not all show that they are well";
            Stopped::Failed(self.with_names(format!("{member} stays: {why}")))
        };
        is_gone.then_some(()).ok_or_else(stays)
    }

    /// Does what the owner wants done, until there is nothing.
    async fn act(&self, owner: &mut Owner) -> Result<(), Stopped> {
        while let Some(action) = owner.poll() {
            match action {
                owner::Action::Swap(swap) => match self.change(swap).await? {
                    Changed::Made(version) => owner.swapped(version),
                    Changed::Conflict(current) => owner.conflicted(current),
                    Changed::Unknown => owner.swap_unknown(),
                },
                owner::Action::ReadRecord => owner.record_read(self.record().await?),
                owner::Action::Look { member, look } => {
                    let newest = self.newest(member).await;
                    owner.seen(member, look, newest);
                }
                owner::Action::Ended(_) => return Err(Stopped::Owned),
                // Of checkpoints, which it does not make; and what has happened.
                owner::Action::Push { .. }
                | owner::Action::Committed { .. }
                | owner::Action::Removed(_)
                | owner::Action::Added(_)
                | owner::Action::Rejoins(_) => {}
            }
        }
        Ok(())
    }

    /// The newest image that a replica holds.
    async fn newest(&self, member: Member) -> Option<Stamp> {
        match self.node.call(member.node, Call::Heads { segment: self.segment, member }, SHORT).await {
            Ok(Reply::Heads(heads)) => self.views(&heads).iter().filter_map(SlotView::image).max(),
            _ => None,
        }
    }

    fn views(&self, heads: &[Bytes]) -> Vec<SlotView> {
        SlotView::parse_all(self.segment, &self.geometry, heads.iter().map(|head| head.0.as_slice()))
    }

    /// A text in which replicas have their nodes' names.
    fn with_names(&self, text: String) -> String {
        self.node.view.all().iter().fold(text, |text, (entry, _)| text.replace(&entry.node.to_string(), &entry.name))
    }
}
