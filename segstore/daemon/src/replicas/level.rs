//! Levelling a replica's slots: core's [`Level`] over its files.

use segstore_core::layout::Key;
use segstore_core::level::{Level, Step};
use segstore_core::replica::Turn;
use segstore_core::slot::SlotView;
use zerocopy::IntoBytes;

use super::error::ReplicaError;
use super::hosted::Hosted;

/// Bytes of one piece, at least a block.
const PIECE: u32 = 4 << 20;

/// `slots` is what stands in them, as far as it counts.
pub(super) fn level(replica: &Hosted, slots: &[SlotView], turn: Turn) -> Result<(), ReplicaError> {
    let (segment, geometry) = (replica.segment, replica.geometry);
    let mut level = Level::new(slots, PIECE / geometry.block_size());
    let mut blocks = Vec::new();
    loop {
        match level.step() {
            Step::ReadTable { slot, header } => {
                let table = replica.with_files(|files| files.table(slot, header))?;
                level.table(table);
                continue;
            }
            Step::Open { slot, mark } => {
                replica.change(turn, |files| files.write(slot, 0, &mark.encode(Key::of(segment))))?;
            }
            Step::Copy { from, to, first, entries } => replica.change(turn, |files| {
                blocks.resize(entries.len() * geometry.block_size() as usize, 0);
                files.write(to, geometry.entry_in_slot(first), entries.as_bytes())?;
                files.read(from, geometry.block_in_slot(first), &mut blocks)?;
                files.write(to, geometry.block_in_slot(first), &blocks)
            })?,
            Step::Close { slot, header } => replica.change(turn, |files| files.close_slot(slot, header))?,
            Step::Finished => return Ok(()),
        }
        level.advance();
    }
}

#[cfg(test)]
mod tests {
    use segstore_core::changes::Changes;
    use segstore_core::id::{Epoch, OwnerId, SegmentId, Stamp, Term};
    use segstore_core::layout::{Geometry, Ownership, SlotHeader};
    use segstore_core::push::{Checkpoint, Source, Target};
    use segstore_core::replica::Request;

    use super::*;
    use crate::replicas::{Domains, Options, Replicas};

    const BLOCK: usize = 1 << 20;
    const BLOCKS: u32 = 16;
    const STATE: usize = BLOCK * BLOCKS as usize;

    fn ownership(term: u64) -> Ownership {
        Ownership { term: Term(term), owner: OwnerId(term.into()) }
    }

    /// What the owner of this term pushes: every block is full of its term.
    fn push(replica: &Hosted, slot: u32, image: Stamp) {
        let (geometry, key) = (replica.geometry, Key::of(replica.segment));
        let state = vec![u8::try_from(image.term.0).unwrap(); STATE];
        let mut changes = Changes::empty(key, geometry);
        changes.set_length(state.len() as u64);
        changes.seal(image.epoch, |_| &state[..BLOCK]);
        let header = SlotHeader {
            image,
            length: changes.sealed_length(),
            table_sum: changes.table_sum(),
            ..SlotHeader::of_empty_segment(replica.segment, &geometry)
        };
        let mut write = |at: u64, source: Source<'_>| {
            let bytes = match source {
                Source::Bytes(bytes) => bytes,
                Source::Working { length, .. } => &state[..usize::try_from(length).unwrap()],
            };
            replica.with_files(|files| files.write(slot, at - geometry.slot(slot), bytes)).unwrap();
        };
        Checkpoint::new(&header).plan(&changes, Target { slot, base: None, begun: None }, &mut write);
    }

    /// What a slot holds, where that is closed.
    fn image(replica: &Hosted, slot: usize) -> Option<Stamp> {
        SlotView::parse(replica.segment, &replica.geometry, &replica.heads().unwrap()[slot]).image()
    }

    /// A later owner fences while a level runs. What that owner then pushes into the slot that was being filled stays there.
    #[test]
    fn a_later_owner_ends_it() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let replicas = Replicas::open(Options::of_test(directory.path(), Domains::default())).unwrap();
        let geometry = Geometry::new(STATE as u64, u32::try_from(BLOCK).unwrap(), 2).unwrap();
        let (old, new) = (Stamp { term: Term(1), epoch: Epoch(1) }, Stamp { term: Term(2), epoch: Epoch(2) });
        let mut in_the_middle = 0;
        for round in 1..=20 {
            let member = replicas.create(SegmentId(round), geometry, ownership(1)).unwrap();
            let replica = replicas.get(SegmentId(round), member.incarnation).unwrap();
            let by =
                |term| Request { segment: replica.segment, incarnation: member.incarnation, asker: ownership(term) };
            push(&replica, 0, old);
            std::thread::scope(|scope| {
                let level = scope.spawn(|| replicas.level(&by(1)));
                while image(&replica, 1) == Some(Stamp::EMPTY) {
                    std::thread::yield_now();
                }
                replicas.fence(&by(2)).unwrap();
                in_the_middle += usize::from(image(&replica, 1).is_none());
                push(&replica, 1, new);
                let _ = level.join().unwrap();
            });
            assert_eq!((image(&replica, 0), image(&replica, 1)), (Some(old), Some(new)));
            let mut block = vec![0; BLOCK];
            for index in 0..BLOCKS {
                replica.with_files(|files| files.read(1, geometry.block_in_slot(index), &mut block)).unwrap();
                assert!(block.iter().all(|&byte| byte == 2), "block {index} is of the owner before");
            }
            replicas.forget(replica.segment, false).unwrap();
        }
        assert!(in_the_middle > 0, "no fence came in the middle of a level");
    }
}
