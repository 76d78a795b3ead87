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
    use super::*;

    #[test]
    fn runs_are_adjacent_and_bounded() {
        assert_eq!(runs(&[1, 2, 3, 5, 6], 2), [(1, 2), (3, 1), (5, 2)]);
        assert_eq!(runs(&[], 4), []);
    }
}
