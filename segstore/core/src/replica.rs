//! What a replica promises about terms and writers.
//!
//! A replica serves one writer at a time: the newest term that it has heard of, and of that term the endpoint opened last. It
//! stores the term in replica memory before it acts on it, so the promise holds over restarts.

use serde::{Deserialize, Serialize};

use crate::id::{Incarnation, SegmentId};
use crate::layout::Ownership;
use crate::rule::{self, Rule};

/// The part of a replica's head that decides who may write.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Replica {
    /// The segment's life.
    pub segment: SegmentId,
    /// This memory's life.
    pub incarnation: Incarnation,
    /// The highest term seen, and whose it is.
    pub remembered: Ownership,
    /// Whoever changes it now.
    pub turn: Turn,
}

/// Leave to change a replica in an owner's name: to push to it, to fill it, to level its slots. It ends with the next request that
/// is granted, in the same step in which that one's asker is admitted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Turn(u64);

/// A request to a replica: to be fenced, to open an endpoint for writing, or to have its slots levelled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Which life of the segment is meant.
    pub segment: SegmentId,
    /// Which life of the replica's memory is meant.
    pub incarnation: Incarnation,
    /// Who asks.
    pub asker: Ownership,
}

/// What to do about a request that is in order, in this sequence: store, revoke, then answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Granted {
    /// Store this in replica memory first.
    pub remember: Option<Ownership>,
    /// Then revoke every write endpoint that was there before.
    pub revoke: bool,
    /// What the asker may do ends when this does.
    pub turn: Turn,
}

/// Why a replica refuses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// Another owner came later.
    #[error("term {} is over: the replica has seen term {}", .asked.term, .remembered.term)]
    TermOver {
        /// Who asked.
        asked: Ownership,
        /// Who came later.
        remembered: Ownership,
    },
    /// Two owners claim one term, which no directory that keeps its promises allows.
    #[error("term {} belongs to owner {}, not to owner {}", .remembered.term, .remembered.owner, .asked.owner)]
    TermTaken {
        /// Who asked.
        asked: Ownership,
        /// Whose the term is.
        remembered: Ownership,
    },
    /// The memory that was meant is gone.
    #[error("this is replica {is}, not {asked}: the memory that was meant is gone")]
    OtherIncarnation {
        /// The life that was meant.
        asked: Incarnation,
        /// The life that this memory has.
        is: Incarnation,
    },
    /// The name was used again for another segment.
    #[error("this replica belongs to segment {is}, not to {asked}")]
    OtherSegment {
        /// The life that was meant.
        asked: SegmentId,
        /// The life that this replica belongs to.
        is: SegmentId,
    },
}

impl Replica {
    /// A replica as it was made, or taken up again by a daemon that restarted: whoever was changing it then does so no more.
    #[must_use]
    pub fn new(segment: SegmentId, incarnation: Incarnation, remembered: Ownership) -> Self {
        Self { segment, incarnation, remembered, turn: Turn::default() }
    }

    /// Whether what was begun in `turn` may go on.
    #[must_use]
    pub fn allows(&self, turn: Turn) -> bool {
        turn == self.turn || !rule::holds(Rule::EndTurns)
    }

    /// Decides a request, and remembers the asker if it is granted. The caller carries out what is granted.
    ///
    /// # Errors
    /// The asker's term is over, or something else was meant.
    pub fn decide(&mut self, request: &Request) -> Result<Granted, Refused> {
        let (asked, remembered) = (request.asker, self.remembered);
        if rule::holds(Rule::Identity) && request.segment != self.segment {
            return Err(Refused::OtherSegment { asked: request.segment, is: self.segment });
        }
        if rule::holds(Rule::Identity) && request.incarnation != self.incarnation {
            return Err(Refused::OtherIncarnation { asked: request.incarnation, is: self.incarnation });
        }
        if rule::holds(Rule::RefuseLowerTerms) && asked.term < remembered.term {
            return Err(Refused::TermOver { asked, remembered });
        }
        if asked.term == remembered.term && asked.owner != remembered.owner {
            return Err(Refused::TermTaken { asked, remembered });
        }
        let store = asked != remembered && rule::holds(Rule::RememberTerm);
        let revoke = asked.term != remembered.term || rule::holds(Rule::RevokeEarlier);
        self.remembered = asked;
        if revoke {
            self.turn = Turn(self.turn.0 + 1);
        }
        Ok(Granted { remember: store.then_some(asked), revoke, turn: self.turn })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{OwnerId, Term};

    const fn ownership(term: u64, owner: u128) -> Ownership {
        Ownership { term: Term(term), owner: OwnerId(owner) }
    }

    const REPLICA: Replica =
        Replica { segment: SegmentId(1), incarnation: Incarnation(2), remembered: ownership(5, 50), turn: Turn(7) };

    fn request(asker: Ownership) -> Request {
        Request { segment: SegmentId(1), incarnation: Incarnation(2), asker }
    }

    #[test]
    fn a_higher_term_is_stored_and_revokes() {
        let granted = { REPLICA }.decide(&request(ownership(6, 60)));
        assert_eq!(granted, Ok(Granted { remember: Some(ownership(6, 60)), revoke: true, turn: Turn(8) }));
    }

    #[test]
    fn the_same_owner_revokes_its_own_earlier_endpoints() {
        let granted = { REPLICA }.decide(&request(ownership(5, 50)));
        assert_eq!(granted, Ok(Granted { remember: None, revoke: true, turn: Turn(8) }));
    }

    #[test]
    fn lower_terms_and_second_owners_are_refused() {
        let lower = { REPLICA }.decide(&request(ownership(4, 40)));
        assert!(matches!(lower, Err(Refused::TermOver { .. })), "{lower:?}");
        let second = { REPLICA }.decide(&request(ownership(5, 51)));
        assert!(matches!(second, Err(Refused::TermTaken { .. })), "{second:?}");
    }
}
