//! The initiator's side: sends a frame for each operation, and takes the answers.

use std::collections::VecDeque;
use std::sync::Arc;

use super::wire::{Frame, reason};
use super::world::{Way, World};
use crate::contract::driver::{EndpointDriver, Local, Place, Work};
use crate::memory::copy;
use crate::{Error, ErrorKind, Post};

pub(super) struct SimEndpoint {
    world: Arc<World>,
    link: u64,
    awaited: VecDeque<Awaited>,
    aborted: bool,
}

/// The answers to come, in order.
enum Awaited {
    Data(Local),
    Word(Local),
    Done,
}

impl SimEndpoint {
    pub(super) fn new(world: Arc<World>, link: u64) -> SimEndpoint {
        SimEndpoint { world, link, awaited: VecDeque::new(), aborted: false }
    }

    fn send(&self, frame: &Frame<'_>) {
        self.world.with(|state| state.send(self.link, Way::ToTarget, frame));
    }

    /// Takes one answer; true when it ends a batch.
    fn take(&mut self, answer: &[u8]) -> Result<bool, Error> {
        let frame = Frame::parse(answer)?;
        if let Frame::Refused { reason } = frame {
            return Err(refused(reason));
        }
        match (self.awaited.pop_front(), frame) {
            (Some(Awaited::Data(local)), Frame::Data { bytes }) if bytes.len() == local.len => {
                // SAFETY: the batch is in flight, so its local ranges are valid; the length was compared.
                unsafe { copy(bytes.as_ptr(), local.address, local.len) };
                Ok(false)
            }
            (Some(Awaited::Word(local)), Frame::Word { was }) => {
                // SAFETY: as above; the contract checked for eight bytes.
                unsafe { copy(was.to_ne_bytes().as_ptr(), local.address, 8) };
                Ok(false)
            }
            (Some(Awaited::Done), Frame::Done) => Ok(true),
            (_, frame) => {
                let kind = frame.encode()[1];
                Err(Error::endpoint(ErrorKind::Protocol, format!("an answer of kind {kind} that was not awaited")))
            }
        }
    }
}

// SAFETY: `poll` touches local memory only of the oldest batch not reported; `abort` forgets all of it.
unsafe impl EndpointDriver for SimEndpoint {
    unsafe fn post(&mut self, batch: &[Work]) -> Result<(), Post> {
        for work in batch {
            match *work {
                Work::Write { local, remote } => {
                    let mut bytes = vec![0; local.len];
                    // SAFETY: the caller promised the local range; the buffer is new and of its length.
                    unsafe { copy(local.address, bytes.as_mut_ptr(), local.len) };
                    self.send(&Frame::Write { grant: grant(remote), offset: remote.offset, bytes: &bytes });
                }
                Work::Read { local, remote } => {
                    self.awaited.push_back(Awaited::Data(local));
                    self.send(&Frame::Read { grant: grant(remote), offset: remote.offset, len: local.len as u64 });
                }
                Work::Notify { value } => self.send(&Frame::Notify { value }),
                Work::CompareSwap { local, remote, expected, new } => {
                    self.awaited.push_back(Awaited::Word(local));
                    self.send(&Frame::CompareSwap { grant: grant(remote), offset: remote.offset, expected, new });
                }
                Work::Flush => {} // The end of the batch is answered by the target's processor.
            }
        }
        self.awaited.push_back(Awaited::Done);
        self.send(&Frame::End);
        Ok(())
    }

    fn poll(&mut self) -> Option<Result<(), Error>> {
        loop {
            let waiting = !self.awaited.is_empty();
            match self.world.with(|state| state.hear(self.link, waiting)) {
                Err(gone) => return Some(Err(gone)),
                Ok(None) => return None,
                Ok(Some(answer)) => match self.take(&answer) {
                    Ok(false) => {}
                    Ok(true) => return Some(Ok(())),
                    Err(error) => return Some(Err(error)),
                },
            }
        }
    }

    fn abort(&mut self) {
        self.awaited.clear();
        self.close();
    }
}

impl SimEndpoint {
    /// What was sent still travels.
    fn close(&mut self) {
        if !std::mem::replace(&mut self.aborted, true) {
            self.world.with(|state| state.link(self.link).map(|link| link.closed = true));
        }
    }
}

impl Drop for SimEndpoint {
    fn drop(&mut self) {
        self.close();
    }
}

/// The contract checked it against the grants, of which there are at most 64.
fn grant(place: Place) -> u16 {
    u16::try_from(place.grant).unwrap_or(u16::MAX)
}

fn refused(why: u64) -> Error {
    let (kind, text) = match why {
        reason::REVOKED => (ErrorKind::Revoked, "the target has revoked this endpoint".to_owned()),
        reason::DENIED => (ErrorKind::Denied, "the target does not grant this access".to_owned()),
        reason::MALFORMED => (ErrorKind::Protocol, "the target could not read a frame".to_owned()),
        other => (ErrorKind::PeerGone, format!("the target ended the connection for reason {other}")),
    };
    Error::endpoint(kind, text).with_code(i64::from_ne_bytes(why.to_ne_bytes()))
}
