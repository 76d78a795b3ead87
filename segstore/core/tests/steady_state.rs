//! A checkpoint of one changed block allocates nothing, and costs the same in a small and in a large segment.

#[path = "../../../transport/tests/counting/mod.rs"]
mod counting;

use counting::allocations;
use segstore_core::changes::Changes;
use segstore_core::id::{Incarnation, Member, NodeId, OwnerId, SegmentId, Stamp, Term};
use segstore_core::layout::{Geometry, Key};
use segstore_core::lineage::Lineage;
use segstore_core::owner::{Action, BelowMinimum, Owner, Policy, Start};
use segstore_core::push::{Checkpoint, Source};
use segstore_core::record::{Record, RecordVersion, Versioned};

const SEGMENT: SegmentId = SegmentId(1);
const BLOCK: [u8; 4096] = [7; 4096];

struct Segment {
    owner: Owner,
    changes: Changes,
}

impl Segment {
    fn new(capacity: u64) -> Self {
        let geometry = Geometry::new(capacity, 4096, 2).expect("a valid shape");
        let member = |n| Member { node: NodeId(n), incarnation: Incarnation(n) };
        let in_sync = vec![member(1), member(2)];
        let record = Record { segment: SEGMENT, term: Term(9), owner: OwnerId(1), in_sync: in_sync.clone() };
        // A segment that was taken over before: its headers carry ancestors.
        let start = Start {
            loaded: Stamp::new(7, 100),
            ancestry: Lineage::root().extended_by(Stamp::new(3, 50)),
            ..Start::of_new_segment(Versioned { version: RecordVersion(1), record }, 2)
        };
        let mut owner = Owner::new(start, Policy { minimum: 2, below: BelowMinimum::Stop });
        in_sync.into_iter().for_each(|member| owner.connected(member));
        let mut changes = Changes::empty(Key::of(SEGMENT), geometry);
        changes.set_length(geometry.capacity());
        Self { owner, changes }
    }

    /// One checkpoint of one block to two replicas; returns how many writes and bytes it took.
    fn checkpoint(&mut self, block: u32) -> (usize, usize) {
        self.changes.mark(block);
        let epoch = self.owner.begin().expect("no attempt is under way");
        self.changes.seal(epoch, |_| &BLOCK);
        let checkpoint = Checkpoint::new(&self.owner.header(epoch, &self.changes));
        let (mut writes, mut bytes) = (0, 0);
        let mut acknowledged = false;
        while let Some(action) = self.owner.poll() {
            match action {
                Action::Push { member, epoch, target } => {
                    checkpoint.plan(&self.changes, target, &mut |_: u64, source: Source<'_>| {
                        writes += 1;
                        bytes += match source {
                            Source::Bytes(bytes) => bytes.len(),
                            Source::Working { length, .. } => usize::try_from(length).expect("fits"),
                        };
                    });
                    self.owner.completed(member, epoch);
                }
                Action::Committed { .. } => acknowledged = true,
                other => panic!("nothing fails here: {other:?}"),
            }
        }
        assert!(acknowledged);
        (writes, bytes)
    }
}

#[test]
fn a_checkpoint_of_one_block() {
    let mut small = Segment::new(64 << 10);
    let mut large = Segment::new(8 << 30);
    for round in 0..32 {
        small.checkpoint(round % 3);
        large.checkpoint(round % 3);
    }
    let before = allocations();
    let (mut of_small, mut of_large) = ((0, 0), (0, 0));
    for round in 0..1000 {
        of_small = small.checkpoint(round % 3);
        of_large = large.checkpoint(round % 3);
    }
    let allocated = allocations() - before;
    assert_eq!(of_small, of_large, "what is sent depends on what changed, not on the segment");
    assert_eq!(allocated, 0, "in 2000 checkpoints");
}
