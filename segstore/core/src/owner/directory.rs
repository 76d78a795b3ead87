//! The owner's side of the directory: one change at a time, and none left in doubt.

use crate::id::Member;
use crate::record::{Swap, Versioned};

/// The record as it was confirmed last, and the change that is under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Directory {
    record: Versioned,
    state: State,
    /// Something failed since the record was read last: another owner may have come.
    in_doubt: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum State {
    Idle,
    Reading,
    Swapping(Swap),
    /// The change was sent, and may or may not have been made, and may yet be.
    Unsettled(Swap),
}

impl Directory {
    pub(super) fn new(record: Versioned) -> Self {
        Self { record, state: State::Idle, in_doubt: false }
    }

    pub(super) fn record(&self) -> &Versioned {
        &self.record
    }

    pub(super) fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    pub(super) fn doubt(&mut self) {
        self.in_doubt = true;
    }

    /// Whether the record should be read now.
    pub(super) fn check(&mut self) -> bool {
        let read = self.in_doubt && self.is_idle();
        if read {
            self.in_doubt = false;
            self.state = State::Reading;
        }
        read
    }

    /// Whether a read was asked for, and `current` is not from before what is known.
    pub(super) fn awaits(&self, current: &Versioned) -> bool {
        matches!(self.state, State::Reading | State::Unsettled(_)) && current.version >= self.record.version
    }

    /// Begins the change to another in-sync set.
    pub(super) fn swap_to(&mut self, in_sync: Vec<Member>) -> Swap {
        let swap = Swap { expected: self.record.clone(), new: self.record.record.with_in_sync(in_sync) };
        self.state = State::Swapping(swap.clone());
        swap
    }

    /// The change that an answer is about.
    pub(super) fn take_swap(&mut self) -> Option<Swap> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Swapping(swap) => Some(swap),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// The change's outcome is not known.
    pub(super) fn unsettle(&mut self) -> bool {
        match self.take_swap() {
            Some(swap) => {
                self.state = State::Unsettled(swap);
                true
            }
            None => false,
        }
    }

    /// Whether `current` is the record from before an unsettled change, which may therefore still come.
    pub(super) fn may_still_land(&self, current: &Versioned) -> bool {
        matches!(&self.state, State::Unsettled(swap) if swap.expected == *current)
    }

    /// The record is `current`, and nothing is under way.
    pub(super) fn settle(&mut self, current: Versioned) {
        self.record = current;
        self.state = State::Idle;
    }
}
