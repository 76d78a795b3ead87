//! Who may have a replica forgotten: its memory is given back, and what stands in it is gone.
//!
//! A node that is to make a further replica of a segment first forgets what it has of it that takes part in nothing: a former
//! member of the in-sync set takes memory that the new one needs. Those are *named* by whoever has looked at the node, at the
//! record and at the owner's replicas. A request that says whom to keep instead may arrive late, and then takes what was made
//! meanwhile for what is of no use.

use crate::id::Member;
use crate::layout::Ownership;
use crate::record::Record;
use crate::replica::{Refused, Replica};
use crate::rule::{self, Rule};

/// Whether the segment has a copy beside its owner.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Local {
    /// It has none.
    None,
    /// It has.
    Kept {
        /// Whether anybody holds the segment. As long as nobody does, the copy beside an owner that is gone stays, who may start
        /// there again: who took the segment over only to read it has left the image as it was.
        is_held: bool,
    },
}

/// Replicas that may be forgotten, and in whose name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Forgettable {
    /// Whose the segment is.
    pub by: Ownership,
    /// The replicas.
    pub members: Vec<Member>,
}

impl Forgettable {
    /// Of the replicas `kept` by a node: those that neither the record nor its owner, who has `followers`, knows anything of.
    ///
    /// `kept` is what stood there before `record` was read, and an owner asks for one replica at a time. So none of these is in
    /// the in-sync set, nor will be: whom an owner adds is made and filled anew, or has not ceased to follow it.
    ///
    /// # Errors
    /// The asker is not the segment's owner.
    pub fn of_owner(asker: Ownership, followers: &[Member], kept: &[Member], record: &Record) -> Result<Self, Refused> {
        record.check_owner(asker)?;
        let takes_part = |member: &&Member| followers.contains(member) || is_listed(record, **member);
        Ok(Self { by: asker, members: kept.iter().filter(|member| !takes_part(member)).copied().collect() })
    }

    /// The replica `member` that remembers `remembered`, if the record that was read since names it nowhere, and it is not the
    /// copy beside the owner.
    #[must_use]
    pub fn orphan(member: Member, remembered: Ownership, record: &Record, local: Local) -> Option<Self> {
        let by = record.ownership();
        let is_local = match local {
            Local::None => false,
            Local::Kept { is_held } => remembered == by || !is_held,
        };
        let is_needed = is_listed(record, member) || is_local;
        (!is_needed).then(|| Self { by, members: vec![member] })
    }

    /// Whether the replica `member`, which has decided as `replica`, is to be forgotten now.
    ///
    /// # Errors
    /// It has seen a later owner, to whom it may mean everything.
    pub fn covers(&self, member: Member, replica: &Replica) -> Result<bool, Refused> {
        if !self.members.contains(&member) && rule::holds(Rule::NameTheForgotten) {
            return Ok(false);
        }
        let (asked, remembered) = (self.by, replica.remembered);
        if asked.term < remembered.term && rule::holds(Rule::ForgetByTheLatest) {
            return Err(Refused::TermOver { asked, remembered });
        }
        Ok(true)
    }
}

fn is_listed(record: &Record, member: Member) -> bool {
    record.in_sync.contains(&member) && rule::holds(Rule::KeepTheListed)
}
