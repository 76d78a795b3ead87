//! Why replicas could not be used, for a person: nodes by name, each once, with what its daemon said.

use segstore_core::id::Member;
use segstore_core::takeover::{Failure, Unusable};

use crate::control::message::{Fault, FaultKind, Place};
use crate::error::Error;

/// What daemons said of replicas that did not answer as they should.
#[derive(Clone, Debug, Default)]
pub(crate) struct Causes(Vec<Cause>);

#[derive(Clone, Debug)]
struct Cause {
    member: Member,
    text: String,
    /// It will not come back: its node does not keep it any more.
    is_lost: bool,
}

impl Causes {
    /// What a daemon answered instead.
    pub(crate) fn note(&mut self, member: Member, fault: &Fault) {
        self.push(member, fault.message.clone(), fault.kind == FaultKind::NotFound);
    }

    /// Why it could not be reached.
    pub(crate) fn note_unreached(&mut self, member: Member, why: impl Into<String>) {
        self.push(member, why.into(), false);
    }

    fn push(&mut self, member: Member, text: String, is_lost: bool) {
        self.0.retain(|cause| cause.member != member);
        self.0.push(Cause { member, text, is_lost });
    }

    pub(crate) fn add(&mut self, other: Self) {
        other.0.into_iter().for_each(|cause| self.push(cause.member, cause.text, cause.is_lost));
    }

    fn get(&self, member: Member) -> Option<&Cause> {
        self.0.iter().find(|cause| cause.member == member)
    }

    /// Why this replica cannot be used.
    pub(crate) fn why(&self, member: Member, why: &Unusable) -> String {
        match (why, self.get(member)) {
            (Unusable::OutOfReach, Some(cause)) => cause.text.clone(),
            _ => why.to_string(),
        }
    }

    /// Why none of these can be used: each node once.
    pub(crate) fn describe(&self, places: &[Place], replicas: &[(Member, Unusable)]) -> String {
        let mut told: Vec<(Member, Vec<String>)> = Vec::new();
        for (member, why) in replicas {
            let text = self.why(*member, why);
            match told.iter_mut().find(|(known, _)| known == member) {
                Some((_, texts)) if texts.contains(&text) => {}
                Some((_, texts)) => texts.push(text),
                None => told.push((*member, vec![text])),
            }
        }
        let line = |(member, texts): (Member, Vec<String>)| {
            let (node, text) = (name(places, member), texts.join(", "));
            // A daemon that tells of another one names it.
            if text.starts_with(&node) { text } else { format!("{node}: {text}") }
        };
        told.into_iter().map(line).collect::<Vec<_>>().join("; ")
    }

    /// Whether none of these will answer otherwise later.
    pub(crate) fn are_lost(&self, replicas: &[(Member, Unusable)]) -> bool {
        replicas.iter().all(|(member, why)| match why {
            Unusable::OutOfReach => self.get(*member).is_some_and(|cause| cause.is_lost),
            Unusable::Refused(_) => false,
            _ => true,
        })
    }

    /// Why a takeover of the segment `segment` ended without it.
    pub(crate) fn of_takeover(&self, segment: &str, places: &[Place], failure: &Failure) -> Error {
        let text = match failure {
            Failure::NoneInReach(replicas) => {
                format!("no replica in sync can be used: {}", self.describe(places, replicas))
            }
            Failure::NoGoodCopy { image, replicas } => {
                let replicas = self.describe(places, replicas);
                format!("no good copy of {image}, which may have been acknowledged: {replicas}")
            }
            Failure::Hidden { readable, replicas } => {
                let replicas = self.describe(places, replicas);
                format!("something newer than {readable} may have been acknowledged: {replicas}")
            }
            Failure::DirectoryWentBack { member, .. } => {
                failure.to_string().replace(&member.to_string(), &name(places, *member))
            }
            Failure::Overtaken(_) | Failure::TermsUsedUp(_) => failure.to_string(),
        };
        let text = format!("segment {segment}: {text}");
        match failure {
            Failure::Overtaken(by) => Error::Fenced { name: segment.to_owned(), term: by.term },
            Failure::NoneInReach(replicas) if !self.are_lost(replicas) => Error::Unreachable(text),
            // What stands on a node that is out of reach may come back with it.
            Failure::NoGoodCopy { replicas, .. } if !self.are_lost(replicas) => Error::Unreachable(text),
            Failure::NoneInReach(_) | Failure::NoGoodCopy { .. } | Failure::Hidden { .. } => Error::NoGoodCopy(text),
            Failure::DirectoryWentBack { .. } | Failure::TermsUsedUp(_) => Error::Refused(text),
        }
    }
}

fn name(places: &[Place], member: Member) -> String {
    let place = places.iter().find(|place| place.member == member);
    place.map_or_else(|| member.to_string(), |place| format!("node {}", place.node_name))
}
