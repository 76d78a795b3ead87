//! Cables that are pulled out, and ones that lose packets.

use std::time::{Duration, Instant};

use super::cluster::{Cluster, NODE_LEASE, Set};

/// How long a replica that is not reached may hold up the owner: what its options say by themselves, and the patience of a device.
const ANSWERED: Duration = Duration::from_secs(5);

/// Few, so that a checkpoint does not take long.
const BLOCKS: usize = 32;

/// An owner on node 2, replicas on 1 and 3.
fn writing() -> Cluster {
    writing_with(&Set::default())
}

fn writing_with(set: &Set<'_>) -> Cluster {
    let mut cluster = Cluster::start(set);
    cluster.owner(2, BLOCKS);
    cluster.held(2);
    cluster.acked(2, 2..);
    assert!(cluster.is_over_verbs(2), "{:?}", cluster.links(2));
    cluster
}

#[test]
fn a_cut_of_200_ms_is_ridden_through() {
    let mut cluster = writing();
    for node in [2, 3, 2, 3] {
        cluster.lab.order(&format!("cut {node}"));
        std::thread::sleep(Duration::from_millis(200));
        cluster.lab.order(&format!("join {node}"));
        let before = cluster.last_acked(2);
        assert!(cluster.acked(2, 2..) > before);
        std::thread::sleep(Duration::from_millis(500));
    }
    let events = cluster.events(2);
    assert!(!events.iter().any(|what| what == "removed"), "{events:?}");
}

#[test]
fn a_cut_of_5_s_takes_a_replica_out_and_it_comes_back() {
    let mut cluster = writing();
    cluster.lab.order("cut 3");
    let cut = Instant::now();
    cluster.acked(2, 1..=1);
    println!("alone {:?} after the cut", cut.elapsed());
    assert!(cut.elapsed() < ANSWERED);
    std::thread::sleep(Duration::from_secs(5).saturating_sub(cut.elapsed()));
    cluster.lab.order("join 3");
    cluster.acked(2, 2..);
    assert!(cluster.is_over_verbs(2));
}

/// Everybody else reaches both, so neither counts as dead.
#[test]
fn an_owner_that_does_not_reach_one_replica_goes_on_without_it() {
    let mut cluster = writing();
    cluster.owner(3, BLOCKS);
    cluster.lab.order("part 2 3");
    let parted = Instant::now();
    cluster.acked(2, 1..=1);
    println!("alone {:?} after they were parted", parted.elapsed());
    assert!(parted.elapsed() < ANSWERED);
    // Longer than any lease.
    std::thread::sleep(3 * NODE_LEASE);
    let before = cluster.last_acked(2);
    assert!(cluster.acked(2, 1..) > before);
    // Whoever stands by on the node that was left out loads what the other replica has.
    cluster.lab.tell(2, "kill -KILL $owner");
    cluster.taken_over(3, 2);
    cluster.lab.order("meet 2 3");
    cluster.acked(3, 2..);
}

/// Its node keeps one of the replicas, which nobody can leave out without the directory.
#[test]
fn a_directory_that_is_cut_off_is_waited_for() {
    let mut cluster = writing();
    let term = cluster.json(2, "status s");
    let term = term.split("\"term\":").nth(1).and_then(|rest| rest.split(',').next()).unwrap().to_owned();
    cluster.lab.order("cut 1");
    // Longer than any lease.
    std::thread::sleep(3 * NODE_LEASE);
    cluster.lab.order("join 1");
    let before = cluster.last_acked(2);
    assert!(cluster.acked(2, 2..) > before);
    let status = cluster.json(2, "status s");
    assert!(status.contains(&format!("\"term\":{term},")), "term {term} goes on: {status}");
}

/// The owner dies meanwhile, and whoever stands by has the segment when the cable is back.
#[test]
fn a_takeover_waits_while_the_directory_is_cut_off() {
    let mut cluster = writing();
    cluster.owner(3, BLOCKS);
    cluster.lab.order("cut 1");
    cluster.lab.tell(2, "kill -KILL $owner");
    std::thread::sleep(3 * NODE_LEASE);
    assert_eq!(cluster.lab.last(3, "holds"), None, "nobody can have said that it may");
    let told = cluster.ask(3, "grep 'goes on waiting' /tmp/log");
    assert!(told.contains("the directory"), "it says for what: {told}");
    cluster.lab.order("join 1");
    cluster.taken_over(3, 2);
    cluster.acked(3, 2..);
}

#[test]
fn an_owner_that_is_cut_off_is_replaced_and_kept_out() {
    let mut cluster = writing();
    cluster.owner(3, BLOCKS);
    cluster.lab.order("cut 2");
    let found = cluster.taken_over(3, 2);
    cluster.lab.expect(2, "pending");
    cluster.lab.order("join 2");
    let why = cluster.lab.expect(2, "ended");
    assert!(why.starts_with("fenced: "), "{why}");
    let kept = cluster.last_acked(2);
    assert!(kept <= found, "state {kept} was acknowledged after the takeover from {found}");
    cluster.acked(3, 2..);
}

#[test]
fn a_loss_of_2_percent_is_lived_with() {
    let mut cluster = writing();
    for node in 1..=3 {
        cluster.lab.order(&format!("loss {node} 2"));
    }
    let before = cluster.last_acked(2);
    std::thread::sleep(Duration::from_secs(10));
    let after = cluster.last_acked(2);
    println!("{} checkpoints in ten seconds", after - before);
    assert!(after > before + 10);
    for node in 1..=3 {
        cluster.lab.order(&format!("loss {node} 0"));
    }
    let events = cluster.events(2);
    assert!(!events.iter().any(|what| what == "removed"), "{events:?}");
}

/// As where a switch passes no packet of the length that both ends believe in.
#[test]
fn a_fabric_that_passes_small_packets_alone_is_left_for_tcp() {
    is_left_for_tcp(writing(), "small");
}

/// What connecting cannot show.
#[test]
fn a_fabric_that_passes_short_messages_alone_is_left_for_tcp() {
    is_left_for_tcp(writing(), "short");
}

/// The device takes longer than the owner's patience to say that nothing gets through.
#[test]
fn patience_with_a_device_costs_no_replica() {
    is_left_for_tcp(writing_with(&Set { daemons: "--rdma-patience 2s", ..Set::default() }), "short");
}

/// Checkpoints, a takeover and a repair go over TCP; when the fabric is well again, checkpoints go back.
fn is_left_for_tcp(mut cluster: Cluster, passes: &str) {
    for node in 1..=3 {
        cluster.lab.order(&format!("roce {node} {passes}"));
    }
    cluster.links_after(2, |links| links == ["tcp", "tcp"]);
    let status = cluster.json(2, "status s");
    assert!(status.contains("isreachedovertcp:verbs:"), "{status}");
    let before = cluster.last_acked(2);
    assert!(cluster.acked(2, 2..) > before);
    let events = cluster.events(2);
    assert!(!events.iter().any(|what| what == "removed"), "{events:?}");

    cluster.owner(1, BLOCKS);
    cluster.lab.tell(2, "kill -KILL $owner");
    cluster.taken_over(1, 2);
    cluster.acked(1, 2..);
    // Whichever replica was behind, or else the new owner's own: node 2 alone held none.
    cluster.happens(1, "added", 2);
    cluster.lab.order("kill 2");
    cluster.happens(1, "removed", 2);
    cluster.lab.order("boot 2");
    cluster.serves(2);
    cluster.happens(1, "added", 2);

    for node in 1..=3 {
        cluster.lab.order(&format!("roce {node} all"));
    }
    cluster.links_after(1, |links| !links.contains(&"tcp".into()));
    let before = cluster.last_acked(1);
    assert!(cluster.acked(1, 2..) > before);
}
