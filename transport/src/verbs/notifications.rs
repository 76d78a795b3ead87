//! What a target keeps for a peer's messages: room for them, and a word that counts those that were taken. The peer reads the
//! word one-sidedly, so it knows of room without any word of the target's processor.

use std::collections::VecDeque;
use std::sync::Arc;

use ibverbs_sys::ibv_access_flags;

use super::queue_pair::QueuePair;
use super::registration::{ProtectionDomain, Registration};
use super::wire::{MAX_PACKET, MESSAGE, Message};
use crate::memory::Memory;
use crate::sync::Ordering;
use crate::{Error, ErrorKind, Result};

/// Messages that fit: notifications and the knock.
pub(super) const ROOM: u32 = 257;
/// Notifications that fit.
pub(super) const RING: u64 = ROOM as u64 - 1;
/// The most in one batch.
pub(super) const MAX_IN_BATCH: usize = ROOM as usize / 2;
/// What a message's completion says, beside its slot.
pub(super) const RECEIVED: u64 = 1 << 63;

/// Where the slots start, each as long as a message; the word stands at 0. After them there is room for the knock, as long as
/// the longest packet.
const SLOTS: usize = 64;
const LEN: usize = MESSAGE as usize;
const KNOCK: usize = SLOTS + (ROOM as usize - 1) * LEN;

pub(super) struct Notifications {
    mailbox: Registration,
    /// Those that came and were not taken, with their slots.
    waiting: VecDeque<(u64, u64)>,
    taken: u64,
}

impl Notifications {
    pub(super) fn new(domain: &Arc<ProtectionDomain>) -> Result<Notifications> {
        let memory = Memory::local(KNOCK + MAX_PACKET as usize)?;
        let access = ibv_access_flags::IBV_ACCESS_LOCAL_WRITE | ibv_access_flags::IBV_ACCESS_REMOTE_READ;
        let mailbox = Registration::new(domain, &memory, access.0)?;
        Ok(Notifications { mailbox, waiting: VecDeque::with_capacity(ROOM as usize), taken: 0 })
    }

    /// Where the peer finds the word, and the key to it. What follows it is longer than any packet.
    pub(super) fn word(&self) -> (u64, u32) {
        (self.mailbox.base(), self.mailbox.remote_key())
    }

    /// Room for all messages that may come.
    pub(super) fn make_room(&self, queue_pair: &QueuePair) -> Result<()> {
        // Messages take room in the order in which it was made, and the knock is the first.
        queue_pair.post_room(&self.mailbox, KNOCK, MAX_PACKET, RECEIVED | RING)?;
        (0..RING).try_for_each(|slot| self.post(queue_pair, slot))
    }

    /// What came into the slot that a completion tells of.
    pub(super) fn message(&self, id: u64, len: usize) -> Result<(Message, u64)> {
        let slot = id & !RECEIVED;
        let mut bytes = [0; LEN];
        let (at, len) = if slot == RING { (KNOCK, len.min(LEN)) } else { (offset(slot), len) };
        let there = bytes.get_mut(..len).ok_or_else(|| {
            Error::operation(ErrorKind::Protocol, format!("a message of {len} bytes: none is longer than {LEN}"))
        })?;
        self.mailbox.memory.read_at(at, there)?;
        Ok((Message::parse(there)?, slot))
    }

    /// A notification waits to be taken.
    pub(super) fn push(&mut self, value: u64, slot: u64) {
        self.waiting.push_back((value, slot));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The oldest. Its slot is for the next message, and the peer may know.
    pub(super) fn take(&mut self, queue_pair: &QueuePair) -> Option<u64> {
        let (value, slot) = self.waiting.pop_front()?;
        self.taken += 1;
        // A queue pair that has ended needs no room.
        if self.post(queue_pair, slot).is_ok() {
            let _ = self.mailbox.memory.store_u64(0, self.taken, Ordering::Release);
        }
        Some(value)
    }

    fn post(&self, queue_pair: &QueuePair, slot: u64) -> Result<()> {
        queue_pair.post_room(&self.mailbox, offset(slot), MESSAGE, RECEIVED | slot)
    }
}

fn offset(slot: u64) -> usize {
    // Slots are counted here, and come back in completions: there are few.
    SLOTS + usize::try_from(slot).unwrap_or(0).min(ROOM as usize - 2) * LEN
}
