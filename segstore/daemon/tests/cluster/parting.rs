//! Healthy replicas that are let go: since fewer are wanted, or none on a node that is being drained.

use std::time::{Duration, Instant};

use segstore::{CreateOptions, LoadOptions, OpenOptions, Place, Session};

use super::harness::{Cluster, until};
use super::roles::{check_state, elsewhere, opened, options, write};

fn events(session: &Session) -> Vec<String> {
    session.events(Some("s")).unwrap().into_iter().map(|event| format!("{}: {}", event.what, event.why)).collect()
}

/// More are filled, fewer let go, while the owner writes; of a segment that nobody owns it is written down.
#[test]
fn a_segment_has_as_many_replicas_as_are_asked_for() {
    let cluster = Cluster::start(4, &[]);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options());
    assert!(session.set_replicas("s", 0).is_err() && session.set_replicas("s", 17).is_err());
    let mut n = 1;
    for wanted in [3, 1, 2] {
        let info = cluster.session(1).set_replicas("s", wanted).unwrap();
        assert_eq!(info.keeping.replicas, wanted);
        until("there are as many", || {
            n += 1;
            write(&mut segment, n);
            (elsewhere(&session) == wanted).then_some(())
        });
        // And it stays so.
        for _ in 0..20 {
            n += 1;
            write(&mut segment, n);
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(elsewhere(&session), wanted);
    }
    drop(segment);
    until("nobody holds it", || session.lookup("s").unwrap().holder.is_none().then_some(()));
    session.set_replicas("s", 3).unwrap();
    let mut segment = session.open("s", &OpenOptions::new()).unwrap();
    assert_eq!(check_state(segment.bytes()), n);
    until("the next owner makes the third", || {
        n += 1;
        write(&mut segment, n);
        (elsewhere(&session) == 3).then_some(())
    });
    let events = events(&session);
    assert!(events.iter().any(|why| why.contains("fewer replicas are wanted")), "{events:?}");
    assert!(events.iter().any(|why| why.contains("wanted on other nodes: 1, instead of 3")), "{events:?}");
}

/// Without a checkpoint: who stays is looked at.
#[test]
fn an_owner_that_rests_lets_go_too() {
    let cluster = Cluster::start(4, &[]);
    let session = cluster.session(0);
    let segment = opened(&session, &options().replicas(3));
    session.set_replicas("s", 1).unwrap();
    until("one is left", || (elsewhere(&session) == 1).then_some(()));
    drop(segment);
    let image = session.load("s", &LoadOptions::new()).unwrap();
    assert_eq!(check_state(image.bytes()), 1);
}

/// The one that was to stay is dead, which an owner that rests has not noticed: the living one is kept, and fills another.
#[test]
fn the_last_living_copy_is_not_let_go() {
    let mut cluster = Cluster::start(3, &["--transport", "tcp"]);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options());
    let places = session.lookup("s").unwrap().places;
    let node = |at: usize| places[at].node_name[1..].parse::<usize>().unwrap();
    // Of two, the one that came later is to go.
    let (stays, goes) = (node(0), node(1));
    cluster.pause(stays);
    session.set_replicas("s", 1).unwrap();
    std::thread::sleep(Duration::from_secs(4));
    let in_sync = session.lookup("s").unwrap().record.record.in_sync;
    assert!(
        in_sync.iter().any(|member| member.node == places[1].member.node),
        "{in_sync:?}: nothing shows that {stays} lives"
    );
    cluster.kill(stays);
    write(&mut segment, 2);
    let in_sync = session.lookup("s").unwrap().record.record.in_sync;
    assert_eq!(in_sync, [places[1].member], "{goes} counts again");
    drop(segment);
    let image = session.load("s", &LoadOptions::new()).unwrap();
    assert_eq!(check_state(image.bytes()), 2);
}

/// What an owner has there goes elsewhere while it writes; a new segment is placed elsewhere; also after the daemon was started again.
#[test]
fn a_node_that_is_drained_keeps_nothing_and_gets_nothing() {
    let mut cluster = Cluster::start(4, &[]);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options());
    let places = session.lookup("s").unwrap().places;
    let drained = places[0].node_name.clone();
    let at: usize = drained[1..].parse().unwrap();
    session.drain(&drained, true).unwrap();
    let mut n = 1;
    until("it keeps nothing", || {
        n += 1;
        write(&mut segment, n);
        assert!(elsewhere(&session) >= 2, "the other one comes first");
        session.left(&drained).unwrap().is_empty().then_some(())
    });
    assert_eq!(elsewhere(&session), 2);
    cluster.restart(at);
    until("it tells of it", || session.nodes().unwrap().iter().any(|node| node.draining && node.up).then_some(()));
    for name in ["a", "b", "c"] {
        let made = session.create(name, &options()).unwrap();
        assert!(made.places.iter().all(|place| place.node_name != drained), "{:?}", made.places);
    }
    session.drain(&drained, false).unwrap();
    let mut number = 0;
    until("it gets replicas again", || {
        number += 1;
        let made = session.create(&format!("d{number}"), &options().replicas(3)).unwrap();
        made.places.iter().any(|place| place.node_name == drained).then_some(())
    });
    let events = events(&session);
    assert!(events.iter().any(|why| why.contains("its node is being drained")), "{events:?}");
    assert_eq!(check_state(segment.bytes()), n);
}

/// There is no other node for it: it stays, is good for everything, and the owner says why.
#[test]
fn what_can_go_nowhere_stays() {
    let mut cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options());
    for node in ["n1", "n2"] {
        session.drain(node, true).unwrap();
    }
    until("the owner says why", || {
        let warnings = session.status("s").unwrap().owner?.warnings;
        warnings.iter().any(|why| why.contains("being drained") && why.contains("no other can be made")).then_some(())
    });
    write(&mut segment, 2);
    // One of them dies: what is being drained is what the next owner has.
    cluster.kill(1);
    write(&mut segment, 3);
    assert_eq!(session.left("n2").unwrap().iter().filter(|left| left.has_replica).count(), 1);
    drop((segment, session));
    let session = cluster.session(2);
    let segment = until("it is free", || session.open("s", &OpenOptions::new()).ok());
    assert_eq!(check_state(segment.bytes()), 3);
}

/// Called off while it is under way: what was let go is kept after all, or goes for another reason; nothing is lost.
#[test]
fn draining_is_called_off_at_any_time() {
    let cluster = Cluster::start(4, &[]);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options());
    let mut n = 1;
    for round in 0..8_u64 {
        let drained = session.lookup("s").unwrap().places[0].node_name.clone();
        session.drain(&drained, true).unwrap();
        let until_then = Instant::now() + Duration::from_millis(round * 40);
        while Instant::now() < until_then {
            n += 1;
            write(&mut segment, n);
        }
        session.drain(&drained, false).unwrap();
        n += 1;
        write(&mut segment, n);
        assert!(elsewhere(&session) >= 2, "{:?}", events(&session));
    }
    until("there are two again", || {
        n += 1;
        write(&mut segment, n);
        (elsewhere(&session) == 2).then_some(())
    });
    drop(segment);
    let image = session.load("s", &LoadOptions::new()).unwrap();
    assert_eq!(check_state(image.bytes()), n);
}

/// Of two one is dead, which an owner that rests has not noticed, and the other's node is drained: both are replaced.
#[test]
fn a_dead_replica_keeps_no_living_one_from_being_let_go() {
    let mut cluster = Cluster::start(5, &["--transport", "tcp"]);
    let session = cluster.session(0);
    let segment = opened(&session, &options());
    let places = session.lookup("s").unwrap().places;
    cluster.kill(places[0].node_name[1..].parse().unwrap());
    let drained = &places[1].node_name;
    session.drain(drained, true).unwrap();
    until("nothing is left there", || session.left(drained).unwrap().is_empty().then_some(()));
    until("two others have it", || {
        let in_sync = session.lookup("s").unwrap().record.record.in_sync;
        (in_sync.len() == 2 && in_sync.iter().all(|member| places.iter().all(|place| place.member != *member)))
            .then_some(())
    });
    let warnings = session.status("s").unwrap().owner.unwrap().warnings;
    assert!(warnings.is_empty(), "{warnings:?}");
    drop(segment);
    let image = session.load("s", &LoadOptions::new()).unwrap();
    assert_eq!(check_state(image.bytes()), 1);
}

/// Waits until the replica that is gone is none in sync any more, and there are as many as before.
fn until_replaced(session: &Session, gone: &Place) {
    until("another has it", || {
        let info = session.lookup("s").unwrap();
        (!info.record.record.in_sync.contains(&gone.member) && info.live_elsewhere().count() == 2).then_some(())
    });
}

/// Its owner rests, so that no checkpoint fails for it: after the configured time another node has what it had.
#[test]
fn a_node_that_is_gone_for_good_is_replaced() {
    let mut cluster = Cluster::start(4, &["--node-gone-after", "1s", "--transport", "tcp"]);
    let session = cluster.session(0);
    let segment = opened(&session, &options());
    let gone = session.lookup("s").unwrap().places[0].clone();
    cluster.kill(gone.node_name[1..].parse().unwrap());
    until_replaced(&session, &gone);
    drop(segment);
    let image = session.load("s", &LoadOptions::new()).unwrap();
    assert_eq!(check_state(image.bytes()), 1);
}

/// Its owner rests, and the owner's daemon, which is started again meanwhile, has never seen that node.
#[test]
fn a_node_that_is_gone_for_good_is_replaced_whoever_is_started_again() {
    let mut cluster = Cluster::start(4, &["--node-gone-after", "4s", "--transport", "tcp"]);
    let session = cluster.session(0);
    let segment = opened(&session, &options());
    let gone = session.lookup("s").unwrap().places[0].clone();
    cluster.kill(gone.node_name[1..].parse().unwrap());
    let is_down = |session: &Session| {
        let nodes = session.nodes().ok()?;
        nodes.iter().any(|node| node.name == gone.node_name && !node.up).then_some(())
    };
    until("it is down", || is_down(&session));
    cluster.restart(0);
    until("it is down still", || is_down(&session));
    assert_eq!(session.lookup("s").unwrap().places[0].node_name, gone.node_name);
    until_replaced(&session, &gone);
    session.forget_node(&gone.node_name).unwrap();
    assert!(session.nodes().unwrap().iter().all(|node| node.name != gone.node_name));
    drop(segment);
    let image = session.load("s", &LoadOptions::new()).unwrap();
    assert_eq!(check_state(image.bytes()), 1);
}

/// A replica is filled no faster than its node may, and the owner does not wait for it.
#[test]
fn a_replica_is_filled_no_faster_than_is_allowed() {
    let cluster = Cluster::start(3, &["--repair-bandwidth", "4MiB"]);
    let session = cluster.session(0);
    let make = CreateOptions::new(16 << 20).replicas(1);
    let mut segment = session.open_or_create("s", &make, &OpenOptions::new()).unwrap();
    segment.set_len(16 << 20).unwrap();
    segment.checkpoint().unwrap();
    let began = Instant::now();
    session.set_replicas("s", 2).unwrap();
    let (mut seen, mut checkpoints) = (None, 0_u64);
    until("it is filled", || {
        let status = session.status("s").unwrap();
        seen = status.replicas.iter().find_map(|replica| replica.repair).or(seen);
        segment.write(0, &checkpoints.to_le_bytes()).unwrap();
        checkpoints += 1;
        (segment.checkpoint().unwrap().elsewhere == 2).then_some(())
    });
    // Four pieces of 4 MiB, of which the first is free.
    assert!(began.elapsed() > Duration::from_millis(2900), "{:?}", began.elapsed());
    assert!(checkpoints > 10 && seen.is_some(), "{checkpoints} checkpoints meanwhile, {seen:?}");
}
