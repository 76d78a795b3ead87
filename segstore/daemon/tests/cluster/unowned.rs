//! Segments that nobody owns: their replicas are restored all the same, and whoever comes has them at once.

use std::time::Duration;

use segstore::{CreateOptions, Error, LoadOptions, OpenOptions, Session};
use segstore_core::id::Term;

use super::harness::{Cluster, until};
use super::roles::{OVER_TCP, STATE, check_state, opened, options, write};

/// The nodes with a replica in sync.
fn replicas(session: &Session) -> Vec<usize> {
    let places = session.lookup("s").unwrap().places;
    places.iter().map(|place| place.node_name[1..].parse().unwrap()).collect()
}

fn term(session: &Session) -> Term {
    session.lookup("s").unwrap().record.record.term
}

/// The state 2 in a segment that is let go.
fn let_go(session: &Session, make: &CreateOptions) {
    let mut segment = opened(session, make);
    write(&mut segment, 2);
    segment.release().unwrap();
}

/// A node comes back with another memory: its replica is gone.
fn lose_memory(cluster: &mut Cluster, node: usize) {
    cluster.kill(node);
    std::fs::remove_dir_all(cluster.memory(node)).unwrap();
    let session = cluster.session(0);
    let name = format!("n{node}");
    until("it is known to be down", || {
        session.nodes().unwrap().iter().any(|node| node.name == name && !node.up).then_some(())
    });
    cluster.restart(node);
}

/// One machine after the other is lost while the application rests, until none is left of those that had its state.
#[test]
fn what_nobody_owns_outlives_its_nodes() {
    let options_of_daemons = ["--node-gone-after", "2s"];
    let mut cluster = Cluster::start(5, &[&options_of_daemons, OVER_TCP].concat());
    let session = cluster.session(0);
    let_go(&session, &options().require("node!=n0".parse().unwrap()));
    let first = replicas(&session);
    for node in &first {
        cluster.kill(*node);
        until("another one is in sync in its place", || {
            let now = replicas(&session);
            (now.len() == 2 && !now.contains(node)).then_some(())
        });
    }
    assert!(replicas(&session).iter().all(|node| !first.contains(node)), "{first:?}");
    assert!(session.status("s").unwrap().trouble().is_none());
    assert!(session.lookup("s").unwrap().holder.is_none(), "nobody holds its name");
    let events = session.events(Some("s")).unwrap();
    let claimed = events.iter().filter(|event| event.what == "claimed" && event.why.contains("the daemon of node"));
    assert!(claimed.count() >= 2, "{events:?}");
    let mut segment = session.open("s", &OpenOptions::new()).unwrap();
    assert_eq!(check_state(segment.bytes()), 2);
    write(&mut segment, 3);
}

#[test]
fn what_nobody_owns_is_restored_on_a_node_with_new_memory() {
    let mut cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let_go(&session, &options());
    let gone = replicas(&session).into_iter().find(|node| *node != 0).unwrap();
    let before = session.lookup("s").unwrap().record.record.in_sync;
    lose_memory(&mut cluster, gone);
    until("another one is in sync in its place", || {
        let info = session.lookup("s").unwrap();
        (info.record.record.in_sync != before && info.places.len() == 2).then_some(())
    });
    assert_eq!(check_state(session.load("s", &LoadOptions::new()).unwrap().bytes()), 2);
}

/// A name is held for a script, say, whose programs open the segment for a moment each: between them nobody has it open.
#[test]
fn what_is_held_and_not_open_is_restored() {
    let options_of_daemons = ["--node-gone-after", "2s"];
    let mut cluster = Cluster::start(4, &[&options_of_daemons, OVER_TCP].concat());
    let session = cluster.session(0);
    session.acquire("s", None, false).unwrap();
    let_go(&session, &options());
    let first = replicas(&session);
    cluster.kill(first[0]);
    until("another one is in sync in its place", || {
        let now = replicas(&session);
        (now.len() == 2 && !now.contains(&first[0])).then_some(())
    });
    assert!(!replicas(&session).contains(&0), "what is beside the next owner counts for nothing");
    assert!(session.status("s").unwrap().trouble().is_none());
    // The name was held all the time, and is still good for opening.
    let holder = session.lookup("s").unwrap().holder.expect("the name is held");
    assert_eq!(holder.node_name, "n0");
    assert!(matches!(cluster.session(0).open("s", &OpenOptions::new()), Err(Error::Owned { .. })));
    let mut segment = session.open("s", &OpenOptions::new()).unwrap();
    assert_eq!(check_state(segment.bytes()), 2);
    write(&mut segment, 3);
    // Whoever has it open sees to it himself, even while he rests.
    let (term, second) = (segment.term(), replicas(&session));
    cluster.kill(second[0]);
    std::thread::sleep(Duration::from_secs(7));
    write(&mut segment, 4);
    assert_eq!(self::term(&session), term);
}

/// More are asked for than there are.
#[test]
fn what_nobody_owns_has_as_many_replicas_as_are_asked_for() {
    let mut cluster = Cluster::start(4, &[]);
    let session = cluster.session(0);
    let_go(&session, &options());
    session.set_replicas("s", 3).unwrap();
    // At the latest after a minute; at once where a node comes.
    let node = cluster.spawn_named("late");
    until("there are as many", || (session.lookup("s").unwrap().places.len() == 3).then_some(()));
    cluster.kill(node);
}

/// While its replica is filled, which would take half a minute, an application comes.
#[test]
fn whoever_comes_while_what_nobody_owned_is_restored_has_it_at_once() {
    const LARGE: usize = 32 << 20;
    let mut cluster = Cluster::start(4, &["--repair-bandwidth", "1MiB"]);
    let session = cluster.session(0);
    let mut segment =
        session.open_or_create("s", &CreateOptions::new(LARGE as u64).replicas(2), &OpenOptions::new()).unwrap();
    segment.set_len(LARGE).unwrap();
    segment.bytes_mut(..).unwrap().fill(7);
    segment.checkpoint().unwrap();
    segment.release().unwrap();
    let gone = replicas(&session).into_iter().find(|node| *node != 0).unwrap();
    lose_memory(&mut cluster, gone);
    until("another one is being filled", || {
        let status = session.status("s").unwrap();
        let care = status.care?;
        assert!(care.contains("nobody has it open; node n"), "{care}");
        status.replicas.iter().any(|replica| replica.repair.is_some()).then_some(())
    });
    let claimed = term(&session);
    let began = std::time::Instant::now();
    let mut segment = session.open("s", &OpenOptions::new()).unwrap();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(segment.bytes().iter().all(|byte| *byte == 7));
    segment.bytes_mut(..4096).unwrap().fill(8);
    segment.checkpoint().unwrap();
    assert_eq!(segment.term(), claimed.next());
    // Whoever restored it leaves it.
    std::thread::sleep(Duration::from_secs(5));
    segment.checkpoint().unwrap();
    assert_eq!(term(&session), claimed.next());
}

/// The owner's node is cut off, so that nobody holds the name; its owner lives.
#[test]
fn what_may_still_be_owned_is_left_alone() {
    let mut cluster = Cluster::start(4, &[]);
    let (session, owners) = (cluster.session(0), cluster.session(1));
    let mut segment = opened(&owners, &options());
    let gone = replicas(&session).into_iter().find(|node| *node != 0).unwrap();
    cluster.pause(1);
    until("nobody holds the name", || session.lookup("s").unwrap().holder.is_none().then_some(()));
    lose_memory(&mut cluster, gone);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(term(&session), segment.term());
    cluster.resume(1);
    write(&mut segment, 2);
    until("its owner restores it", || {
        let owner = session.status("s").unwrap().owner?;
        (owner.elsewhere == 2).then_some(())
    });
    assert_eq!(term(&session), segment.term());
}

/// The same until the owner's node is gone for good. When it is back, its owner is fenced, and its name is free, though it rests.
#[test]
fn an_owner_that_was_gone_for_good_does_not_come_back() {
    let mut cluster = Cluster::start(5, &[&["--node-gone-after", "2s"], OVER_TCP].concat());
    let (session, owners) = (cluster.session(0), cluster.session(1));
    let mut segment = opened(&owners, &options().require("node!=n0".parse().unwrap()));
    let gone = replicas(&session)[0];
    cluster.pause(1);
    cluster.kill(gone);
    until("another one is in sync in its place", || {
        let now = replicas(&session);
        (now.len() == 2 && !now.contains(&gone)).then_some(())
    });
    assert!(term(&session) > segment.term());
    cluster.resume(1);
    until("it has looked at what it held", || {
        let said = std::fs::read_to_string(cluster.log(1)).unwrap();
        said.contains("it is not held here any more").then_some(())
    });
    let mut next = until("its name is free", || session.open("s", &OpenOptions::new()).ok());
    assert_eq!(check_state(next.bytes()), 1);
    write(&mut next, 2);
    assert!(matches!(segment.checkpoint(), Err(Error::Fenced { .. })));
}

/// Of three replicas one is lost, and another away for a moment. A takeover would leave that one out: it is waited for.
#[test]
fn a_replica_that_is_only_away_is_waited_for() {
    let mut cluster = Cluster::start(5, &[]);
    let session = cluster.session(0);
    let_go(&session, &options().replicas(3).require("node!=n0".parse().unwrap()));
    let (before, nodes) = (session.lookup("s").unwrap().record.record.in_sync, replicas(&session));
    let (away, gone) = (nodes[0], nodes[2]);
    cluster.kill(away);
    lose_memory(&mut cluster, gone);
    let care = until("it is said", || session.status("s").unwrap().care);
    assert!(care.contains(&format!("waits for the replica on n{away}")), "{care}");
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(session.lookup("s").unwrap().record.record.in_sync, before);
    cluster.restart(away);
    until("three are in sync", || {
        let now = session.lookup("s").unwrap().record.record.in_sync;
        (now.len() == 3 && now.contains(&before[0]) && now.contains(&before[1]) && now != before).then_some(())
    });
}

/// Of three replicas one is lost, and another damaged: it is verified where it stands, and not taken for a copy.
#[test]
fn what_is_damaged_is_not_copied_while_nobody_owns_it() {
    let mut cluster = Cluster::start(5, &[]);
    let session = cluster.session(0);
    let_go(&session, &options().replicas(3).require("node!=n0".parse().unwrap()));
    let (before, nodes) = (session.lookup("s").unwrap().record.record.in_sync, replicas(&session));
    (0..2).for_each(|slot| cluster.alter(nodes[0], slot));
    lose_memory(&mut cluster, nodes[2]);
    let whole = before[1];
    until("three are in sync", || {
        let now = session.lookup("s").unwrap().record.record.in_sync;
        (now.len() == 3 && now.contains(&whole) && !now.contains(&before[0]) && !now.contains(&before[2])).then_some(())
    });
    let filled = session.lookup("s").unwrap().places.into_iter().find(|place| place.member != whole).unwrap();
    for node in replicas(&session).into_iter().filter(|node| format!("n{node}") != filled.node_name) {
        cluster.kill(node);
    }
    let image = session.load("s", &LoadOptions::new()).unwrap();
    assert_eq!((image.bytes().len(), check_state(image.bytes())), (STATE, 2));
}

/// Of two replicas one is damaged, and the other to be moved: it goes when a good one has taken its place.
#[test]
fn the_last_good_copy_is_not_moved_before_it_is_copied() {
    let mut cluster = Cluster::start(4, &[]);
    let session = cluster.session(0);
    let_go(&session, &options().require("node!=n0".parse().unwrap()));
    session.set_replicas("s", 1).unwrap();
    let nodes = replicas(&session);
    (0..2).for_each(|slot| cluster.alter(nodes[1], slot));
    let drained = format!("n{}", nodes[0]);
    session.drain(&drained, true).unwrap();
    until("nothing is left there", || session.left(&drained).unwrap().is_empty().then_some(()));
    cluster.kill(nodes[0]);
    assert_eq!(check_state(session.load("s", &LoadOptions::new()).unwrap().bytes()), 2);
}
