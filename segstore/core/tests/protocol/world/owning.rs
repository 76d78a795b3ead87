//! A process that owns the segment: its endpoints, its checkpoints, and what its state machine wants.

use segstore_core::id::{Member, Stamp};
use segstore_core::owner::{Action, BelowMinimum, End};
use segstore_core::push::Source;
use segstore_core::replica::Request;

use super::network::{Endpoint, Write};
use super::process::DirectoryRequest;
use super::{BLOCK, SEGMENT, Violation, World, replica_of};

impl World {
    pub(super) fn connect(&mut self, p: usize, r: usize) {
        let member = self.member(r);
        let Some(owning) = self.processes[p].owning() else { return };
        let asker = owning.owner.ownership();
        let answer = self.request(r, &Request { segment: SEGMENT, incarnation: member.incarnation, asker });
        let owner = &mut self.processes[p].owning_mut().unwrap().owner;
        match answer {
            Ok(_) => owner.connected(member),
            Err(why) => owner.refused(member, &why),
        }
        if answer.is_ok() {
            self.endpoints.push(Endpoint::new(p, r, member));
        }
        self.take_actions(p);
    }

    pub(super) fn commit(&mut self, p: usize, block: Option<u32>) {
        let process = &mut self.processes[p];
        process.commits -= 1;
        let value = (p as u8 + 1) * 16 + process.commits;
        let owning = process.owning_mut().unwrap();
        let term = owning.owner.ownership().term;
        let epoch = match block {
            Some(block) => owning.commit(block, value),
            None => owning.resize(),
        };
        if let Some(epoch) = epoch {
            let stamp = Stamp { term, epoch };
            let image = self.journal.attempted(stamp, owning.built_on, owning.content());
            owning.built_on = Some(image);
            owning.attempt = Some(image);
        }
        self.take_actions(p);
    }

    fn endpoint(&self, p: usize, r: usize, wanted: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        self.endpoints.iter().position(|e| e.process == p && e.replica == r && wanted(e))
    }

    pub(super) fn deliver(&mut self, p: usize, r: usize, which: impl Fn(&Endpoint) -> bool) {
        let Some(at) = self.endpoint(p, r, which) else { return };
        let is_open = self.endpoints[at].is_open();
        let Some(write) = self.endpoints[at].in_flight.pop_front() else { return };
        let memory = self.processes[p].owning().filter(|_| is_open).map(|owning| &owning.memory);
        let sent = write.source.and_then(|offset| memory?.get(offset..offset + write.bytes.len()));
        self.replicas[r].write(&self.geometry, write.at, sent.unwrap_or(&write.bytes));
    }

    /// Of the next write from `p` to `r`, only the bytes in `part` land.
    pub fn tear(&mut self, p: usize, r: usize, part: std::ops::Range<usize>) {
        let Some(at) = self.endpoint(p, r, Endpoint::is_open) else { return };
        let Some(write) = self.endpoints[at].in_flight.pop_front() else { return };
        self.replicas[r].write(&self.geometry, write.at + part.start, &write.bytes[part]);
    }

    /// How many bytes each write has that is in flight from `p` to `r`.
    pub fn in_flight(&self, p: usize, r: usize) -> Vec<usize> {
        let endpoints = self.endpoints.iter().filter(|e| e.process == p && e.replica == r);
        endpoints.flat_map(|e| e.in_flight.iter().map(|write| write.bytes.len())).collect()
    }

    pub(super) fn complete(&mut self, p: usize, r: usize) {
        let Some(at) = self.endpoint(p, r, Endpoint::is_open) else { return };
        if self.endpoints[at].revoked {
            return self.disconnect(p, r);
        }
        let member = self.endpoints[at].member;
        if let Some(epoch) = self.endpoints[at].awaited.take() {
            self.processes[p].owning_mut().unwrap().owner.completed(member, epoch);
        }
        self.take_actions(p);
    }

    fn abandon(&mut self, p: usize, r: usize) -> Option<Member> {
        let at = self.endpoint(p, r, Endpoint::is_open)?;
        let endpoint = &mut self.endpoints[at];
        let (member, landed) = (endpoint.member, endpoint.landed());
        endpoint.abandon();
        if let (Some(epoch), Some(owning)) = (endpoint.awaited, self.processes[p].owning_mut()) {
            owning.owner.ended_after(member, epoch, landed);
        }
        Some(member)
    }

    pub(super) fn lose(&mut self, p: usize, r: usize) {
        let Some(member) = self.abandon(p, r) else { return };
        if let Some(owning) = self.processes[p].owning_mut() {
            owning.owner.lost(member);
        }
        self.take_actions(p);
    }

    pub(super) fn disconnect(&mut self, p: usize, r: usize) {
        let Some(member) = self.abandon(p, r) else { return };
        if let Some(owning) = self.processes[p].owning_mut() {
            owning.owner.failed(member);
        }
        self.take_actions(p);
    }

    pub(super) fn act_for_owner(&mut self, p: usize, action: Action) {
        match action {
            Action::Push { member, epoch, target } => {
                let owning = self.processes[p].owning().unwrap();
                let (first, piecewise) = (self.geometry.slot(0) as usize, self.piecewise);
                let mut writes = Vec::new();
                owning.checkpoint().plan(&owning.changes, target, &mut |at: u64, source: Source<'_>| {
                    let at = at as usize;
                    debug_assert!(at >= first);
                    match source {
                        Source::Bytes(bytes) => writes.push(Write { at, bytes: bytes.to_vec(), source: None }),
                        Source::Working { offset, length } => {
                            let (offset, length) = (offset as usize, length as usize);
                            let piece = if piecewise { BLOCK } else { length };
                            writes.extend((0..length).step_by(piece).map(|from| {
                                let source = offset + from;
                                let bytes = owning.memory[source..source + piece].to_vec();
                                Write { at: at + from, bytes, source: Some(source) }
                            }));
                        }
                    }
                });
                if let Some(at) = self.endpoint(p, replica_of(&member), |e| e.is_open() && e.member == member) {
                    self.endpoints[at].push(epoch, writes);
                }
            }
            Action::Swap(swap) => self.processes[p].directory = Some(DirectoryRequest::Swap(swap)),
            Action::ReadRecord => self.processes[p].directory = Some(DirectoryRequest::Read),
            Action::Committed { in_sync, elsewhere, .. } => {
                let own = |member: &&Member| self.collocated && replica_of(member) == p;
                let known = self.processes[p].owning().unwrap().owner.in_sync();
                assert_eq!((known.len(), known.len() - known.iter().filter(own).count()), (in_sync, elsewhere));
                if self.policy.below == BelowMinimum::Stop && elsewhere < self.policy.minimum {
                    self.journal.broken(Violation::TooFew);
                }
                let image = self.processes[p].owning_mut().unwrap().attempt.take();
                self.journal.acknowledge(image.unwrap());
            }
            Action::Look { member, look } => self.processes[p].looks.push((member, look)),
            Action::Removed(member) => {
                self.check_let_go(p, member);
                let to_it = |e: &&mut Endpoint| e.process == p && e.member == member;
                self.endpoints.iter_mut().filter(to_it).for_each(Endpoint::abandon);
            }
            Action::Ended(end) => {
                if matches!(end, End::Fenced(by) if by.owner.is_caretaker()) && self.holder == Some(p) {
                    self.journal.broken(Violation::ShutOut);
                }
                self.abandon_all(p);
            }
            Action::Added(_) | Action::Rejoins(_) => {}
        }
    }
}
