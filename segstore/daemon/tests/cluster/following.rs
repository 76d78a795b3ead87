//! Whoever stands by has most of the state before its turn comes.

use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use segstore::{CreateOptions, OpenOptions, Segment, Session};

use super::harness::{Cluster, WATCHDOG, until};
use super::roles::{OVER_TCP, check_state, opened, options, write};

const LARGE: usize = 16 << 20;

fn follow<'s>(scope: &'s Scope<'s, '_>, session: &Session) -> ScopedJoinHandle<'s, Segment> {
    let session = session.clone();
    let how = OpenOptions::new().stand_by(Some(WATCHDOG)).follow(true);
    scope.spawn(move || session.open("s", &how).unwrap())
}

/// Nothing more is read for a while.
fn until_up_to_date(session: &Session, at_least: u64) {
    until("it has read the state", || {
        let before = session.pulled_bytes();
        std::thread::sleep(Duration::from_millis(400));
        (before >= at_least && session.pulled_bytes() == before).then_some(())
    });
}

/// Owners that are killed in the middle of anything, and followers that copy what they write.
#[test]
fn everything_acknowledged_survives_with_followers() {
    for transport in [&["--transport", "shm"][..], OVER_TCP] {
        let cluster = Cluster::start(3, transport);
        let mut owner = cluster.client(0, "follower", &["s"]);
        let mut found: u64 = owner.line("owner").expect("it becomes the owner").parse().unwrap();
        for round in 1..8 {
            let mut next = cluster.client(round % 3, "follower", &["s"]);
            std::thread::sleep(Duration::from_millis(250 + 41 * (round as u64 % 5)));
            owner.kill();
            let acknowledged = owner.last_number("acknowledged").unwrap_or(found);
            found = next.line("owner").expect("it becomes the owner").parse().unwrap();
            assert!(found >= acknowledged, "{found} was loaded, {acknowledged} had been acknowledged");
            owner = next;
        }
        assert!(found > 50, "hardly anything was acknowledged: {found}");
    }
}

#[test]
fn whoever_follows_reads_only_what_was_changed_last() {
    for transport in ["shm", "tcp"] {
        let cluster = Cluster::start(3, &["--transport", transport]);
        let session = cluster.session(0);
        let make = CreateOptions::new(LARGE as u64).replicas(1);
        let mut owner = session.open_or_create("s", &make, &OpenOptions::new()).unwrap();
        owner.set_len(LARGE).unwrap();
        owner.bytes_mut(..).unwrap().fill(1);
        owner.checkpoint().unwrap();
        std::thread::scope(|scope| {
            let next = cluster.session(1);
            let following = follow(scope, &next);
            until_up_to_date(&next, LARGE as u64);
            owner.write(5000, &[2]).unwrap();
            owner.checkpoint().unwrap();
            let (epoch, before) = (owner.epoch(), next.pulled_bytes());
            owner.release().unwrap();
            let segment = following.join().unwrap();
            let read = next.pulled_bytes() - before;
            assert!(read <= 2 * 4096, "{read} bytes were read over {transport}");
            let mut expected = vec![1; LARGE];
            expected[5000] = 2;
            assert!(segment.bytes() == expected && segment.epoch() == epoch);
        });
    }
}

/// What was copied is longer than what is loaded: beyond are zeros, for the application to grow into.
#[test]
fn what_was_cut_off_meanwhile_does_not_come_back() {
    let cluster = Cluster::start(2, &[]);
    let session = cluster.session(0);
    let mut owner = opened(&session, &options().replicas(1));
    std::thread::scope(|scope| {
        let next = cluster.session(1);
        let following = follow(scope, &next);
        until_up_to_date(&next, owner.len() as u64);
        let length = owner.len();
        owner.set_len(5000).unwrap();
        owner.checkpoint().unwrap();
        owner.release().unwrap();
        let mut segment = following.join().unwrap();
        assert_eq!(segment.len(), 5000);
        segment.set_len(length).unwrap();
        assert!(segment.bytes()[5000..].iter().all(|byte| *byte == 0));
    });
}

/// The replica that was followed goes, with its memory.
#[test]
fn a_replica_that_goes_is_followed_elsewhere() {
    let mut cluster = Cluster::start(4, OVER_TCP);
    let (session, mut n) = (cluster.session(0), 1);
    let mut owner = opened(&session, &options());
    let kept = || -> Vec<usize> {
        let places = session.lookup("s").unwrap().places;
        places.iter().map(|place| place.node_name[1..].parse().unwrap()).collect()
    };
    let before = kept();
    let standby = (1..4).find(|node| !before.contains(node)).unwrap();
    let next = cluster.session(standby);
    std::thread::scope(|scope| {
        let following = follow(scope, &next);
        until_up_to_date(&next, owner.len() as u64);
        // Both, one after the other: whichever is followed.
        for gone in before {
            cluster.kill(gone);
            std::fs::remove_dir_all(cluster.memory(gone)).unwrap();
            cluster.restart(gone);
            until("its replica is made anew", || {
                n += 1;
                write(&mut owner, n);
                std::thread::sleep(Duration::from_millis(20));
                (super::roles::elsewhere(&session) == 2).then_some(())
            });
        }
        let before = next.pulled_bytes();
        until("it is followed there", || {
            n += 1;
            write(&mut owner, n);
            std::thread::sleep(Duration::from_millis(20));
            (next.pulled_bytes() > before).then_some(())
        });
        owner.release().unwrap();
        assert_eq!(check_state(following.join().unwrap().bytes()), n);
    });
}

/// The segment is removed, and made again under its name: nothing of the former one is in it.
#[test]
fn another_segment_of_that_name_is_read_anew() {
    let cluster = Cluster::start(2, &[]);
    let session = cluster.session(0);
    session.acquire("s", Some(Duration::ZERO), false).unwrap();
    let former = opened(&session, &options().replicas(1));
    std::thread::scope(|scope| {
        let next = cluster.session(1);
        let following = follow(scope, &next);
        until_up_to_date(&next, former.len() as u64);
        drop(former);
        session.remove("s", true).unwrap();
        let mut segment = session.open_or_create("s", &options().replicas(1), &OpenOptions::new()).unwrap();
        segment.set_len(2 * 4096).unwrap();
        segment.write(4096, b"new").unwrap();
        segment.checkpoint().unwrap();
        drop(segment);
        session.release("s").unwrap();
        let segment = following.join().unwrap();
        let mut expected = vec![0; 2 * 4096];
        expected[4096..4099].copy_from_slice(b"new");
        assert!(segment.bytes() == expected);
    });
}

/// What is damaged where it is followed is not taken for good: the load asks another replica.
#[test]
fn damage_is_not_followed() {
    let cluster = Cluster::start(3, &["--transport", "shm"]);
    let session = cluster.session(0);
    let owner = opened(&session, &options());
    // One block of every slot of the replica that is followed, on the follower's own node.
    (0..2).for_each(|slot| cluster.alter(1, slot));
    std::thread::scope(|scope| {
        let next = cluster.session(1);
        let following = follow(scope, &next);
        until_up_to_date(&next, 1);
        owner.release().unwrap();
        assert_eq!(check_state(following.join().unwrap().bytes()), 1);
    });
}
