//! What an engine tells of itself, and what it holds for readers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use segstore_core::id::Member;

use super::Engine;
use super::link::Link;
use super::seat::Shared;
use crate::control::channel::Reporter;
use crate::control::message::{Fault, FaultKind, Held, OwnerState, Report};

/// The bits that count holds; the others are the ownership's mark.
const COUNT: u64 = u32::MAX as u64;
/// The longest that a reader may hold a slot.
const LONGEST_HOLD: Duration = Duration::from_secs(60);

impl Engine {
    /// Holds the newest acknowledged image in a replica that has it.
    pub(super) fn hold(&mut self, time: Duration, without: &[Member], reporter: Reporter) {
        let members: Vec<_> = self.owner.in_sync().iter().filter(|member| !without.contains(member)).copied().collect();
        let held = members.into_iter().find_map(|member| self.owner.hold(member));
        reporter.report(match held {
            Some(hold) => {
                self.holds.push((hold.number, Instant::now() + time.min(LONGEST_HOLD)));
                let segstore_core::owner::Hold { number, member, slot, image } = hold;
                let number = number | self.hold_mark();
                Ok(Report::Held(Held { ownership: self.owner.ownership(), number, member, slot, image }))
            }
            None => {
                Err(Fault::new(FaultKind::Unreachable, "no replica that the owner reaches holds its newest checkpoint"))
            }
        });
    }

    /// Ends a hold of this ownership; one of an earlier owner had another mark.
    pub(super) fn end_hold(&mut self, number: u64) {
        if number & !COUNT == self.hold_mark() {
            self.holds.retain(|(held, _)| *held != number & COUNT);
            self.owner.release(number & COUNT);
        }
    }

    /// What tells this ownership's holds from others': owners are named at random.
    fn hold_mark(&self) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "half of a random number")]
        let half = self.owner.ownership().owner.0 as u64;
        half & !COUNT
    }

    /// How the segment is.
    pub(super) fn state(&self, shared: &Arc<Shared>) -> OwnerState {
        let in_sync = self.owner.in_sync();
        let elsewhere_on: Vec<_> =
            in_sync.iter().map(|member| member.node).filter(|node| *node != shared.node).collect();
        let elsewhere = elsewhere_on.len();
        let attempt = self.attempt.as_ref();
        let unsafe_bytes = attempt.map_or(0, |attempt| {
            let mut blocks = 0;
            attempt.changes.runs_since(Some(self.owner.acknowledged().epoch), |_, count| blocks += u64::from(count));
            blocks * u64::from(shared.geometry.block_size())
        });
        let mut warnings: Vec<_> = self.warnings.iter().map(|(_, why)| why.clone()).collect();
        warnings.extend(self.links.iter().filter_map(|link| {
            let (why, over) = (link.instead.as_ref()?, link.way.provider());
            Some(shared.with_names(format!("{} is reached over {over}: {why}", link.member)))
        }));
        if elsewhere < self.wanted.replicas {
            let wanted = self.wanted.replicas;
            let why = self.unrepaired.as_ref().map_or_else(String::new, |why| format!(": {why}"));
            warnings.push(format!("{elsewhere} of {wanted} replicas on other nodes are in sync{why}"));
        } else if let Some(why) =
            self.unrepaired.as_ref().filter(|_| in_sync.iter().any(|m| self.wanted.is_unwanted(*m)))
        {
            warnings
                .push(format!("a replica stays on a node that is being drained, or is gone for good, since no other can be made: {why}"));
        }
        warnings.extend(self.parting_rests.clone().map(|why| shared.with_names(why)));
        let parting = self.dismissed.iter();
        warnings.extend(parting.map(|(member, why)| shared.with_names(format!("{member} is to be let go: {why}"))));
        OwnerState {
            acknowledged: self.owner.acknowledged(),
            newest: attempt.map_or(self.owner.acknowledged().epoch, |attempt| attempt.epoch),
            length: self.length,
            in_sync: u32::try_from(in_sync.len()).unwrap_or(u32::MAX),
            elsewhere: u32::try_from(elsewhere).unwrap_or(u32::MAX),
            elsewhere_on,
            links: self.links.iter().map(Link::state).collect(),
            wanted: u32::try_from(self.wanted.replicas).unwrap_or(u32::MAX),
            unsafe_for: attempt
                .map_or(0, |attempt| u64::try_from(attempt.began.elapsed().as_millis()).unwrap_or(u64::MAX)),
            unsafe_bytes,
            waiting_for: self.waiting_for(shared),
            warnings,
            holds: u32::try_from(self.holds.len()).unwrap_or(u32::MAX),
            checkpoint_time: self.checkpoint_time.histogram(),
            load_time: self.load_time.histogram(),
            pushed_bytes: self.pushed_bytes,
        }
    }

    /// What the attempt under way waits for, and why, for people.
    pub(super) fn waiting_for(&self, shared: &Shared) -> Option<String> {
        let blocked = self.owner.blocked()?;
        let mut why: Vec<&str> = Vec::new();
        for (_, text) in self.warnings.iter().filter(|(member, _)| blocked.members().contains(member)) {
            if !why.contains(&text.as_str()) {
                why.push(text);
            }
        }
        let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) };
        let joining = self
            .owner
            .joining()
            .map(|member| format!("; what is new goes to {member}, too, which is to join"))
            .collect::<String>();
        let (sent, all) = (self.sent().0 >> 20, self.sent().1 >> 20);
        let sent = if sent < all { format!("; {sent} of {all} MiB are sent so far") } else { String::new() };
        Some(shared.with_names(format!("{blocked}{why}{joining}{sent}")))
    }
}
