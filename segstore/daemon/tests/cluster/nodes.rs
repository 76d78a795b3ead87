//! Nodes that die, come back, and come back without their memory.

use std::time::{Duration, Instant};

use segstore::control::channel::{Asked, Channel};
use segstore::control::message::Request;
use segstore::{BelowMinimum, CreateOptions, Error, OpenOptions, Segment, Session};

use super::harness::{Cluster, until};
use super::roles::{STATE, check_state, options, write_state};

/// Where a daemon alone is killed, its memory lives on, and over shared memory so does what is written into it until the owner notices. Over
/// TCP its end is the node's.
const OVER_TCP: &[&str] = &["--transport", "tcp"];

fn opened(session: &Session) -> Segment {
    let mut segment = session.open_or_create("s", &options(), &OpenOptions::new()).unwrap();
    segment.set_len(STATE).unwrap();
    segment
}

fn write(segment: &mut Segment, n: u64) {
    write_state(segment, n);
    segment.checkpoint().unwrap();
}

fn elsewhere(session: &Session) -> u32 {
    session.status("s").unwrap().owner.expect("the owner answers").elsewhere
}

#[test]
fn a_daemon_that_is_restarted_keeps_its_replica_in_sync() {
    let mut cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let mut segment = opened(&session);
    for (n, node) in (1..=10).zip([1, 2].into_iter().cycle()) {
        write(&mut segment, n);
        cluster.restart(node);
        write(&mut segment, n + 1000);
        write_state(&mut segment, n);
    }
    assert_eq!(elsewhere(&session), 2);
    let events = session.events(Some("s")).unwrap();
    assert!(!events.iter().any(|event| event.what == "removed"), "{events:?}");
}

#[test]
fn the_owners_own_daemon_can_be_restarted() {
    let mut cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let mut segment = opened(&session);
    write(&mut segment, 1);
    cluster.restart(0);
    for n in 2..100 {
        write(&mut segment, n);
    }
    let other = until("the directory answers again", || match cluster.session(1).open("s", &OpenOptions::new()) {
        Err(Error::Unreachable(_)) => None,
        other => Some(other),
    });
    assert!(matches!(other, Err(Error::Owned { .. })), "the session lives on: {other:?}");
    drop((segment, session));
    let standby = OpenOptions::new().stand_by(Some(Duration::from_secs(30)));
    let segment = cluster.session(1).open("s", &standby).unwrap();
    assert_eq!(check_state(segment.bytes()), 99);
}

#[test]
fn without_its_directory_commits_go_on() {
    let mut cluster = Cluster::start(3, &[]);
    let session = cluster.session(1);
    // Of several segments one has its replica on the third node, and not on the one with the directory.
    let make = CreateOptions::new(1 << 20).replicas(1);
    let name = (0..)
        .map(|number: u64| format!("s{number}"))
        .find(|name| session.create(name, &make).unwrap().places[0].node_name == "n2")
        .unwrap();
    let mut segment = session.open(&name, &OpenOptions::new()).unwrap();
    segment.set_len(STATE).unwrap();
    write(&mut segment, 1);
    cluster.kill(0);
    for n in 2..50 {
        write(&mut segment, n);
    }
    let taken = cluster.session(2).open(&name, &OpenOptions::new());
    assert!(matches!(taken, Err(Error::Unreachable(_))), "takeovers wait for the directory: {taken:?}");
    cluster.restart(0);
    write(&mut segment, 50);
    assert_eq!(check_state(segment.bytes()), 50);
}

/// Whoever was not heard since the directory's daemon did not listen is not dead.
#[test]
fn a_pause_of_the_directory_ends_no_lease() {
    let cluster = Cluster::start(3, &[]);
    let sessions = [cluster.session(1), cluster.session(2)];
    sessions.iter().zip(["a", "b"]).for_each(|(session, name)| {
        session.acquire(name, Some(Duration::ZERO), false).unwrap();
    });
    for _ in 0..3 {
        cluster.pause(0);
        std::thread::sleep(Duration::from_millis(2500));
        cluster.resume(0);
        std::thread::sleep(Duration::from_millis(700));
        for (name, other) in [("a", 2), ("b", 1)] {
            let taken = cluster.session(other).acquire(name, Some(Duration::ZERO), false);
            assert!(matches!(taken, Err(Error::Owned { .. })), "{name}: its holder and that one's daemon live");
        }
    }
}

#[test]
fn a_daemon_that_comes_back_before_the_directory_gives_nothing_up() {
    let mut cluster = Cluster::start(3, &[]);
    let session = cluster.session(1);
    session.acquire("s", Some(Duration::ZERO), false).unwrap();
    cluster.kill(0);
    cluster.kill(1);
    cluster.spawn(1);
    // Longer than its lease: while there is no directory no time runs out.
    std::thread::sleep(Duration::from_millis(1500));
    cluster.restart(0);
    std::thread::sleep(Duration::from_millis(2500));
    let taken = cluster.session(2).acquire("s", Some(Duration::ZERO), false);
    assert!(matches!(taken, Err(Error::Owned { .. })), "its holder lives, and so does that one's daemon: {taken:?}");
}

/// The directory dies while names are acquired: whoever is told that it failed does not have one, and it is not lost.
#[test]
fn a_name_that_was_not_acquired_is_free() {
    let mut cluster = Cluster::start(3, &["--node-lease", "20s"]);
    let open = |_| Channel::open(&cluster.socket(1), "asker", None, Box::new(|_, _| ())).unwrap();
    let channels: Vec<_> = (0..64).map(open).collect();
    for round in 0..8 {
        let acquire = |n: usize| Request::Acquire { name: format!("{round}/{n}"), wait: Some(0), force: false };
        let asked: Vec<_> = channels.iter().zip(0..).map(|(channel, n)| channel.send(acquire(n)).unwrap()).collect();
        while !asked.iter().any(Asked::is_answered) {
            std::hint::spin_loop();
        }
        cluster.kill(0);
        let failed = asked.into_iter().map(|asked| asked.wait(None).is_err()).collect::<Vec<_>>();
        cluster.restart(0);
        let other = cluster.session(2);
        for (n, _) in failed.iter().enumerate().filter(|(_, failed)| **failed) {
            let name = format!("{round}/{n}");
            let acquired = other.acquire(&name, Some(Duration::from_secs(5)), false);
            assert!(acquired.is_ok(), "{name}: {acquired:?}");
        }
    }
}

#[test]
fn a_replica_that_dies_is_left_out_and_replaced() {
    let mut cluster = Cluster::start(4, OVER_TCP);
    let session = cluster.session(0);
    let mut segment = opened(&session);
    write(&mut segment, 1);
    let status = session.status("s").unwrap();
    let victim = status.replicas.iter().find(|replica| replica.in_sync && replica.node_name != "n0").unwrap();
    let victim: usize = victim.node_name[1..].parse().unwrap();
    cluster.kill(victim);
    write(&mut segment, 2);
    until("another replica is in sync", || {
        write_state(&mut segment, 3);
        segment.checkpoint().unwrap();
        (elsewhere(&session) == 2).then_some(())
    });
    let events = session.events(Some("s")).unwrap();
    let removed = events.iter().find(|event| event.what == "removed").expect("the removal is told");
    assert!(removed.why.contains(&format!("n{victim}")), "{removed:?}");
    drop(segment);
    let segment = session.open("s", &OpenOptions::new().stand_by(Some(Duration::from_secs(10)))).unwrap();
    assert_eq!(segment.bytes()[..8], 3_u64.to_le_bytes());
}

#[test]
fn an_idle_segment_is_repaired_too() {
    let mut cluster = Cluster::start(4, OVER_TCP);
    let session = cluster.session(0);
    let mut segment = opened(&session);
    write(&mut segment, 1);
    let status = session.status("s").unwrap();
    let victim = status.replicas.iter().find(|replica| replica.in_sync && replica.node_name != "n0").unwrap();
    let victim: usize = victim.node_name[1..].parse().unwrap();
    cluster.kill(victim);
    write(&mut segment, 2);
    until("another replica is in sync", || (elsewhere(&session) == 2).then_some(()));
}

#[test]
fn a_node_that_comes_back_without_its_memory_is_filled_again() {
    let mut cluster = Cluster::start(3, OVER_TCP);
    let session = cluster.session(0);
    let mut segment = opened(&session);
    write(&mut segment, 1);
    cluster.kill(2);
    std::fs::remove_dir_all(cluster.memory(2)).unwrap();
    write(&mut segment, 2);
    assert_eq!(elsewhere(&session), 1, "the one whose memory is gone is left out");
    cluster.restart(2);
    until("it is filled again", || (elsewhere(&session) == 2).then_some(()));
    write(&mut segment, 3);
    drop(segment);
    cluster.kill(1);
    let segment = session.open("s", &OpenOptions::new().stand_by(Some(Duration::from_secs(10)))).unwrap();
    assert_eq!(check_state(segment.bytes()), 3, "from the replica that was filled");
}

#[test]
fn below_the_minimum_nothing_is_acknowledged_and_nothing_hangs() {
    let mut cluster = Cluster::start(2, OVER_TCP);
    let session = cluster.session(0);
    let make = CreateOptions::new(1 << 20).replicas(1).minimum(1, BelowMinimum::Stop);
    let how = OpenOptions::new().timeout(Duration::from_secs(2)).patience(Duration::from_millis(100));
    let mut segment = session.open_or_create("s", &make, &how).unwrap();
    segment.set_len(STATE).unwrap();
    write(&mut segment, 1);
    cluster.kill(1);
    write_state(&mut segment, 2);
    let started = Instant::now();
    let pending = segment.checkpoint();
    let Err(Error::Pending { epoch, waiting_for, .. }) = pending else { panic!("{pending:?}") };
    assert!(started.elapsed() >= Duration::from_secs(2));
    assert!(waiting_for.contains("n1"), "{waiting_for}");
    assert_eq!(segment.outcome(epoch), segstore::Outcome::Pending);
    cluster.restart(1);
    write(&mut segment, 3);
    assert!(matches!(segment.outcome(epoch), segstore::Outcome::Superseded(_)));
}

/// A replica whose daemon hangs breaks no connection. The policy says to go on, so it goes on.
#[test]
fn a_replica_that_hangs_is_left_out() {
    let cluster = Cluster::start(3, &["--transport", "tcp"]);
    let mut segment = cluster.session(0).open_or_create("s", &options(), &OpenOptions::new()).unwrap();
    segment.set_len(STATE).unwrap();
    write(&mut segment, 1);
    cluster.pause(2);
    write_state(&mut segment, 2);
    assert_eq!(segment.checkpoint().unwrap().elsewhere, 1);
}
