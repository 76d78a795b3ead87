//! A checkpoint of one changed block, to two replicas of real daemons, allocates nothing in the calling process's thread.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

#[path = "cluster/harness.rs"]
#[expect(dead_code, reason = "the cluster's tests use the rest")]
mod harness;
#[path = "common/ports.rs"]
mod ports;

#[path = "../../../transport/tests/counting/mod.rs"]
mod counting;

use counting::allocations;
use harness::Cluster;
use segstore::{CreateOptions, OpenOptions, Segment};

/// Each time another block: none of what is pushed is as it was the time before.
fn checkpoints(segment: &mut Segment, count: usize) {
    for number in 0..count {
        let place = number * 7 % 256 * 4096;
        segment.write(place, &number.to_le_bytes()).unwrap();
        assert_eq!(segment.checkpoint().unwrap().elsewhere, 2);
    }
}

fn nothing_is_allocated(transport: &str) {
    let cluster = Cluster::start(3, &["--transport", transport]);
    let make = CreateOptions::new(1 << 20).replicas(2);
    let mut segment = cluster.session(0).open_or_create("s", &make, &OpenOptions::new()).unwrap();
    segment.set_len(1 << 20).unwrap();
    checkpoints(&mut segment, 1000);
    let before = allocations();
    checkpoints(&mut segment, 5000);
    assert_eq!(allocations() - before, 0, "over {transport}");
}

#[test]
fn nothing_is_allocated_over_shm() {
    nothing_is_allocated("shm");
}

#[test]
fn nothing_is_allocated_over_tcp() {
    nothing_is_allocated("tcp");
}
