//! Nodes that lose their power, and owners that wake too late.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::cluster::{Cluster, Set};

/// Enough that a checkpoint takes a while.
const BLOCKS: usize = 512;

/// How often a node's power is cut: `SEGSTORE_KILLS`, or so often.
fn kills() -> usize {
    std::env::var("SEGSTORE_KILLS").map_or(10, |number| number.parse().unwrap())
}

#[test]
fn a_node_that_dies_in_the_middle_of_a_push_leaves_a_whole_state() {
    let mut cluster = Cluster::start(&Set::default());
    let (mut owner, mut other) = (2, 3);
    cluster.owner(owner, BLOCKS);
    cluster.held(owner);
    for kill in 1..=kills() {
        cluster.owner(other, BLOCKS);
        cluster.acked(owner, 2..);
        assert!(cluster.is_over_verbs(owner));
        std::thread::sleep(moment());
        cluster.lab.order(&format!("kill {owner}"));
        print!("kill {kill}: ");
        cluster.taken_over(other, owner);
        cluster.lab.order(&format!("boot {owner}"));
        cluster.serves(owner);
        (owner, other) = (other, owner);
    }
}

#[test]
fn an_owner_that_wakes_after_the_takeover_changes_nothing() {
    let mut cluster = Cluster::start(&Set::default());
    cluster.owner(2, BLOCKS);
    cluster.held(2);
    cluster.owner(3, BLOCKS);
    cluster.acked(2, 2..);
    assert!(cluster.is_over_verbs(2));
    // As a whole node that stands still: its device would go on serving and writing.
    cluster.lab.tell(2, "kill -STOP $daemon $owner");
    let found = cluster.taken_over(3, 2);
    cluster.lab.tell(2, "kill -CONT $daemon $owner");
    let why = cluster.lab.expect(2, "ended");
    let woken = cluster.last_acked(2);
    assert!(woken <= found, "state {woken} was acknowledged after the takeover from {found}");
    assert!(why.starts_with("fenced: "), "{why}");
    // Whoever comes next finds what the second owner has done.
    let done = cluster.acked(3, 1..);
    cluster.lab.tell(3, "kill -KILL $owner");
    cluster.owner(3, BLOCKS);
    assert!(cluster.held(3).1 >= done);
}

/// Anywhere within a second.
fn moment() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Duration::from_millis(u64::from(now.subsec_nanos()) % 1000)
}
