//! What a checkpoint costs besides the movement of its bytes.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use segstore_core::changes::Changes;
use segstore_core::id::{Epoch, Incarnation, Member, NodeId, OwnerId, SegmentId, Term};
use segstore_core::layout::{Geometry, Key, SlotHeader};
use segstore_core::owner::{Action, BelowMinimum, Owner, Policy, Start};
use segstore_core::push::{Checkpoint, Source};
use segstore_core::record::{Record, RecordVersion, Versioned};
use segstore_core::slot::{verify_blocks, verify_table};

const SEGMENT: SegmentId = SegmentId(1);
const BLOCK: usize = 4096;
const BLOCK_SIZE: u32 = 4096;

struct Segment {
    owner: Owner,
    changes: Changes,
    block: Vec<u8>,
}

impl Segment {
    fn new(capacity: u64) -> Self {
        let geometry = Geometry::new(capacity, BLOCK_SIZE, 2).expect("a valid shape");
        let member = |n| Member { node: NodeId(n), incarnation: Incarnation(n) };
        let in_sync = vec![member(1), member(2)];
        let record = Record { segment: SEGMENT, term: Term(1), owner: OwnerId(1), in_sync: in_sync.clone() };
        let start = Start::of_new_segment(Versioned { version: RecordVersion(1), record }, 2);
        let mut owner = Owner::new(start, Policy { minimum: 2, below: BelowMinimum::Stop });
        in_sync.into_iter().for_each(|member| owner.connected(member));
        let mut changes = Changes::empty(Key::of(SEGMENT), geometry);
        changes.set_length(geometry.capacity());
        Self { owner, changes, block: vec![7; BLOCK] }
    }

    fn checkpoint(&mut self, block: u32) {
        self.changes.mark(block);
        let epoch = self.owner.begin().expect("no attempt is under way");
        self.changes.seal(epoch, |_| &self.block);
        let checkpoint = Checkpoint::new(&self.owner.header(epoch, &self.changes));
        while let Some(action) = self.owner.poll() {
            if let Action::Push { member, epoch, target } = action {
                checkpoint.plan(&self.changes, target, &mut |at: u64, source: Source<'_>| {
                    black_box((at, source));
                });
                self.owner.completed(member, epoch);
            }
        }
    }
}

fn checkpoint(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checkpoint/one block");
    for (name, capacity) in [("64 KiB", 64 << 10), ("8 GiB", 8 << 30)] {
        let mut segment = Segment::new(capacity);
        (0..8).for_each(|block| segment.checkpoint(block));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| bencher.iter(|| segment.checkpoint(3)));
    }
}

fn checksum(criterion: &mut Criterion) {
    let key = Key::of(SEGMENT);
    let block = vec![7; BLOCK];
    let mut group = criterion.benchmark_group("checksum");
    group.throughput(Throughput::Bytes(BLOCK as u64));
    group.bench_function("4 KiB", |bencher| bencher.iter(|| key.block(black_box(3), black_box(&block))));
}

fn verify(criterion: &mut Criterion) {
    const BLOCKS: usize = (64 << 20) / BLOCK;
    let geometry = Geometry::new(64 << 20, BLOCK_SIZE, 2).expect("a valid shape");
    let image = vec![7; 64 << 20];
    let mut changes = Changes::empty(Key::of(SEGMENT), geometry);
    changes.set_length(geometry.capacity());
    changes.seal(Epoch(1), |block| &image[block as usize * BLOCK..][..BLOCK]);
    let header = SlotHeader {
        length: geometry.capacity(),
        table_sum: changes.table_sum(),
        ..SlotHeader::of_empty_segment(SEGMENT, &geometry)
    };
    let mut group = criterion.benchmark_group("verify");
    group.throughput(Throughput::Bytes((BLOCKS * BLOCK) as u64));
    group.sample_size(20);
    group.bench_function("64 MiB", |bencher| {
        bencher.iter(|| {
            verify_table(&header, changes.entries()).expect("intact");
            let block = |i: u32| &image[i as usize * BLOCK..][..BLOCK];
            verify_blocks(SEGMENT, changes.entries(), block).expect("intact");
        });
    });
}

criterion_group!(benches, checkpoint, checksum, verify);
criterion_main!(benches);
