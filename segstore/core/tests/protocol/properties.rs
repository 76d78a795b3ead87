//! What holds for all inputs, tried on random ones.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use segstore_core::changes::Changes;
use segstore_core::id::{Epoch, Incarnation, NodeId, OwnerId, SegmentId, Stamp, Term};
use segstore_core::layout::geometry::SLOT_HEAD;
use segstore_core::layout::{Geometry, Key, Mark, Ownership, ReplicaHead, SlotHeader, header, replica_head};
use segstore_core::lineage::{CAPACITY, Lineage};
use segstore_core::owner::{BelowMinimum, Policy};
use segstore_core::push::{Begun, Target};
use segstore_core::slot::SlotView;

use super::world::{Config, Faults, Stage, Step, World};

const SEGMENT: SegmentId = SegmentId(7);
const ANY: Faults = Faults {
    kills: 4,
    cuts: 6,
    losses: 8,
    partitions: 4,
    lost_replies: 4,
    late_answers: 6,
    watches: 6,
    restarts: 4,
    memory_losses: 1,
    give_ups: 6,
    repairs: 6,
    lost_repairs: 4,
    further_copies: 4,
    releases: 2,
    orphans: 4,
    reads: 6,
    dismissals: 6,
    resizes: 6,
};

fn is_progress(step: Step) -> bool {
    matches!(step, Step::ReaderGoesOn(_)) || (0..9).any(|p| step.is_progress_of(p))
}

/// One of `enabled`. Messages are delivered far more often than anything begins or fails, or a walk would end before it
/// has become interesting.
fn choose(enabled: Vec<Step>, (kind, pick): (u8, u16)) -> Option<Step> {
    let progress: Vec<_> = enabled.iter().copied().filter(|step| is_progress(*step)).collect();
    let from = if kind > 32 && !progress.is_empty() { progress } else { enabled };
    from.get(pick as usize % from.len().max(1)).copied()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 15_000, ..ProptestConfig::default() })]

    /// A long random walk through a world that is too large to exhaust.
    #[test]
    fn no_promise_is_broken(
        picks in vec(any::<(u8, u16)>(), 600),
        in_sync in 1..=3_usize,
        spare in 0..=2_usize,
        slots in 2..=3_u32,
        minimum in 1..=2_usize,
        (stop, local, collocated, piecewise) in any::<(bool, bool, bool, bool)>(),
    ) {
        let below = if stop { BelowMinimum::Stop } else { BelowMinimum::Continue };
        let policy = Policy { minimum: minimum.min(in_sync - usize::from(collocated)), below };
        // With one replica, losing its memory loses the state: that is no broken promise, so it is not asked for.
        let memory_losses = u8::from(in_sync > 1);
        let faults = Faults { memory_losses, ..ANY };
        let commits = [9, 9, 9];
        let mut world = World::new(&Config { in_sync, spare, slots, local, collocated, piecewise, processes: 5, caretaker: false, commits, faults, policy });
        let mut taken = Vec::new();
        for pick in picks {
            let Some(step) = choose(world.enabled(), pick) else { break };
            taken.push(step);
            world.step(step);
            prop_assert_eq!(world.violation(), None, "after {:?}", taken);
            prop_assert_eq!(world.lie(), None, "after {:?}", taken);
            prop_assert_eq!(world.hang(), None, "after {:?}", taken);
        }
    }
}

/// A walk in which nothing fails any more ends with somebody who owns the segment: nothing is left for a human to clean up.
#[derive(Clone, Debug)]
struct Walk(Vec<(u8, u16)>);

proptest! {
    #[test]
    fn whatever_happened_a_new_owner_can_come(picks in vec(any::<(u8, u16)>(), 0..200).prop_map(Walk)) {
        let faults = Faults { memory_losses: 0, ..ANY };
        let mut world = World::new(&Config { in_sync: 2, spare: 1, processes: 4, commits: [9, 9, 9], faults, ..Config::small() });
        for pick in picks.0 {
            // The last process is kept for the end.
            let enabled = world.enabled().into_iter().filter(|step| !step.is_of(3)).collect();
            let Some(step) = choose(enabled, pick) else { break };
            world.step(step);
        }
        world.take_over(3, &[0, 1, 2]);
        prop_assert!(matches!(world.process(3), Stage::Owning(_)), "{:?}", world.process(3));
        world.settle(3);
        world.checkpoint(3, 0);
        prop_assert_eq!(world.acknowledged().map(|stamp| stamp.term), world.newest_term());
        prop_assert_eq!(world.violation(), None);
    }

    /// The lists say the same as a plain map from block to the epoch that changed it last.
    #[test]
    fn the_delta_rule(
        epochs in vec((vec(0..40_u32, 0..12), 0..3_u64, prop::option::of(0..40_u64)), 1..40),
        lag in 0..30_u64,
        begun in 0..50_u32,
    ) {
        let geometry = Geometry::new(40 * 1024, 1024, 2).expect("a valid shape");
        let mut changes = Changes::empty(Key::of(SEGMENT), geometry);
        let mut modified = BTreeMap::new();
        let (mut epoch, mut length) = (0, 0);
        for (marks, skipped, resize) in epochs {
            epoch += 1 + skipped;
            if let Some(blocks) = resize {
                changes.set_length(blocks * 1024);
                (length..blocks).for_each(|block| { modified.insert(block as u32, epoch); });
                length = blocks;
            }
            for block in marks.into_iter().filter(|&block| u64::from(block) < length) {
                changes.mark(block);
                modified.insert(block, epoch);
            }
            changes.seal(Epoch(epoch), |_| &[0; 1024]);
        }
        let base = epoch.saturating_sub(lag);
        let mut needed = Vec::new();
        changes.runs_since(Some(Epoch(base)), |first, count| needed.extend(first..first + count));
        prop_assert!(needed.is_sorted_by(|one, other| one < other), "not by rising number, each once: {needed:?}");
        let within = modified.iter().filter(|&(&block, &at)| u64::from(block) < length && at > base);
        prop_assert_eq!(needed, within.map(|(&block, _)| block).collect::<Vec<_>>());
        // One that was begun later.
        let former = base + (epoch - base) / 2;
        let begun = Some(Begun { epoch: Epoch(former), blocks: begun });
        let mut needed = Vec::new();
        let target = Target { slot: 0, base: Some(Stamp::new(1, base)), begun };
        changes.runs_for(target, |first, count| needed.extend(first..first + count));
        let since = |block: u32| if block < begun.map_or(0, |begun| begun.blocks) { former } else { base };
        let within = modified.iter().filter(|&(&block, &at)| u64::from(block) < length && at > since(block));
        prop_assert_eq!(needed, within.map(|(&block, _)| block).collect::<Vec<_>>());
    }

    /// Whatever stands in a slot's head, parsing it is safe, and a closed slot is one that was written as a whole.
    #[test]
    fn slot_heads_survive_anything(
        image in (1..9_u64, 1..9_u64),
        ancestors in 0..=CAPACITY as u64,
        length in 0..=4096_u64,
        damage in vec((0..SLOT_HEAD, any::<u8>()), 0..4),
    ) {
        let geometry = Geometry::new(4096, 1024, 2).expect("a valid shape");
        let key = Key::of(SEGMENT);
        let image = Stamp::new(image.0 + 100, image.1 + 100);
        let lineage = Lineage::from_entries((0..ancestors).map(|n| Stamp::new(n, n)).collect()).expect("rising");
        let empty = SlotHeader::of_empty_segment(SEGMENT, &geometry);
        let header = SlotHeader { image, lineage, length, owner: OwnerId(5), table_sum: 6, ..empty };
        let mut head = [0; SLOT_HEAD];
        head[..64].copy_from_slice(&Mark { image, former: None, is_closed: true }.encode(key));
        let encoded = header.encode(key);
        let used = header::OFFSET + encoded.as_slice().len();
        head[header::OFFSET..used].copy_from_slice(encoded.as_slice());
        let whole = head;
        prop_assert_eq!(SlotView::parse(SEGMENT, &geometry, &head), SlotView::Closed(header));
        for (at, byte) in damage {
            head[at] = byte;
        }
        let still_whole = head[..used] == whole[..used];
        prop_assert_eq!(SlotView::parse(SEGMENT, &geometry, &head).closed().is_some(), still_whole);
    }

    #[test]
    fn arbitrary_bytes_are_no_slot_and_no_replica(bytes in vec(any::<u8>(), 0..2048)) {
        let geometry = Geometry::new(4096, 1024, 2).expect("a valid shape");
        if let Some(head) = bytes.first_chunk() {
            let view = SlotView::parse(SEGMENT, &geometry, head);
            prop_assert_eq!(view, SlotView::Damaged { mark: None, header: None });
        }
        prop_assert!(ReplicaHead::decode(&bytes).is_err());
    }

    /// A daemon that is killed in the middle of storing a term leaves the term before or the new one.
    #[test]
    fn a_term_is_stored_whole_or_not(terms in vec(1..100_u64, 1..8), torn_at in 0..=64_usize) {
        let geometry = Geometry::new(4096, 1024, 2).expect("a valid shape");
        let ownership = |term| Ownership { term: Term(term), owner: OwnerId(u128::from(term)) };
        let mut remembered = ownership(0);
        let head = ReplicaHead {
            segment: SEGMENT, incarnation: Incarnation(1), node: NodeId(2), geometry, remembered,
        };
        let mut bytes = head.encode();
        let mut rising: Vec<_> = terms;
        rising.sort_unstable();
        rising.dedup();
        for term in rising {
            for (at, line) in ReplicaHead::store(SEGMENT, &bytes, ownership(term)) {
                let mut torn = bytes;
                torn[at..at + torn_at].copy_from_slice(&line[..torn_at]);
                let found = ReplicaHead::decode(&torn).expect("one line is always whole").remembered;
                prop_assert!(found == remembered || found == ownership(term), "{found:?}");
                bytes[at..at + 64].copy_from_slice(&line);
                remembered = ownership(term);
            }
            for damaged_at in [128 + torn_at.min(63), 192 + torn_at.min(63)] {
                let mut damaged = bytes;
                damaged[damaged_at] ^= 1;
                prop_assert_eq!(ReplicaHead::decode(&damaged), Ok(ReplicaHead { remembered, ..head }));
            }
        }
        prop_assert_eq!(bytes.len(), replica_head::BYTES);
    }
}
