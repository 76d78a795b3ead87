//! Levelling a replica's slots: core's [`Level`] over its files.

use segstore_core::layout::Key;
use segstore_core::level::{Level, Step};
use segstore_core::replica::Turn;
use segstore_core::slot::SlotView;
use zerocopy::IntoBytes;

use super::error::ReplicaError;
use super::hosted::{Head, Hosted};

/// Bytes of one piece, at least a block.
const PIECE: u32 = 4 << 20;

pub(super) fn level(replica: &Hosted, heads: &[Head], turn: Turn) -> Result<(), ReplicaError> {
    let (segment, geometry) = (replica.segment, replica.geometry);
    let views: Vec<_> = heads.iter().map(|head| SlotView::parse(segment, &geometry, head)).collect();
    let mut level = Level::new(&views, PIECE / geometry.block_size());
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
