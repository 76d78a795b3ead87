//! The engine of one owned segment: drives core's [`Owner`] over real endpoints.
//!
//! One thread at a time has the engine (see [`seat`]); it polls the endpoints, hands events to the owner, and carries out what the
//! owner wants. What takes long (the directory, connecting, repair) runs in [`jobs`] and comes back as an event.

mod better;
pub(crate) mod event;
pub(crate) mod jobs;
pub(crate) mod link;
pub(crate) mod seat;
mod state;
pub(crate) mod wanted;

use std::sync::Arc;
use std::time::{Duration, Instant};

use segstore_core::changes::Changes;
use segstore_core::id::{Epoch, Member};
use segstore_core::owner::{Action, BeginError, End, Outcome, Owner};
use segstore_core::push::{Checkpoint, Target};
use segstore_transport::Wait;

use crate::control::message::Report;
use crate::stats::Durations;
use crate::way::Way;
use better::Better;
use event::Event;
use jobs::{Job, Pauses};
use link::{Ended, Link, Progress};
use seat::Shared;
use wanted::Wanted;

/// How long a thread sleeps at most before it looks at everything again.
const NAP: Duration = Duration::from_millis(2);

/// One owned segment.
pub(crate) struct Engine {
    pub(crate) owner: Owner,
    links: Vec<Link>,
    attempt: Option<Attempt>,
    /// The changes of the attempt that ended, for the segment to take back.
    returned: Option<Box<Changes>>,
    committed: Option<Committed>,
    holds: Vec<(u64, Instant)>,
    wanted: Wanted,
    /// Reads of how it is to be kept: how many were asked for, and the latest that has come.
    reads: (u64, u64),
    /// Those that are being let go, and why.
    dismissed: Vec<(Member, &'static str)>,
    /// Replicas that were looked for in vain, until something reaches them.
    unseen: Vec<Member>,
    /// Why nobody is let go for a moment.
    parting_rests: Option<String>,
    /// Before a change of the record that nobody took is tried again.
    swap_pauses: Pauses,
    repairing: bool,
    /// Repairs in a row that came to nothing: perhaps for their source.
    repairs_failed: usize,
    /// Why there is no further replica, when one was asked for last.
    unrepaired: Option<String>,
    /// Whether a copy on this node is being sought.
    seeking_local: bool,
    warnings: Vec<(Member, String)>,
    /// Replicas whose link broke in a checkpoint, since when: until one reaches them.
    losses: Vec<(Member, Instant)>,
    better: Better,
    checkpoint_time: Durations,
    load_time: Durations,
    pushed_bytes: u64,
    /// Of the newest image that was asked for, or loaded.
    length: u64,
    wait: Wait,
}

/// A checkpoint under way.
struct Attempt {
    epoch: Epoch,
    began: Instant,
    checkpoint: Checkpoint,
    changes: Box<Changes>,
}

/// A checkpoint that was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Committed {
    pub(crate) epoch: Epoch,
    pub(crate) in_sync: usize,
    /// Of these, on other nodes than the owner's.
    pub(crate) elsewhere: usize,
}

impl Engine {
    pub(crate) fn new(owner: Owner, wanted: Wanted, wait: Wait, length: u64, load_time: Duration) -> Self {
        let mut times = Durations::default();
        times.record(load_time);
        Self {
            owner,
            links: Vec::new(),
            attempt: None,
            returned: None,
            committed: None,
            holds: Vec::new(),
            wanted,
            reads: (0, 0),
            dismissed: Vec::new(),
            unseen: Vec::new(),
            parting_rests: None,
            swap_pauses: Pauses::new(),
            repairing: false,
            repairs_failed: 0,
            unrepaired: None,
            seeking_local: false,
            warnings: Vec::new(),
            losses: Vec::new(),
            better: Better::default(),
            checkpoint_time: Durations::default(),
            load_time: times,
            pushed_bytes: 0,
            length,
            wait,
        }
    }

    /// Opens endpoints to replicas that have none.
    pub(crate) fn connect(&mut self, shared: &Arc<Shared>) {
        let members: Vec<_> = self.owner.connecting().collect();
        members.into_iter().for_each(|member| shared.start(Job::Connect { member, patience: shared.patience }));
        self.act(shared);
    }

    /// Ends every transfer: the application lets go of the segment.
    pub(crate) fn end(&mut self) {
        for mut link in self.links.drain(..) {
            link.abort();
        }
    }

    /// Begins a checkpoint: `seal` gives the changes to the epoch. Working memory must rest until it has ended. Gives its number, and when
    /// it began.
    pub(crate) fn begin(
        &mut self,
        shared: &Arc<Shared>,
        mut changes: Box<Changes>,
        seal: impl FnOnce(Epoch, &mut Changes),
    ) -> Result<(Epoch, Instant), (BeginError, Box<Changes>)> {
        self.committed = None;
        let epoch = match self.owner.begin() {
            Ok(epoch) => epoch,
            Err(error) => return Err((error, changes)),
        };
        seal(epoch, &mut changes);
        self.length = changes.length();
        let checkpoint = Checkpoint::new(&self.owner.header(epoch, &changes));
        let began = Instant::now();
        self.attempt = Some(Attempt { epoch, began, checkpoint, changes });
        self.expire_holds();
        self.act(shared);
        Ok((epoch, began))
    }

    /// Whether the checkpoint under way was acknowledged, and how.
    pub(crate) fn committed(&self) -> Option<Committed> {
        self.committed
    }

    /// The changes of the attempt that ended.
    pub(crate) fn take_changes(&mut self) -> Option<Box<Changes>> {
        self.returned.take()
    }

    /// Whether the attempt `epoch` is under way.
    pub(crate) fn is_attempting(&self, epoch: Epoch) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.epoch == epoch)
    }

    /// Ends the attempt without an acknowledgement: nothing reads working memory any more. What it waited for, for people.
    pub(crate) fn give_up(&mut self, shared: &Arc<Shared>) -> String {
        let waiting_for = self.waiting_for(shared).unwrap_or_else(|| "nothing".to_owned());
        while let Err(busy) = self.owner.give_up() {
            for member in busy {
                if self.is_the_only_way(shared, member) {
                    self.interrupt(shared, member);
                } else {
                    self.lose(shared, member, "its push was ended, since the checkpoint's time was over");
                }
            }
        }
        self.end_attempt();
        self.act(shared);
        waiting_for
    }

    fn end_attempt(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.returned = Some(attempt.changes);
        }
    }

    /// Does everything that can be done without waiting.
    pub(crate) fn step(&mut self, shared: &Arc<Shared>) {
        if shared.has_events() {
            for event in shared.take_events() {
                self.happen(shared, event);
            }
        }
        jobs::start_stranded(shared);
        self.expire_holds();
        for at in (0..self.links.len()).rev() {
            let progress = self.links[at].progress();
            self.report(shared, at, progress);
        }
        self.act(shared);
    }

    /// Waits a little for something to happen: looks for a while, then sleeps.
    pub(crate) fn rest(&mut self, shared: &Arc<Shared>, since: Instant, now: Instant, deadline: Instant) {
        let is_spinning = match self.wait {
            Wait::Busy => true,
            Wait::Adaptive { spin } => now - since < spin,
            Wait::Event => false,
        };
        if is_spinning {
            if self.wait != Wait::Busy {
                // A replica's daemon on this machine may want this very core.
                std::thread::yield_now();
            }
            return std::hint::spin_loop();
        }
        let until = deadline.min(now + NAP);
        match self.links.iter().position(Link::is_busy) {
            Some(at) => {
                let progress = self.links[at].sleep(Wait::Event, until);
                self.report(shared, at, progress);
            }
            None => shared.sleep(until - now),
        }
        // A node that hangs says nothing: no error ever comes of it.
        let limit = shared.patience.saturating_mul(2);
        let stuck = self.links.iter_mut().find_map(|link| link.is_stuck(now, limit).then_some(link.member));
        if let Some(member) = stuck {
            self.lose(shared, member, "it has taken nothing for too long");
        }
    }

    fn report(&mut self, shared: &Arc<Shared>, at: usize, progress: Progress) {
        let member = self.links[at].member;
        match progress {
            Progress::Waiting => {}
            Progress::Completed(epoch) => {
                self.losses.retain(|(lost, _)| *lost != member);
                self.unseen.retain(|unseen| *unseen != member);
                self.owner.completed(member, epoch);
                let link = &self.links[at];
                if link.may_be_better && self.better.is_due(member, Instant::now()) {
                    shared.start(Job::Look { member, than: link.way });
                }
            }
            Progress::Broken(error) => self.lose(shared, member, &error.to_string()),
        }
    }

    /// Whether a replica takes what it is sent, though not all of it so far, and no other one is there that checkpoints could go on with.
    fn is_the_only_way(&mut self, shared: &Shared, member: Member) -> bool {
        let is_other = |link: &Link| link.member != member && self.owner.in_sync().contains(&link.member);
        let is_there_another = self.links.iter().any(is_other);
        let link = self.links.iter_mut().find(|link| link.member == member);
        !is_there_another && link.is_some_and(|link| !link.is_stuck(Instant::now(), shared.patience))
    }

    /// Ends a push: the next checkpoint's goes on from there.
    fn interrupt(&mut self, shared: &Arc<Shared>, member: Member) {
        self.unlink(member);
        self.losses.retain(|(lost, _)| *lost != member);
        self.owner.lost(member);
        shared.start(Job::Connect { member, patience: shared.patience });
    }

    /// The endpoint to `member` is gone; a job tries to get it back. One that can be connected to, and takes no push, is given up in
    /// its time as well.
    fn lose(&mut self, shared: &Arc<Shared>, member: Member, why: &str) {
        let link = self.links.iter().find(|link| link.member == member && !link.has_delivered);
        if let Some((way, was_trusted)) = link.map(|link| (link.way, link.was_trusted))
            && self.attempt.is_some()
            && shared.session.domains.distrusted.add(member.node, way)
            && was_trusted
        {
            // It was connected to, and nothing got through: another way is tried first, and has its time.
            self.losses.retain(|(lost, _)| *lost != member);
        }
        self.unlink(member);
        let patience = shared.patience.saturating_sub(self.lost_for(member));
        if patience.is_zero() {
            self.give_up_on(shared, member, format!("it takes no checkpoint: {why}"));
        } else {
            tracing::warn!(segment = %shared.name, %member, "the link to a replica broke: {why}; connecting again");
            self.owner.lost(member);
        }
        if self.owner.follows(member) {
            shared.start(Job::Connect { member, patience });
        }
    }

    /// How long checkpoints have not reached `member`, from now on if they did so far.
    fn lost_for(&mut self, member: Member) -> Duration {
        if self.attempt.is_none() {
            return Duration::ZERO;
        }
        let known = self.losses.iter().find(|(lost, _)| *lost == member).map(|(_, since)| since.elapsed());
        known.unwrap_or_else(|| {
            self.losses.push((member, Instant::now()));
            Duration::ZERO
        })
    }

    /// Nobody waits for `member` any more, unless nothing is left without it.
    fn give_up_on(&mut self, shared: &Arc<Shared>, member: Member, why: String) {
        tracing::warn!(segment = %shared.name, %member, "a replica is out of reach: {why}");
        self.warnings.retain(|(whom, _)| *whom != member);
        self.warnings.push((member, why));
        self.owner.failed(member);
        if !self.owner.in_sync().contains(&member) {
            // Filled, and gone before it came into the set, or about to be let go: another one can be made.
            self.owner.remove(member);
        }
        if !self.owner.follows(member) {
            shared.forget(member);
        }
    }

    fn expire_holds(&mut self) {
        if self.holds.is_empty() {
            return;
        }
        let now = Instant::now();
        let owner = &mut self.owner;
        self.holds.retain(|(number, until)| {
            if *until <= now {
                owner.release(*number);
            }
            *until > now
        });
    }

    /// Carries out what the owner wants.
    fn act(&mut self, shared: &Arc<Shared>) {
        loop {
            while let Some(action) = self.owner.poll() {
                self.perform(shared, action);
            }
            if !self.trim(shared) {
                break;
            }
        }
        self.replenish(shared);
    }

    fn perform(&mut self, shared: &Arc<Shared>, action: Action) {
        match action {
            Action::Push { member, epoch, target } => self.push(shared, member, epoch, target),
            Action::Swap(swap) => {
                let dismissed = self.dismissed.iter().map(|(member, why)| (*member, (*why).to_owned()));
                let causes = self.warnings.iter().cloned().chain(dismissed).collect();
                shared.start(Job::Swap { swap, causes, pause: self.swap_pauses.0 });
            }
            Action::ReadRecord => self.read_record(shared),
            Action::Look { member, look } => shared.start(Job::See { member, look }),
            Action::Committed { epoch, in_sync, elsewhere } => {
                self.acknowledge(Committed { epoch, in_sync, elsewhere });
            }
            Action::Removed(member) => self.removed(shared, member),
            Action::Added(member) => {
                tracing::info!(segment = %shared.name, %member, "a replica came into the in-sync set");
                self.forget_warnings(member);
            }
            Action::Rejoins(member) => shared.start(Job::Later(Event::ShouldBeInSync(member))),
            Action::Ended(end) => self.ended(shared, end),
        }
    }

    /// Has the record read, and how the segment is to be kept.
    fn read_record(&mut self, shared: &Arc<Shared>) {
        self.reads.0 += 1;
        shared.start(Job::ReadRecord(self.reads.0));
    }

    /// A replica came in: nothing is amiss with it, and it takes the place of one that was missed.
    fn forget_warnings(&mut self, added: Member) {
        let owner = &self.owner;
        self.warnings.retain(|(whom, _)| *whom != added && owner.follows(*whom));
    }

    fn push(&mut self, shared: &Arc<Shared>, member: Member, epoch: Epoch, target: Target) {
        let at = self.links.iter().position(|link| link.member == member);
        let attempt = self.attempt.as_ref().filter(|attempt| attempt.epoch == epoch);
        match (at, attempt) {
            (Some(at), Some(attempt)) => {
                let link = &mut self.links[at];
                self.pushed_bytes += link.push(epoch, &attempt.checkpoint, &attempt.changes, target);
                let progress = link.progress();
                self.report(shared, at, progress);
            }
            _ => self.lose(shared, member, "nothing is connected to it"),
        }
    }

    fn acknowledge(&mut self, committed: Committed) {
        if let Some(attempt) = &self.attempt {
            self.checkpoint_time.record(attempt.began.elapsed());
        }
        self.end_attempt();
        self.committed = Some(committed);
    }

    fn removed(&mut self, shared: &Arc<Shared>, member: Member) {
        self.unlink(member);
        self.losses.retain(|(lost, _)| *lost != member);
        self.better.forget(member);
        self.unseen.retain(|unseen| *unseen != member);
        match self.dismissed.extract_if(.., |(dismissed, _)| *dismissed == member).next() {
            Some((_, why)) => tracing::info!(segment = %shared.name, %member, "a replica was let go: {why}"),
            None => tracing::warn!(segment = %shared.name, %member, "a replica has left the in-sync set"),
        }
        shared.forget(member);
    }

    fn ended(&mut self, shared: &Arc<Shared>, why: End) {
        tracing::warn!(segment = %shared.name, "nothing is acknowledged any more: {why:?}");
        self.end();
        self.end_attempt();
        shared.close();
    }

    fn happen(&mut self, shared: &Arc<Shared>, event: Event) {
        match event {
            Event::Connected(link) => self.link(shared, *link),
            Event::Better(member, than) => self.change_over(shared, member, than),
            Event::Unreached(member, why) => self.give_up_on(shared, member, why),
            Event::Refused(member, why) => self.owner.refused(member, &why),
            Event::Swapped(version) => {
                self.swap_pauses = Pauses::new();
                self.owner.swapped(version);
            }
            Event::Conflicted(current) => self.owner.conflicted(current),
            Event::NotSwapped => {
                self.swap_pauses.grow();
                self.owner.not_swapped();
            }
            Event::SwapUnknown => self.owner.swap_unknown(),
            Event::Unlinked => self.owner.unlinked(),
            Event::RecordRead(current, wanted, number) => {
                // Reads overtake each other.
                if number > self.reads.1 {
                    (self.wanted, self.reads.1) = (wanted, number);
                }
                self.owner.record_read(current);
            }
            Event::Seen { member, look, newest } => self.seen(shared, member, look, newest),
            Event::Rested => self.parting_rests = None,
            Event::Repaired { by, place, slots, base, closed } => {
                let member = place.member;
                shared.learn(place);
                if self.owner.repaired(by, member, slots, base, closed) {
                    (self.repairing, self.repairs_failed, self.unrepaired) = (false, 0, None);
                    shared.start(Job::Connect { member, patience: shared.patience });
                    shared.start(Job::Later(Event::ShouldBeInSync(member)));
                } else {
                    // It was filled for nothing; perhaps from an image of a later owner.
                    self.read_record(shared);
                    shared.start(Job::Later(Event::NotRepaired(None)));
                }
            }
            Event::Made { by, place, slots } => {
                let member = place.member;
                shared.learn(place);
                self.repairing = false;
                if self.owner.made(by, member, slots) {
                    self.unrepaired = None;
                    shared.start(Job::Connect { member, patience: shared.patience });
                } else {
                    self.read_record(shared);
                }
            }
            Event::NotRepaired(why) => {
                self.repairing = false;
                self.repairs_failed += usize::from(why.is_some());
                if why.is_some() && why != self.unrepaired {
                    tracing::warn!(segment = %shared.name, "a replica is missing: {}", why.as_deref().unwrap_or_default());
                    self.unrepaired = why;
                }
            }
            Event::ShouldBeInSync(member) => {
                if self.owner.lags(member) {
                    // The application rests: another copy finds nothing that changes meanwhile.
                    self.unlink(member);
                    self.owner.remove(member);
                }
            }
            Event::LocalFound { place, link, slots } => {
                self.seeking_local = false;
                let member = place.member;
                shared.learn(place);
                self.owner.add_local_as_found(member, &slots);
                self.link(shared, *link);
            }
            Event::NoLocal => self.seeking_local = false,
            Event::DaemonIsBack => {
                self.meet_daemon(shared);
                // What it would have told meanwhile.
                self.read_record(shared);
            }
            Event::Hold { time, without, reporter } => self.hold(time, &without, reporter),
            Event::EndHold { number, reporter } => {
                self.end_hold(number);
                reporter.report(Ok(Report::Done));
            }
            // Another one in this process may be about to own it: the reporter says that this one does not.
            Event::Changed(reporter) => {
                if self.owner.end().is_none() {
                    self.read_record(shared);
                    reporter.report(Ok(Report::Done));
                }
            }
            Event::State(reporter) => {
                let state = self.state(shared);
                reporter.report(Ok(Report::State(Box::new(state))));
            }
        }
    }

    /// A replica may be reached over something better than `than`, which it has been reached over so far.
    fn change_over(&mut self, shared: &Arc<Shared>, member: Member, than: Way) {
        if self.links.iter().any(|link| link.member == member && link.way == than) {
            tracing::info!(segment = %shared.name, %member, "a replica is reached over a better way than {} again", than.provider());
            shared.session.domains.distrusted.forgive(member.node);
            self.unlink(member);
            self.owner.lost(member);
            shared.start(Job::Connect { member, patience: shared.patience });
        }
    }

    /// A replica on this node is written to while its daemon is away. Back, the daemon may have it no more, or elsewhere.
    fn meet_daemon(&mut self, shared: &Arc<Shared>) {
        let here: Vec<_> =
            self.links.iter().map(|link| link.member).filter(|member| member.node == shared.node).collect();
        here.into_iter().for_each(|member| self.lose(shared, member, "this node's daemon was away"));
    }

    fn link(&mut self, shared: &Arc<Shared>, link: Link) {
        let member = link.member;
        if !self.owner.follows(member) {
            return; // It was let go while it was connected to.
        }
        if self.unlink(member) {
            self.owner.lost(member);
        }
        if let Some(why) = &link.instead {
            tracing::warn!(segment = %shared.name, %member, "a replica is reached over {}: {why}", link.way.provider());
        }
        self.links.push(link);
        self.warnings.retain(|(whom, _)| *whom != member);
        self.unseen.retain(|unseen| *unseen != member);
        self.owner.connected(member);
    }

    /// Whether there was a link.
    fn unlink(&mut self, member: Member) -> bool {
        let Some(at) = self.links.iter().position(|link| link.member == member) else { return false };
        if let Some(Ended { epoch, blocks }) = self.links.swap_remove(at).abort() {
            self.owner.ended_after(member, epoch, blocks);
        }
        true
    }

    /// Bytes of the pushes under way that were posted, and all of them.
    pub(crate) fn sent(&self) -> (u64, u64) {
        self.links.iter().map(Link::sent).fold((0, 0), |(done, all), (sent, bytes)| (done + sent, all + bytes))
    }

    /// What became of `epoch`.
    pub(crate) fn outcome(&self, epoch: Epoch) -> Outcome {
        self.owner.outcome(epoch)
    }
}
