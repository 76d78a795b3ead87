//! Rules that one state machine keeps by itself.

mod forgetting;
mod local;
mod reading;

use segstore_core::changes::Changes;
use segstore_core::id::{Epoch, Incarnation, Member, NodeId, OwnerId, SegmentId, Stamp, Term};
use segstore_core::layout::geometry::SLOT_HEAD;
use segstore_core::layout::{Geometry, Key, Mark, Ownership, SlotHeader, header};
use segstore_core::lineage::Lineage;
use segstore_core::owner::{Action, BelowMinimum, Blocked, Owner, Policy, Start};
use segstore_core::push::{Checkpoint, Source, Target};
use segstore_core::reader::{Reader, Unread};
use segstore_core::record::{Record, RecordVersion, Versioned};
use segstore_core::repair::{Repair, Step};
use segstore_core::replica::{Refused, Replica, Request};
use segstore_core::slot::SlotView;
use segstore_core::takeover::{Action as TakeoverAction, Failure, Takeover, Unusable};

const SEGMENT: SegmentId = SegmentId(77);
const BLOCK: u64 = 1024;

fn geometry() -> Geometry {
    Geometry::new(4 * BLOCK, BLOCK as u32, 2).unwrap()
}

fn prepare() {
    #[cfg(feature = "sabotage")]
    super::leave_out_what_the_environment_says();
}

fn member(n: u128) -> Member {
    Member { node: NodeId(n), incarnation: Incarnation(n) }
}

fn new_owner(replicas: u128) -> Owner {
    let in_sync = (0..replicas).map(member).collect();
    let record = Record { segment: SEGMENT, term: Term(1), owner: OwnerId(1), in_sync };
    let start = Start::of_new_segment(Versioned { version: RecordVersion(1), record }, 2);
    let mut owner = Owner::new(start, Policy { minimum: 1, below: BelowMinimum::Stop });
    (0..replicas).for_each(|n| owner.connected(member(n)));
    owner
}

fn pushes(owner: &mut Owner) -> Vec<(Member, Target)> {
    let mut pushes = Vec::new();
    while let Some(action) = owner.poll() {
        if let Action::Push { member, target, .. } = action {
            pushes.push((member, target));
        }
    }
    pushes
}

fn header(image: Stamp) -> SlotHeader {
    SlotHeader { image, ..SlotHeader::of_empty_segment(SEGMENT, &geometry()) }
}

fn head(mark: Mark, header: &SlotHeader) -> [u8; SLOT_HEAD] {
    let key = Key::of(SEGMENT);
    let mut bytes = [0; SLOT_HEAD];
    bytes[..64].copy_from_slice(&mark.encode(key));
    let encoded = header.encode(key);
    bytes[header::OFFSET..][..encoded.as_slice().len()].copy_from_slice(encoded.as_slice());
    bytes
}

#[test]
fn a_push_writes_mark_entries_blocks_header_mark() {
    prepare();
    let geometry = geometry();
    let mut changes = Changes::empty(Key::of(SEGMENT), geometry);
    changes.set_length(geometry.capacity());
    changes.seal(Epoch(1), |_| &[0; BLOCK as usize]);
    changes.mark(0);
    changes.mark(2);
    changes.seal(Epoch(2), |_| &[1; BLOCK as usize]);
    let image = Stamp::new(1, 2);
    let target = Target { slot: 1, base: Some(Stamp::new(1, 1)), begun: None };
    let mut places = Vec::new();
    Checkpoint::new(&header(image)).plan(&changes, target, &mut |at: u64, source: Source<'_>| {
        let at = at - geometry.slot(1);
        places.push(match source {
            Source::Bytes(bytes) if at == 0 => {
                let mark = Mark::decode(Key::of(SEGMENT), bytes.first_chunk().unwrap()).unwrap();
                if mark.is_closed { "closed".to_string() } else { "open".to_string() }
            }
            Source::Bytes(_) if at == header::OFFSET as u64 => "header".to_string(),
            Source::Bytes(bytes) => format!("{} entry at {}", bytes.len() / 16, (at - SLOT_HEAD as u64) / 16),
            Source::Working { offset, length } => {
                assert_eq!(at, geometry.block_in_slot((offset / BLOCK) as u32));
                format!("{} block at {}", length / BLOCK, offset / BLOCK)
            }
        });
    });
    let order = ["open", "1 entry at 0", "1 entry at 2", "1 block at 0", "1 block at 2", "header", "closed"];
    assert_eq!(places, order);
}

/// The application may change the length as soon as it may change memory; a late push must not hear of it.
#[test]
fn a_header_says_what_was_sealed() {
    prepare();
    let mut owner = new_owner(1);
    let mut changes = Changes::empty(Key::of(SEGMENT), geometry());
    changes.set_length(3 * BLOCK);
    let epoch = owner.begin().unwrap();
    changes.seal(epoch, |_| &[1; BLOCK as usize]);
    let sealed = owner.header(epoch, &changes);
    assert_eq!(sealed.length, 3 * BLOCK);
    changes.set_length(BLOCK);
    assert_eq!(owner.header(epoch, &changes), sealed);
}

#[test]
fn a_slot_off_the_lineage_has_no_base() {
    prepare();
    let lineage = Lineage::root().extended_by(Stamp::new(1, 2));
    let closed = |image| SlotView::Closed(header(image));
    assert_eq!(closed(Stamp::new(1, 2)).base(&lineage), Some(Stamp::new(1, 2)));
    assert_eq!(closed(Stamp::new(1, 3)).base(&lineage), None, "epoch 3 was never taken over");
}

#[test]
fn a_slot_is_closed_only_by_its_mark_and_the_header_that_it_names() {
    let (before, after) = (Stamp::new(1, 4), Stamp::new(1, 6));
    let parse = |mark, header: &SlotHeader| SlotView::parse(SEGMENT, &geometry(), &head(mark, header));
    prepare();
    let open = Mark { image: after, former: Some(before), is_closed: false };
    for header in [header(before), header(after)] {
        let view = parse(open, &header);
        assert_eq!(view, SlotView::Open(open), "the push never ended");
        assert!(view.never_held(after) && !view.never_held(before));
    }
    let closed = Mark { is_closed: true, ..open };
    assert_eq!(parse(closed, &header(after)).image(), Some(after));
    let damaged = parse(closed, &header(before));
    assert_eq!(damaged.image(), None);
    assert!(damaged.may_hide_above(before) && !damaged.never_held(after));
    let other = SlotView::parse(SegmentId(78), &geometry(), &head(closed, &header(after)));
    assert_eq!(other, SlotView::Damaged { mark: None, header: None }, "another segment's slot");
    assert_eq!(SlotView::parse(SEGMENT, &geometry(), &[0; SLOT_HEAD]), SlotView::Blank);
}

#[test]
fn a_slot_that_is_read_is_not_written() {
    prepare();
    let mut owner = new_owner(1);
    owner.begin().unwrap();
    pushes(&mut owner);
    owner.completed(member(0), Epoch(1));
    let hold = owner.hold(member(0)).unwrap();
    assert_eq!(hold.image, Stamp::new(1, 1));
    // The next checkpoint goes beside it; the one after that has nowhere to go.
    owner.begin().unwrap();
    let (_, target) = pushes(&mut owner)[0];
    assert_ne!(target.slot, hold.slot);
    owner.completed(member(0), Epoch(2));
    owner.begin().unwrap();
    assert_eq!(pushes(&mut owner), []);
    assert_eq!(owner.blocked(), Some(Blocked::Held(vec![member(0)])));
    owner.release(hold.number + 7); // There is no such hold.
    assert_eq!(pushes(&mut owner), []);
    owner.release(hold.number);
    assert_eq!(pushes(&mut owner)[0].1.slot, hold.slot);
}

#[test]
fn a_repair_reads_an_entry_before_its_block() {
    prepare();
    let mut repair = Repair::new(geometry(), Stamp::new(1, 1), 2);
    let image = SlotHeader { length: 3 * BLOCK, ..header(Stamp::new(1, 1)) };
    let mut steps = Vec::new();
    while repair.step() != Step::Finished {
        steps.push(repair.step());
        match repair.step() {
            Step::ReadHead => repair.source_head(SlotView::Closed(image.clone())),
            _ => repair.advance(),
        }
    }
    let expected = [
        Step::ReadHead,
        Step::ReadEntries { first: 0, count: 2 },
        Step::ReadBlocks { first: 0, count: 2 },
        Step::Store { first: 0, count: 2, slots: 2 },
        Step::ReadEntries { first: 2, count: 1 },
        Step::ReadBlocks { first: 2, count: 1 },
        Step::Store { first: 2, count: 1, slots: 2 },
        Step::ReadHead,
        Step::Close(Box::new(image)),
    ];
    assert_eq!(steps, expected);
}

/// A copy of a slot that moved is no image: it must not be closed as one.
#[test]
fn a_fuzzy_copy_is_not_closed() {
    prepare();
    let image = SlotHeader { length: BLOCK, ..header(Stamp::new(1, 1)) };
    let again = SlotHeader { table_sum: 9, ..image.clone() };
    let open = SlotView::Open(Mark { image: Stamp::new(1, 3), former: Some(image.image), is_closed: false });
    for after in [SlotView::Closed(again), open] {
        let mut repair = Repair::new(geometry(), Stamp::new(1, 1), 1);
        let mut heads = [SlotView::Closed(image.clone()), after].into_iter();
        while repair.step() != Step::Finished {
            assert!(!matches!(repair.step(), Step::Close(_)));
            match repair.step() {
                Step::ReadHead => repair.source_head(heads.next().unwrap()),
                _ => repair.advance(),
            }
        }
        assert_eq!((heads.next(), repair.base()), (None, Stamp::new(1, 1)));
    }
}

/// An older version must not take what a newer one wrote for torn, and give older data in its place.
#[test]
fn another_version_is_named() {
    prepare();
    let key = Key::of(SEGMENT);
    let image = Stamp::new(1, 4);
    let mark = Mark { image, former: None, is_closed: true };
    let mut newer = head(mark, &header(image));
    newer[4] = 2; // the mark's version
    let checksum = key.structure(&newer[..56]);
    newer[56..64].copy_from_slice(&checksum.to_le_bytes());
    newer[header::OFFSET + 8] = 2; // the header's
    let parse = |bytes: &[u8; SLOT_HEAD]| SlotView::parse(SEGMENT, &geometry(), bytes);
    let view = parse(&newer);
    assert_eq!(view, SlotView::OtherVersion(2));
    assert!(view.may_hide_above(image) && !view.never_held(Stamp::new(9, 9)));
    assert_eq!((view.candidate(), view.base(&Lineage::root())), (None, None));
    newer[20] ^= 1; // Its mark is torn; the header says enough.
    assert_eq!(parse(&newer), SlotView::OtherVersion(2));
    let mut flipped = head(mark, &header(image));
    flipped[4] = 2;
    assert_eq!(parse(&flipped), SlotView::Damaged { mark: None, header: Some(header(image)) }, "this is damage");

    // Of two slots one is of this version, and older.
    let mut takeover = Takeover::new(OwnerId(2));
    takeover.record_read(reading(&[0]));
    takeover.swapped(RecordVersion(2));
    takeover.fenced(member(0), vec![SlotView::Closed(header(Stamp::new(1, 3))), view.clone()]);
    let other = vec![(member(0), Unusable::OtherVersion { slot: 1, version: 2 })];
    let failure = Failure::Hidden { readable: Stamp::new(1, 3), replicas: other.clone() };
    assert_eq!(std::iter::from_fn(|| takeover.poll()).last(), Some(TakeoverAction::Failed(failure.clone())));
    assert!(failure.to_string().contains("slot 1 has format version 2"), "{failure}");
    let older = SlotView::Closed(header(Stamp::new(1, 3)));
    let unread = Reader::of_heads(reading(&[0]), vec![(member(0), Ok(vec![older, view]))]);
    assert_eq!(unread, Err(Unread::Unreadable(other)));
}

#[test]
fn a_replica_serves_only_the_life_it_belongs_to() {
    prepare();
    let asker = Ownership { term: Term(6), owner: OwnerId(60) };
    let remembered = Ownership { term: Term(5), owner: OwnerId(50) };
    let mut replica = Replica::new(SEGMENT, Incarnation(2), remembered);
    let meant = Request { segment: SEGMENT, incarnation: Incarnation(2), asker };
    let other_segment = replica.decide(&Request { segment: SegmentId(9), ..meant });
    assert!(matches!(other_segment, Err(Refused::OtherSegment { .. })), "{other_segment:?}");
    let other_memory = replica.decide(&Request { incarnation: Incarnation(9), ..meant });
    assert!(matches!(other_memory, Err(Refused::OtherIncarnation { .. })), "{other_memory:?}");
    assert!(replica.decide(&meant).is_ok());
}

fn reading(in_sync: &[u128]) -> Versioned {
    let in_sync = in_sync.iter().copied().map(member).collect();
    Versioned {
        version: RecordVersion(1),
        record: Record { segment: SEGMENT, term: Term(1), owner: OwnerId(1), in_sync },
    }
}
