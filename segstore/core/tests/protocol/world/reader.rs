//! A reader that owns nothing and copies an image while everything else goes on.

use segstore_core::layout::{Entry, Ownership};
use segstore_core::owner::Hold;
use segstore_core::reader::{Reader as Decisions, Unread, Verdict};
use segstore_core::record::Versioned;
use segstore_core::rule::{self, Rule};
use segstore_core::slot::{SlotView, verify_blocks, verify_table};

use super::journal::Index;
use super::process::Owning;
use super::{BLOCK, SEGMENT, Step, Violation, World, owner_id, replica_of};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Stage {
    /// The record was read.
    Begun,
    /// An owner said that it holds this.
    Held(Ownership, Hold),
    Entries,
    Block(u32),
    HeadAgain,
    Record(SlotView),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Reader {
    before: Versioned,
    /// What was acknowledged when it began.
    since: Option<Index>,
    stage: Stage,
    decisions: Option<Decisions>,
    /// Who holds the image for it. A hold whose time is up holds nothing.
    hold: Option<(usize, Hold)>,
    is_held: bool,
    entries: Vec<Entry>,
    bytes: Vec<u8>,
}

impl World {
    pub(super) fn enabled_for_reader(&self, i: usize, reader: &Reader, steps: &mut Vec<Step>) {
        if reader.stage != Stage::Begun {
            steps.push(Step::ReaderGoesOn(i));
            if reader.is_held {
                steps.push(Step::HoldExpires(i));
            }
            return;
        }
        for (p, process) in self.processes.iter().enumerate() {
            let is_owner = owner_id(p) == reader.before.record.owner || !rule::holds(Rule::ReadTheHeld);
            let Some(owning) = process.owning().filter(|_| is_owner) else { continue };
            let has_it = |r: &usize| owning.owner.clone().hold(self.member(*r)).is_some();
            steps.extend((0..self.replicas.len()).filter(has_it).map(|r| Step::Ask(i, p, r)));
        }
        let members = reader.before.record.in_sync.iter().filter(|member| self.member(replica_of(member)) == **member);
        steps.extend(members.map(|member| Step::LookAt(i, replica_of(member))));
    }

    pub(super) fn begin_reading(&mut self) {
        self.faults.reads -= 1;
        self.readers.push(Reader {
            before: self.record.clone(),
            since: self.journal.newest(),
            stage: Stage::Begun,
            decisions: None,
            hold: None,
            is_held: false,
            entries: Vec::new(),
            bytes: Vec::new(),
        });
    }

    pub(super) fn ask(&mut self, i: usize, p: usize, r: usize) {
        let member = self.member(r);
        let owner = &mut self.processes[p].owning_mut().unwrap().owner;
        let (answered, hold) = (owner.ownership(), owner.hold(member).unwrap());
        let reader = &mut self.readers[i];
        (reader.hold, reader.is_held, reader.stage) = (Some((p, hold)), true, Stage::Held(answered, hold));
    }

    /// The owner does not answer, and of the members only `r` does.
    pub(super) fn look_at(&mut self, i: usize, r: usize) {
        let answers = vec![(self.member(r), Ok(self.replicas[r].views(&self.geometry)))];
        let decisions = Decisions::of_heads(self.readers[i].before.clone(), answers);
        self.decide(i, decisions);
    }

    pub(super) fn hold_expires(&mut self, i: usize) {
        self.readers[i].is_held = false;
        let (p, hold) = self.readers[i].hold.unwrap();
        if let Some(owning) = self.processes[p].owning_mut() {
            owning.owner.release(hold.number);
        }
        self.take_actions(p);
    }

    fn decide(&mut self, i: usize, decisions: Result<Decisions, Unread>) {
        match decisions {
            Ok(decisions) => {
                self.readers[i].decisions = Some(decisions);
                self.readers[i].stage = Stage::Entries;
            }
            Err(why) => self.end_reading(i, Err(why)),
        }
    }

    pub(super) fn reader_goes_on(&mut self, i: usize) {
        let reader = self.readers[i].clone();
        if let Stage::Held(answered, hold) = reader.stage {
            if self.member(replica_of(&hold.member)) != hold.member {
                self.drop_reader(i); // Its memory is gone, and the endpoint with it.
                return;
            }
            let head = self.replicas[replica_of(&hold.member)].view(&self.geometry, hold.slot);
            return self.decide(i, Decisions::of_hold(reader.before, answered, hold, head));
        }
        let Some(place) = reader.decisions.as_ref().map(|decisions| decisions.place().clone()) else { return };
        let replica = &self.replicas[replica_of(&place.member)];
        if replica.member() != place.member {
            self.drop_reader(i);
            return;
        }
        let count = self.geometry.blocks_of(place.header.length);
        let next_after = |block| if block < count { Stage::Block(block) } else { Stage::HeadAgain };
        let this = &mut self.readers[i];
        match reader.stage {
            Stage::Entries => {
                this.entries = replica.entries(&self.geometry, place.slot, 0, count);
                this.bytes.clear();
                this.stage = next_after(0);
            }
            Stage::Block(block) => {
                this.bytes.extend_from_slice(replica.blocks(&self.geometry, place.slot, block, 1));
                this.stage = next_after(block + 1);
            }
            Stage::HeadAgain => this.stage = Stage::Record(replica.view(&self.geometry, place.slot)),
            Stage::Record(head) => {
                let block = |b: u32| &reader.bytes[b as usize * BLOCK..(b as usize + 1) * BLOCK];
                let verified = verify_table(&place.header, &reader.entries)
                    .and_then(|()| verify_blocks(SEGMENT, &reader.entries, block));
                let verdict = this.decisions.as_mut().unwrap().copied(verified, &head, &self.record);
                match verdict {
                    Ok(Verdict::Elsewhere) => this.stage = Stage::Entries,
                    Ok(Verdict::Accepted) => self.end_reading(i, Ok(())),
                    Err(why) => self.end_reading(i, Err(why)),
                }
            }
            Stage::Begun | Stage::Held(..) => {}
        }
    }

    fn end_reading(&mut self, i: usize, verdict: Result<(), Unread>) {
        let reader = self.drop_reader(i);
        match (verdict, &reader.decisions) {
            (Ok(()), Some(decisions)) => {
                let mut bytes = reader.bytes;
                bytes.truncate(decisions.place().header.length as usize);
                self.journal.read(decisions.image(), &bytes, reader.since, reader.hold.is_some());
            }
            (Ok(()), None) => {}
            // Nothing damages memory here.
            (Err(Unread::Unreadable(_)), _) if reader.before == self.record => {
                self.journal.broken(Violation::Unreadable);
            }
            (Err(_), _) if self.should_stand(&reader) => self.journal.broken(Violation::HeldAndWritten),
            (Err(_), _) => {}
        }
    }

    /// Whether the owner still holds what this reader reads.
    fn should_stand(&self, reader: &Reader) -> bool {
        let Some((p, hold)) = reader.hold.filter(|_| reader.is_held && reader.before == self.record) else {
            return false;
        };
        let takes_part = |owning: &Owning| owning.owner.follows(hold.member);
        self.processes[p].owning().is_some_and(takes_part)
    }

    fn drop_reader(&mut self, i: usize) -> Reader {
        if self.readers[i].is_held {
            self.hold_expires(i);
            self.readers[i].is_held = true;
        }
        self.readers.remove(i)
    }
}
