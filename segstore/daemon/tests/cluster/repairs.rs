//! Replicas that are lost, and made anew.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use segstore::{BelowMinimum, CreateOptions, Error, OpenOptions, Segment, Session};

use super::harness::{Cluster, WATCHDOG, until};
use super::roles::{OVER_TCP, STATE, check_state, elsewhere, opened, opened_empty, options, write, write_state};

/// Kills the daemon of a replica in sync that is not beside the owner; gives its node.
fn kill_a_replica(cluster: &mut Cluster, session: &Session) -> usize {
    let status = session.status("s").unwrap();
    let victim = status.replicas.iter().find(|replica| replica.in_sync && replica.node_name != "n0").unwrap();
    let victim = victim.node_name[1..].parse().unwrap();
    cluster.kill(victim);
    victim
}

#[test]
fn a_replica_that_dies_is_left_out_and_replaced() {
    let mut cluster = Cluster::start(4, OVER_TCP);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options());
    let victim = kill_a_replica(&mut cluster, &session);
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

/// Nothing is left to copy from but the owner's own memory.
#[test]
fn an_owner_whose_only_replica_is_lost_pushes_everything_to_another() {
    let mut cluster = Cluster::start(3, OVER_TCP);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options().replicas(1));
    let victim = kill_a_replica(&mut cluster, &session);
    std::fs::remove_dir_all(cluster.memory(victim)).unwrap();
    write(&mut segment, 2);
    let places = session.lookup("s").unwrap().places;
    assert_eq!(places.len(), 1);
    assert_ne!(places[0].node_name, format!("n{victim}"));
    write(&mut segment, 3);
    drop(segment);
    let segment = session.open("s", &OpenOptions::new().stand_by(Some(Duration::from_secs(10)))).unwrap();
    assert_eq!(check_state(segment.bytes()), 3);
}

/// Its daemon is away for longer than its owner has patience, and within its lease.
#[test]
fn an_only_replica_that_may_come_back_is_waited_for() {
    let mut cluster = Cluster::start(3, &[OVER_TCP, &["--node-lease", "20s"]].concat());
    let session = cluster.session(0);
    let mut segment = opened(&session, &options().replicas(1));
    let victim = kill_a_replica(&mut cluster, &session);
    write_state(&mut segment, 2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(4));
            cluster.restart(victim);
        });
        segment.checkpoint().unwrap();
    });
    let places = session.lookup("s").unwrap().places;
    assert!(places.len() == 1 && places[0].node_name == format!("n{victim}"), "{places:?}");
    let log = std::fs::read_to_string(cluster.log(3 - victim)).unwrap();
    assert!(!log.contains("a replica was made here"), "{log}");
}

/// All that keep it start again at once, without their memory. With the only node that could have taken one among them.
#[test]
fn an_owner_outlives_all_its_replicas() {
    for (nodes, replicas, minimum) in [(2, 1, 1), (3, 2, 1), (3, 2, 2)] {
        let mut cluster = Cluster::start(nodes, OVER_TCP);
        let session = cluster.session(0);
        let mut segment = opened(&session, &options().replicas(replicas).minimum(minimum, BelowMinimum::Stop));
        let all: Vec<_> = (1..nodes).collect();
        all.iter().for_each(|node| cluster.kill(*node));
        all.iter().for_each(|node| std::fs::remove_dir_all(cluster.memory(*node)).unwrap());
        write_state(&mut segment, 2);
        assert!(matches!(segment.checkpoint(), Err(Error::Pending { .. })), "nobody has it");
        all.iter().for_each(|node| cluster.restart(*node));
        until("it is kept again", || {
            write_state(&mut segment, 3);
            segment.checkpoint().is_ok().then_some(())
        });
        until("as often as is asked for", || (elsewhere(&session) == replicas).then_some(()));
        write(&mut segment, 4);
        drop(segment);
        let segment = session.open("s", &OpenOptions::new().stand_by(Some(Duration::from_secs(10)))).unwrap();
        assert_eq!(check_state(segment.bytes()), 4);
    }
}

/// It is not waited for that it comes back, where another can take its place.
#[test]
fn what_the_policy_cannot_do_without_is_replaced() {
    let mut cluster = Cluster::start(4, OVER_TCP);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options().minimum(2, BelowMinimum::Stop));
    kill_a_replica(&mut cluster, &session);
    until("another has taken its place", || {
        write_state(&mut segment, 2);
        segment.checkpoint().is_ok().then_some(())
    });
    assert_eq!(elsewhere(&session), 2);
    write(&mut segment, 3);
}

#[test]
fn an_idle_segment_is_repaired_too() {
    let mut cluster = Cluster::start(4, OVER_TCP);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options());
    kill_a_replica(&mut cluster, &session);
    write(&mut segment, 2);
    until("another replica is in sync", || (elsewhere(&session) == 2).then_some(()));
}

#[test]
fn a_node_that_comes_back_without_its_memory_is_filled_again() {
    let mut cluster = Cluster::start(3, OVER_TCP);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options());
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

/// It was left out, and all that its daemon left is there, but for two blocks that were damaged meanwhile.
#[test]
fn a_node_that_comes_back_with_its_memory_catches_up_by_what_has_changed() {
    for over in [OVER_TCP, &[]] {
        let mut cluster = Cluster::start(3, over);
        let session = cluster.session(0);
        let mut segment = opened(&session, &options());
        let mut expected = segment.bytes().to_vec();
        // Another block each time.
        let mut change = |segment: &mut Segment, n: u8| {
            let at = usize::from(n) * 5 * 4096;
            expected[at] = n;
            segment.write(at, &[n]).unwrap();
            segment.checkpoint().unwrap();
            expected.clone()
        };
        change(&mut segment, 2);
        cluster.kill(2);
        change(&mut segment, 3);
        until("it is left out", || {
            // What was written into its memory just after its daemon's end shows nothing of that.
            segment.checkpoint().unwrap();
            (elsewhere(&session) == 1).then_some(())
        });
        (0..2).for_each(|slot| cluster.alter(2, slot));
        change(&mut segment, 4);
        cluster.restart(2);
        until("it is in sync again", || (elsewhere(&session) == 2).then_some(()));
        let log = std::fs::read_to_string(cluster.log(2)).unwrap();
        let said = log.split_once("the replica is filled: ").expect("it was filled once").1;
        let (copied, _) = said.split_once(" KiB were copied").expect(said);
        let copied: f64 = copied.parse().expect(copied);
        // Over shared memory a whole checkpoint may have been written after the daemon's end.
        let least = if over == OVER_TCP { 12.0 } else { 8.0 };
        assert!((least..STATE as f64 / 1024.0 / 2.0).contains(&copied), "{copied} KiB were copied");
        let last = change(&mut segment, 5);
        drop(segment);
        cluster.kill(1);
        let segment = session.open("s", &OpenOptions::new().stand_by(Some(Duration::from_secs(10)))).unwrap();
        assert!(segment.bytes() == last, "from the replica that has caught up");
    }
}

/// Its application waits for what a checkpoint carries: that is not all that it has changed while a replica was filled.
#[test]
fn what_is_changed_while_a_replica_is_filled_is_copied_before_it_takes_part() {
    let cluster = Cluster::start(3, &[OVER_TCP, &["--repair-bandwidth", "16MiB"]].concat());
    let session = cluster.session(0);
    let length = 32 << 20;
    let make = CreateOptions::new(length as u64).replicas(1).require("node!=n0".parse().unwrap());
    let mut segment = session.open_or_create("s", &make, &OpenOptions::new()).unwrap();
    segment.set_len(length).unwrap();
    segment.bytes_mut(..).unwrap().fill(1);
    segment.checkpoint().unwrap();
    let pushed = || session.status("s").unwrap().owner.unwrap().pushed_bytes;
    session.set_replicas("s", 2).unwrap();
    until("it is being filled", || {
        session.status("s").unwrap().replicas.iter().any(|replica| replica.repair.is_some()).then_some(())
    });
    for part in 0..8 {
        segment.bytes_mut(part << 22..(part << 22) + (1 << 20)).unwrap().fill(2);
        segment.checkpoint().unwrap();
    }
    // What the other one lacks of that.
    segment.checkpoint().unwrap();
    let (mut last, mut most) = (pushed(), 0);
    until("it takes part", || {
        segment.write(0, &[3]).unwrap();
        segment.checkpoint().unwrap();
        let now = pushed();
        (last, most) = (now, most.max(now - last));
        (elsewhere(&session) == 2).then_some(())
    });
    assert!(most < 2 << 20, "a checkpoint has carried {most} bytes");
}

/// The node's former replica, which goes for the new one, is not in its way.
#[test]
fn a_replica_that_takes_more_than_half_of_its_node_is_filled_again() {
    let mut cluster = Cluster::start(3, OVER_TCP);
    let session = cluster.session(0);
    let make = CreateOptions::new(160 << 20).replicas(2);
    let how = OpenOptions::new().patience(Duration::from_millis(100));
    let mut segment = session.open_or_create("s", &make, &how).unwrap();
    segment.set_len(STATE).unwrap();
    write(&mut segment, 1);
    cluster.kill(2);
    write(&mut segment, 2);
    assert_eq!(elsewhere(&session), 1, "it is left out");
    until("it is said why there is no other", || {
        let said = session.status("s").unwrap().owner?.warnings.join("; ");
        said.contains("no further node takes").then_some(())
    });
    cluster.restart(2);
    until("it is filled again", || (elsewhere(&session) == 2).then_some(()));
    let status = session.status("s").unwrap();
    assert_eq!(status.replicas.len(), 2, "the former one has gone: {status:?}");
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

/// The way to one of two replicas carries what is small and loses the rest: it can be connected to, and takes no push.
#[test]
fn a_replica_that_takes_no_push_is_left_out() {
    let door = |port: u16| TcpListener::bind(("127.0.0.1", port));
    let are_free = |first: &u16| (*first..first + 20).all(|port| door(port).is_ok());
    let first = (21_000..26_000).step_by(20).find(are_free).unwrap();
    for node in 0..3 {
        let door = door(first + 10 + node).unwrap();
        std::thread::spawn(move || {
            for from in door.incoming() {
                let to = TcpStream::connect(("127.0.0.1", first + node)).unwrap();
                let back = (to.try_clone().unwrap(), from.as_ref().unwrap().try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut &back.0, &mut &back.1));
                std::thread::spawn(move || carry(&mut from.unwrap(), &mut &to, (node == 1).then_some(16 << 10)));
            }
        });
    }
    let (data, seen) = (format!("127.0.0.1:{}{{node}}", first / 10), format!("127.0.0.1:{}{{node}}", first / 10 + 1));
    let cluster = Cluster::start(3, &["--transport", "tcp", "--data-listen", &data, "--data-advertise", &seen]);
    let make = options().minimum(0, BelowMinimum::Continue);
    let how = OpenOptions::new().patience(Duration::from_millis(300)).timeout(Duration::from_secs(30));
    let mut segment = cluster.session(0).open_or_create("s", &make, &how).unwrap();
    segment.set_len(STATE).unwrap();
    segment.bytes_mut(..).unwrap().fill(7);
    assert_eq!(segment.checkpoint().unwrap().elsewhere, 1);
}

/// Passes bytes on, so many; what comes then is swallowed, and the connection stays.
fn carry(from: &mut impl Read, to: &mut impl Write, most: Option<usize>) {
    let (mut bytes, mut passed) = ([0; 4096], 0);
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        passed += count;
        if most.is_none_or(|most| passed <= most) && to.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}

/// A replica's daemon stops in the middle of a load; another replica is good.
#[test]
fn a_load_goes_on_from_another_replica_when_one_hangs() {
    const STATE: usize = 48 << 20;
    let cluster = Cluster::start(3, OVER_TCP);
    let make = CreateOptions::new(STATE as u64).replicas(2);
    let how = OpenOptions::new().timeout(Duration::from_secs(30));
    let mut old = cluster.session(0).open_or_create("s", &make, &how).unwrap();
    old.set_len(STATE).unwrap();
    old.bytes_mut(..).unwrap().fill(1);
    old.checkpoint().unwrap();
    drop(old);
    let session = cluster.session(0);
    let first: usize = session.lookup("s").unwrap().places[0].node_name[1..].parse().unwrap();
    let loading = session.clone();
    let how = OpenOptions::new().stand_by(Some(WATCHDOG));
    let load = std::thread::spawn(move || {
        loading.open("s", &how).map(|segment| segment.bytes().iter().all(|byte| *byte == 1))
    });
    while session.pulled_bytes() < 2 << 20 {
        std::hint::spin_loop();
    }
    cluster.pause(first);
    until("the load is over", || load.is_finished().then_some(()));
    assert!(load.join().unwrap().unwrap());
}

/// The one replica that is left is damaged where nothing was written since: a copy of it would pass for good.
#[test]
fn a_repair_copies_no_damage() {
    let mut cluster = Cluster::start(4, OVER_TCP);
    let session = cluster.session(0);
    let mut segment = opened_empty(&session);
    // All of it in both slots, and from then on only the first block.
    write(&mut segment, 1);
    write(&mut segment, 2);
    let change = |segment: &mut Segment| {
        segment.write(0, b"changed").unwrap();
        segment.checkpoint().unwrap();
    };
    (0..2).for_each(|_| change(&mut segment));
    let places = session.lookup("s").unwrap().places;
    let node = |at: usize| places[at].node_name[1..].parse::<usize>().unwrap();
    (0..2).for_each(|slot| cluster.alter(node(0), slot));
    cluster.kill(node(1));
    change(&mut segment);
    let logs = |cluster: &Cluster| -> String {
        (0..4).map(|node| std::fs::read_to_string(cluster.log(node)).unwrap()).collect()
    };
    until("a repair was tried", || logs(&cluster).contains("damage is not copied").then_some(()));
    change(&mut segment);
    assert!(!logs(&cluster).contains("the replica is filled"));
    assert_eq!(elsewhere(&session), 1);
}

/// A checkpoint is acknowledged while a new replica is filled, and then the application rests: the replica comes in all the same.
#[test]
fn an_owner_that_rests_gets_its_replicas_back() {
    let mut cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let make = CreateOptions::new(96 << 20).replicas(2);
    let how = OpenOptions::new().timeout(Duration::from_secs(30));
    let mut segment = session.open_or_create("s", &make, &how).unwrap();
    segment.set_len(96 << 20).unwrap();
    segment.bytes_mut(..).unwrap().fill(1);
    segment.checkpoint().unwrap();
    cluster.kill(2);
    std::fs::remove_dir_all(cluster.memory(2)).unwrap();
    segment.write(0, b"2").unwrap();
    assert_eq!(segment.checkpoint().unwrap().elsewhere, 1);
    cluster.restart(2);
    until("another replica is being made", || std::fs::read_dir(cluster.memory(2)).ok()?.nth(1).map(drop));
    segment.write(0, b"3").unwrap();
    segment.checkpoint().unwrap();
    until("it is in sync", || (elsewhere(&session) == 2).then_some(()));
}

/// What is lost is called so: by whoever loads, whoever looks, and with the cause.
#[test]
fn a_replica_whose_node_has_new_memory_is_lost_and_not_out_of_reach() {
    let mut cluster = Cluster::start(2, OVER_TCP);
    let session = cluster.session(0);
    let make = CreateOptions::new(1 << 20).replicas(1);
    let mut segment = session.open_or_create("s", &make, &OpenOptions::new()).unwrap();
    segment.set_len(4096).unwrap();
    segment.checkpoint().unwrap();
    segment.release().unwrap();
    cluster.kill(1);
    std::fs::remove_dir_all(cluster.memory(1)).unwrap();
    let load = |pending| session.load("s", &segstore::LoadOptions::new().pending(pending));
    for pending in [false, true] {
        let Err(Error::Unreachable(text)) = load(pending) else {
            panic!("its node is down: {:?}", load(pending).err())
        };
        assert!(text.contains("n1"), "{text}");
    }
    // Within the lease already:
    let problem = |session: &Session| session.status("s").unwrap().replicas[0].problem.clone().unwrap();
    assert!(["does not answer", "is down"].iter().any(|why| problem(&session).contains(why)), "{}", problem(&session));
    cluster.restart(1);
    cluster.until_up(2);
    for pending in [false, true] {
        let Err(Error::NoGoodCopy(text)) = load(pending) else { panic!("it is lost: {:?}", load(pending).err()) };
        assert!(text.contains("node n1: its node is up, its memory is new: the replica is gone"), "{text}");
    }
    assert!(problem(&session).contains("its memory is new"), "{}", problem(&session));
    let listed = &session.segments().unwrap()[0];
    assert!(listed.is_lost() && listed.trouble().unwrap().contains("its memory is new"), "{listed:?}");
}
