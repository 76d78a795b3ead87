//! Bringing a replica's stale slots to its newest image in this node's own memory, once nobody writes it.
//!
//! Slots alternate, so the slot that a checkpoint did not go into lags behind, after the first one by everything. Left so, whoever
//! owns the segment next sends all of it again. Here it costs no network.

use std::sync::atomic::AtomicBool;

use segstore_core::changes;
use segstore_core::layout::{Entry, Key, Mark};
use segstore_core::slot::{SlotView, verify_table};
use zerocopy::IntoBytes;

use super::error::ReplicaError;
use super::hosted::{Head, Hosted};
use super::repair::check;

/// Bytes of one piece, at least a block.
const PIECE: usize = 4 << 20;

pub(super) fn level(replica: &Hosted, heads: &[Head], end: &AtomicBool) -> Result<(), ReplicaError> {
    let geometry = replica.geometry;
    let views: Vec<_> = heads.iter().map(|head| SlotView::parse(replica.segment, &geometry, head)).collect();
    let closed = (0..).zip(&views).filter_map(|(slot, view)| Some((slot, view.closed()?)));
    let Some((newest, header)) = closed.max_by_key(|(_, header)| header.image) else { return Ok(()) };
    let table = replica.with_files(|files| files.table(newest, header))?;
    if verify_table(header, &table).is_err() {
        return Ok(()); // Damage is not multiplied.
    }
    let lineage = header.lineage.extended_by(header.image);
    for (slot, view) in (0..).zip(&views).filter(|(slot, view)| *slot != newest && view.image() != Some(header.image)) {
        let base = view.base(&lineage);
        let lacks = |entry: &Entry| base.is_none_or(|base| entry.modified() > base.epoch);
        let lacking: Vec<_> = (0..).zip(&table).filter(|(_, entry)| lacks(entry)).map(|(block, _)| block).collect();
        let mark = Mark { image: header.image, former: base, is_closed: false };
        replica.with_files(|files| {
            check(end)?;
            files.write(slot, 0, &mark.encode(Key::of(header.segment)))
        })?;
        for run in runs(&lacking, PIECE / geometry.block_size() as usize) {
            copy(replica, end, newest, slot, run, &table)?;
        }
        replica.with_files(|files| {
            check(end)?;
            files.close_slot(slot, header)
        })?;
    }
    Ok(())
}

/// Entries first, as in a push.
fn copy(
    replica: &Hosted,
    end: &AtomicBool,
    from: u32,
    to: u32,
    (first, count): (u32, u32),
    table: &[Entry],
) -> Result<(), ReplicaError> {
    let geometry = replica.geometry;
    let mut blocks = vec![0; count as usize * geometry.block_size() as usize];
    replica.with_files(|files| {
        check(end)?;
        let rows = &table[first as usize..(first + count) as usize];
        files.write(to, geometry.entry_in_slot(first), rows.as_bytes())?;
        files.read(from, geometry.block_in_slot(first), &mut blocks)?;
        files.write(to, geometry.block_in_slot(first), &blocks)
    })
}

/// Adjacent blocks as (first, count), none longer than `most`.
fn runs(blocks: &[u32], most: usize) -> Vec<(u32, u32)> {
    let most = u32::try_from(most.max(1)).unwrap_or(u32::MAX);
    let mut pieces = Vec::new();
    changes::runs(blocks.iter().copied(), |first, count| {
        pieces.extend((0..count).step_by(most as usize).map(|done| (first + done, most.min(count - done))));
    });
    pieces
}

#[cfg(test)]
mod tests {
    use segstore_core::changes::Changes;
    use segstore_core::id::{Epoch, NodeId, OwnerId, SegmentId, Stamp, Term};
    use segstore_core::layout::{Geometry, Ownership, SlotHeader};
    use segstore_core::push::{Checkpoint, Source, Target};
    use segstore_core::replica::Request;

    use super::*;
    use crate::replicas::{Domains, Options, Replicas};

    const BLOCK: usize = 1 << 20;
    const BLOCKS: u32 = 16;
    const STATE: usize = BLOCK * BLOCKS as usize;

    #[test]
    fn runs_are_adjacent_and_bounded() {
        assert_eq!(runs(&[1, 2, 3, 5, 6], 2), [(1, 2), (3, 1), (5, 2)]);
        assert_eq!(runs(&[], 4), []);
    }

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
        Checkpoint::new(&header).plan(&changes, Target { slot, base: None }, &mut write);
    }

    /// What a slot holds, where that is closed.
    fn image(replica: &Hosted, slot: usize) -> Option<Stamp> {
        SlotView::parse(replica.segment, &replica.geometry, &replica.heads().unwrap()[slot]).image()
    }

    /// A later owner fences while a level runs. What that owner then pushes into the slot that was being filled stays there.
    #[test]
    fn a_later_owner_ends_it() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let (directory, domains) = (directory.path().to_owned(), Domains::default());
        let replicas = Replicas::open(Options { directory, node: NodeId(1), budget: 1 << 30, domains }).unwrap();
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
            replicas.forget(replica.segment).unwrap();
        }
        assert!(in_the_middle > 0, "no fence came in the middle of a level");
    }
}
