//! Nodes that die, come back, and come back without their memory.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use segstore::control::channel::{Asked, Channel};
use segstore::control::message::Request;
use segstore::{BelowMinimum, CreateOptions, Error, OpenOptions, Segment, Session};

use super::harness::{Cluster, WATCHDOG, until};
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

/// One of the replicas in sync is on the owner's own node, whose daemon dies: nobody could remove that replica from the set, and
/// nobody has to, since its memory is there.
#[test]
fn an_owner_whose_own_daemon_is_away_goes_on() {
    let mut cluster = Cluster::start(2, &[]);
    let session = cluster.session(1);
    let mut segment = opened(&session);
    assert_eq!(session.status("s").unwrap().owner.expect("the owner answers").in_sync, 2);
    let mut n = 1;
    write(&mut segment, n);
    // Its memory is still there, and then it is not.
    for forgets in [false, true] {
        cluster.kill(1);
        let away = Instant::now();
        while away.elapsed() < Duration::from_millis(600) {
            n += 1;
            write_state(&mut segment, n);
            let done = segment.checkpoint().unwrap();
            assert_eq!((done.in_sync, done.elsewhere), (2, 1));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(away.elapsed() < Duration::from_secs(2), "a checkpoint waited for the daemon");
        if forgets {
            std::fs::remove_dir_all(cluster.memory(1)).unwrap();
        }
        cluster.restart(1);
        // What came back without its memory counts for nothing.
        until("the owner has met its daemon again", || {
            n += 1;
            write(&mut segment, n);
            let replicas = cluster.session(0).status("s").ok()?.replicas;
            let holds = |name| replicas.iter().any(|r| r.in_sync && r.node_name == name && r.image.is_some());
            (holds("n0") && holds("n1") != forgets).then_some(())
        });
    }
    drop((segment, session));
    let standby = OpenOptions::new().stand_by(Some(Duration::from_secs(30)));
    let segment = cluster.session(0).open("s", &standby).unwrap();
    assert_eq!(check_state(segment.bytes()), n);
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

/// The directory goes by what it granted, whatever the daemon is told when it is started again.
#[test]
fn a_lease_that_goes_on_keeps_its_time() {
    let mut cluster = Cluster::start(2, &["--node-lease", "4s"]);
    let session = cluster.session(1);
    let hold = session.acquire("s", Some(Duration::ZERO), false).unwrap();
    cluster.restart_with(1, &["--node-lease", "40s"]);
    // In which the granted one ends, if it is confirmed no more often than the other needs.
    std::thread::sleep(Duration::from_secs(5));
    let (now, lease) = (Instant::now(), session.lease(WATCHDOG).unwrap());
    assert_eq!((lease.time, lease.trouble), (Duration::from_secs(4), None));
    assert!(now < lease.until && lease.until <= Instant::now() + lease.time);
    assert_eq!(session.acquire("s", Some(Duration::ZERO), false).unwrap(), hold, "nobody can have had it meanwhile");
}

/// Whoever connects first asks for replicas at once.
#[test]
fn a_daemon_that_serves_knows_the_nodes() {
    let mut cluster = Cluster::start(2, &[]);
    for early in (0..120).step_by(20) {
        (0..2).for_each(|node| cluster.kill(node));
        cluster.spawn(1);
        std::thread::sleep(Duration::from_millis(early));
        cluster.spawn(0);
        let session = until("the daemon serves", || Session::connect_to(cluster.socket(1)).ok());
        let nodes = session.nodes().unwrap();
        assert!(nodes.iter().any(|node| node.name == "n1" && node.up), "{nodes:?}");
    }
}

/// The directory dies while names are acquired: whoever is told that it failed does not have one, and it is not lost.
#[test]
fn a_name_that_was_not_acquired_is_free() {
    let mut cluster = Cluster::start(3, &["--node-lease", "20s"]);
    let open = |_| Channel::open(&cluster.socket(1), "asker", None, Box::new(|_, _| ()), Box::new(|| ())).unwrap();
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
    let mut segment = opened(&session);
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

/// A node has one name, and a name one node.
#[test]
fn a_second_node_of_a_name_is_refused_and_one_that_left_can_be_forgotten() {
    let mut cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let mut second = cluster.command(3).args(["--name", "n1"]).spawn().unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(1));
    let told = std::fs::read_to_string(cluster.log(3)).unwrap();
    assert!(told.contains("another node is called n1") && told.contains("127.0.0.1:"), "{told}");
    assert!(session.nodes().unwrap().iter().any(|node| node.name == "n1" && node.up));
    let mut segment =
        session.open_or_create("s", &CreateOptions::new(1 << 20).replicas(2), &OpenOptions::new()).unwrap();
    segment.set_len(4096).unwrap();
    segment.checkpoint().unwrap();
    let refused = |name: &str, why: &str| {
        let Err(Error::Refused(text)) = session.forget_node(name) else { panic!("{name} is needed") };
        assert!(text.contains(why), "{text}");
    };
    refused("n2", "is up");
    cluster.kill(2);
    until("it is down", || session.nodes().unwrap().iter().any(|node| node.name == "n2" && !node.up).then_some(()));
    if session.lookup("s").unwrap().places.iter().any(|place| place.node_name == "n2") {
        refused("n2", "replicas in sync of s");
    }
    segment.write(0, b"on").unwrap();
    until("it is left out", || {
        segment.checkpoint().unwrap();
        session.forget_node("n2").ok()
    });
    assert!(!cluster.session(1).nodes().unwrap().iter().any(|node| node.name == "n2"));
}

/// For as long as the other one may be this node's own former life, it waits for that one and says so.
#[test]
fn a_node_that_waits_for_its_name_says_who_has_it() {
    let mut cluster = Cluster::start(1, &["--node-lease", "2s"]);
    let address = cluster.session(0).nodes().unwrap()[0].address.clone();
    let second = cluster.spawn_named("n0");
    until("it is refused", || (!cluster.runs(second)).then_some(()));
    let told = std::fs::read_to_string(cluster.log(second)).unwrap();
    assert!(told.contains(&format!("waiting for the name n0: a node whose daemon is at {address} has it")), "{told}");
    assert!(!told.contains("waiting for the directory"), "{told}");
}

#[test]
fn of_two_nodes_of_one_name_that_start_together_one_stays() {
    let mut cluster = Cluster::start(1, &[]);
    let twins: Vec<_> = (0..6).map(|n| cluster.spawn_named(&format!("twin{}", n / 2))).collect();
    for pair in twins.chunks(2) {
        until("one of them ends", || pair.iter().any(|twin| !cluster.runs(*twin)).then_some(()));
    }
    let nodes = cluster.session(0).nodes().unwrap();
    for (number, pair) in twins.chunks(2).enumerate() {
        let name = format!("twin{number}");
        let running = pair.iter().filter(|twin| cluster.runs(**twin)).count();
        let named = nodes.iter().filter(|node| node.name == name && node.up).count();
        assert_eq!((running, named), (1, 1), "{name} in {nodes:?}");
    }
}

/// A node that is started again under another name, within its lease, has the former one no longer: another may have that.
#[test]
fn a_name_that_a_node_had_is_free() {
    let mut cluster = Cluster::start(2, &[]);
    cluster.rename(1, "renamed");
    let node = cluster.spawn_named("n1");
    until("it has joined, or was refused", || {
        let is_up = cluster.session(0).nodes().unwrap().iter().any(|node| node.name == "n1" && node.up);
        (is_up || !cluster.runs(node)).then_some(())
    });
    assert!(cluster.runs(node));
    cluster.until_up(3);
}

/// A segment whose maker was killed while it was made leaves nothing.
#[test]
fn what_is_half_made_is_undone() {
    use std::io::Write;

    use segstore::control::frame::{ToDaemon, encode};
    use segstore::control::message::{Keeping, PROTOCOL, Placing, Request, Shape};

    let cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let mut maker = std::os::unix::net::UnixStream::connect(cluster.socket(0)).unwrap();
    let hello = Request::Hello { protocol: PROTOCOL, session: None, program: "maker".into() };
    maker.write_all(&encode(&ToDaemon::Request(0, hello)).unwrap()).unwrap();
    let create = Request::Create {
        name: "s".into(),
        shape: Shape { capacity: 220 << 20, block_size: 4096, slots: 2 },
        keeping: Keeping { replicas: 2, minimum: 1, below_minimum: BelowMinimum::Continue, local: false },
        placing: Placing::default(),
        mode: 0o600,
        uid: None,
        gid: None,
    };
    maker.write_all(&encode(&ToDaemon::Request(1, create)).unwrap()).unwrap();
    let files = |node: usize| {
        let files = std::fs::read_dir(cluster.memory(node)).unwrap().flatten();
        files.filter(|file| file.path().extension().is_some()).count()
    };
    // Memory is being reserved, which takes a while.
    until("it is half made", || (files(1) + files(2) > 0).then_some(()));
    drop(maker);
    std::thread::sleep(Duration::from_secs(2));
    until("nothing of it is left", || (files(1) + files(2) == 0).then_some(()));
    assert!(session.segments().unwrap().is_empty());
}

/// Whoever waits for a name waits for the directory too, and hears of it once.
#[test]
fn a_standby_outlasts_the_directory() {
    let mut cluster = Cluster::start(3, &[]);
    let owner = cluster.session(2);
    owner.acquire("s", Some(Duration::ZERO), false).unwrap();
    let (standby, waiting) = (cluster.session(1), cluster.session(1));
    let waits = std::thread::spawn(move || waiting.acquire("s", None, false));
    std::thread::sleep(Duration::from_millis(200));
    cluster.kill(0);
    std::thread::sleep(Duration::from_millis(1500));
    // How the nodes are nobody knows now; why is one sentence.
    let nodes = standby.nodes().unwrap();
    assert!(nodes.iter().all(|node| node.stale.is_some()), "{nodes:?}");
    let why = nodes[0].stale.clone().unwrap();
    assert!(why.starts_with("the directory is out of reach: cannot reach 127.0.0.1:"), "{why}");
    assert_eq!(why.matches("refused").count() + why.matches("transport").count(), 1, "{why}");
    assert!(!waits.is_finished(), "{:?}", waits.join());
    let told = std::fs::read_to_string(cluster.log(1)).unwrap();
    assert_eq!(told.matches("goes on waiting").count(), 1, "{told}");
    cluster.restart(0);
    until("the directory answers", || standby.nodes().unwrap()[0].stale.is_none().then_some(()));
    owner.release("s").unwrap();
    waits.join().unwrap().unwrap();
}
