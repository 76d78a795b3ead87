//! Bytes that version 1 wrote: every later version must read them as they were meant, and version 1 must go on writing them.
//!
//! The files hold what a hex dump prints. Whoever changes the format raises `layout::VERSION` and adds files; these stay.

use segstore_core::id::{Incarnation, NodeId, OwnerId, SegmentId, Stamp, Term};
use segstore_core::layout::table::table_sum;
use segstore_core::layout::{Entry, Geometry, Key, Mark, Ownership, ReplicaHead, SlotHeader};
use segstore_core::lineage::Lineage;

const SEGMENT: SegmentId = SegmentId(0x00112233_44556677_8899aabb_ccddeeff);

/// Sixteen bytes a line, two hexadecimal digits each.
fn dump(bytes: &[u8]) -> String {
    let hex = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    bytes.chunks(16).map(|line| hex(line) + "\n").collect()
}

fn geometry() -> Geometry {
    Geometry::new(3 * 4096, 4096, 2).expect("a valid shape")
}

fn header() -> SlotHeader {
    SlotHeader {
        owner: OwnerId(0xa0a1),
        group: 0xb0,
        image: Stamp::new(7, 0x1234),
        acknowledged: Stamp::new(7, 0x1233),
        lineage: Lineage::from_entries(vec![Stamp::new(1, 9), Stamp::new(3, 0x1000)]).expect("rising"),
        length: 9000,
        table_sum: 0xfeed,
        ..SlotHeader::of_empty_segment(SEGMENT, &geometry())
    }
}

#[test]
fn mark_of_version_1() {
    let mark = Mark { image: Stamp::new(7, 0x1234), former: Some(Stamp::new(7, 0x1232)), is_closed: true };
    assert_eq!(dump(&mark.encode(Key::of(SEGMENT))), include_str!("../golden/mark.v1.hex"));
}

#[test]
fn header_of_version_1() {
    assert_eq!(dump(header().encode(Key::of(SEGMENT)).as_slice()), include_str!("../golden/header.v1.hex"));
}

#[test]
fn replica_head_of_version_1() {
    let head = ReplicaHead {
        segment: SEGMENT,
        incarnation: Incarnation(0xc0),
        node: NodeId(0xd0),
        geometry: geometry(),
        remembered: Ownership { term: Term(7), owner: OwnerId(0xa0a1) },
    };
    assert_eq!(dump(&head.encode()), include_str!("../golden/replica-head.v1.hex"));
}

#[test]
fn table_of_version_1() {
    let key = Key::of(SEGMENT);
    let block: Vec<u8> = (0..4096_u32).map(|i| (i % 251) as u8).collect();
    let entries: Vec<_> =
        (0..3).map(|i| Entry::new(segstore_core::id::Epoch(u64::from(i) + 5), key.block(i, &block))).collect();
    let mut text: String =
        entries.iter().map(|entry| format!("{} {:016x}\n", entry.modified(), entry.checksum())).collect();
    text += &format!("sum {:016x}\n", table_sum(key, &entries));
    assert_eq!(text, include_str!("../golden/table.v1.txt"));
}

#[test]
fn places_of_version_1() {
    let geometry = geometry();
    let places = [geometry.slot(0), geometry.slot(1), geometry.slot_bytes(), geometry.replica_bytes()];
    assert_eq!(places, [4096, 20480, 16384, 36864]);
    assert_eq!([geometry.entry_in_slot(2), geometry.data_in_slot(), geometry.block_in_slot(2)], [1056, 4096, 12288]);
}
