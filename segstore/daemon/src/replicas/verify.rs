//! Checking an image where it stands: its block table against its header, its blocks against the table.

use segstore_core::id::Stamp;
use segstore_core::layout::Key;
use segstore_core::slot::{Damage, verify_table};

use super::error::ReplicaError;
use super::hosted::Hosted;

/// Bytes that are looked at together, at least a block.
const PIECE: usize = 1 << 20;

/// What is wrong with `image` in this slot, which is closed on it: nothing, it is to be hoped.
pub(super) fn verify(replica: &Hosted, slot: u32, image: Stamp) -> Result<Option<Damage>, ReplicaError> {
    let (geometry, key) = (replica.geometry, Key::of(replica.segment));
    let views = replica.views(&replica.heads()?);
    let header = views.get(slot as usize).and_then(|view| view.closed()).filter(|header| header.image == image);
    let header = header.ok_or(ReplicaError::SourceChanged(image))?;
    let table = replica.with_files(|files| files.table(slot, header))?;
    if let Err(damage) = verify_table(header, &table) {
        return Ok(Some(damage));
    }
    let block_size = geometry.block_size() as usize;
    let piece = (PIECE / block_size).max(1);
    let (mut blocks, mut bad) = (vec![0; piece * block_size], Vec::new());
    for (first, rows) in (0..).step_by(piece).zip(table.chunks(piece)) {
        let blocks = &mut blocks[..rows.len() * block_size];
        replica.with_files(|files| files.read(slot, geometry.block_in_slot(first), blocks))?;
        let found = (first..).zip(rows.iter().zip(blocks.chunks_exact(block_size)));
        bad.extend(found.filter(|(index, (row, block))| !row.describes(key, *index, block)).map(|(index, _)| index));
    }
    Ok((!bad.is_empty()).then_some(Damage::Blocks(bad)))
}
