//! Daemons that hang: they answer nobody, and break no connection.

use std::time::{Duration, Instant};

use segstore::{BelowMinimum, CreateOptions, Error, LoadOptions, OpenOptions, Segment, Session};

use super::harness::{Cluster, until};
use super::roles::{STATE, check_state, options, write_state};

const OVER_TCP: &[&str] = &["--transport", "tcp"];
/// How long a checkpoint may take.
const TIME: Duration = Duration::from_secs(4);

/// The state 1 in every replica.
fn opened(session: &Session, make: &CreateOptions) -> Segment {
    let how = OpenOptions::new().timeout(TIME).patience(Duration::from_millis(100));
    let mut segment = session.open_or_create("s", make, &how).unwrap();
    segment.set_len(STATE).unwrap();
    write_state(&mut segment, 1);
    assert_eq!(segment.checkpoint().unwrap().elsewhere, wanted(session));
    segment
}

fn wanted(session: &Session) -> usize {
    session.lookup("s").unwrap().keeping.replicas.try_into().unwrap()
}

fn removals(session: &Session) -> usize {
    session.events(Some("s")).unwrap().iter().filter(|event| event.what == "removed").count()
}

/// What is written while replicas hang is not acknowledged; in its time the call says so.
fn is_pending(segment: &mut Segment, n: u64) {
    is_pending_for(segment, n, "node n");
}

fn is_pending_for(segment: &mut Segment, n: u64, what: &str) {
    write_state(segment, n);
    let began = Instant::now();
    let pending = segment.checkpoint();
    let Err(Error::Pending { waiting_for, .. }) = pending else { panic!("{pending:?}") };
    assert!(began.elapsed() >= TIME && waiting_for.contains(what), "{waiting_for}");
}

/// Whoever hung goes on: so do checkpoints, every replica is in sync in the end, and what was acknowledged last is found in each.
fn all_is_well_again(cluster: &Cluster, segment: &mut Segment, hung: &[usize], n: u64) {
    let session = cluster.session(0);
    hung.iter().for_each(|&node| cluster.resume(node));
    write_state(segment, n);
    segment.checkpoint().unwrap();
    until("every replica is in sync", || (segment.checkpoint().unwrap().elsewhere == wanted(&session)).then_some(()));
    for &node in hung {
        let image = cluster.session(node).load("s", &LoadOptions::new()).unwrap();
        assert_eq!(check_state(image.bytes()), n);
    }
}

#[test]
fn a_replica_that_hangs_is_left_out() {
    let cluster = Cluster::start(3, OVER_TCP);
    let mut segment = opened(&cluster.session(0), &options());
    cluster.pause(2);
    write_state(&mut segment, 2);
    assert_eq!(segment.checkpoint().unwrap().elsewhere, 1);
    all_is_well_again(&cluster, &mut segment, &[2], 3);
}

/// One of three is left, and the policy says to go on.
#[test]
fn two_replicas_that_hang_are_left_out() {
    let cluster = Cluster::start(4, OVER_TCP);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options().replicas(3));
    [2, 3].into_iter().for_each(|node| cluster.pause(node));
    write_state(&mut segment, 2);
    assert_eq!(segment.checkpoint().unwrap().elsewhere, 1);
    assert_eq!(removals(&session), 2);
    all_is_well_again(&cluster, &mut segment, &[2, 3], 3);
}

/// One of three is left, and the policy asks for two: who is missed first is given up, and then nobody more. Nothing could be acknowledged
/// without it, and a link that comes back is cheaper than a copy.
#[test]
fn below_the_minimum_replicas_that_hang_are_waited_for() {
    let cluster = Cluster::start(4, OVER_TCP);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options().replicas(3).minimum(2, BelowMinimum::Stop));
    [2, 3].into_iter().for_each(|node| cluster.pause(node));
    for n in 2..4 {
        is_pending(&mut segment, n);
        assert!(removals(&session) <= 1);
    }
    all_is_well_again(&cluster, &mut segment, &[2, 3], 4);
}

/// None is left. To go on without any would be to acknowledge what nobody has, whatever the policy says.
#[test]
fn the_last_replica_is_waited_for() {
    let cluster = Cluster::start(3, OVER_TCP);
    let mut segment = opened(&cluster.session(0), &options());
    [1, 2].into_iter().for_each(|node| cluster.pause(node));
    is_pending(&mut segment, 2);
    is_pending(&mut segment, 3);
    all_is_well_again(&cluster, &mut segment, &[1, 2], 4);
}

/// Nothing of it is on the way of a checkpoint, so its owner goes on, far beyond its lease. Back, it holds the name again.
#[test]
fn an_owner_whose_own_daemon_hangs_goes_on() {
    let cluster = Cluster::start(3, OVER_TCP);
    let session = cluster.session(2);
    let make = options().require("node!=n2".parse().unwrap());
    let mut segment = opened(&session, &make);
    let (term, mut n) = (segment.term(), 1);
    cluster.pause(2);
    let other = cluster.session(0);
    let write = |segment: &mut Segment, n: u64| {
        write_state(segment, n);
        assert_eq!(segment.checkpoint().unwrap().elsewhere, 2);
    };
    until("its lease is over", || {
        n += 1;
        write(&mut segment, n);
        other.lookup("s").unwrap().holder.is_none().then_some(())
    });
    for _ in 0..50 {
        n += 1;
        write(&mut segment, n);
    }
    cluster.resume(2);
    until("it holds the name again", || other.lookup("s").unwrap().holder);
    write(&mut segment, n + 1);
    assert_eq!((segment.term(), other.lookup("s").unwrap().record.record.term), (term, term));
}

/// Somebody stands by elsewhere, who has the segment when its lease is over. Nothing is acknowledged after that, and its owner hears of it when
/// its daemon is back: by that one's way alone it can ask.
#[test]
fn an_owner_whose_own_daemon_hangs_is_replaced_where_somebody_stands_by() {
    let cluster = Cluster::start(3, OVER_TCP);
    let make = options().require("node!=n2".parse().unwrap());
    let mut segment = opened(&cluster.session(2), &make);
    cluster.pause(2);
    let standby = OpenOptions::new().stand_by(None);
    let mut taken = cluster.session(1).open("s", &standby).unwrap();
    assert_eq!(check_state(taken.bytes()), 1);
    write_state(&mut taken, 2);
    taken.checkpoint().unwrap();
    is_pending_for(&mut segment, 3, "no answer by way of this node's daemon");
    cluster.resume(2);
    let fenced = until("it hears of it", || match segment.checkpoint() {
        Err(Error::Pending { .. }) => None,
        other => Some(other),
    });
    assert!(matches!(&fenced, Err(Error::Fenced { term, .. }) if *term == taken.term()), "{fenced:?}");
    assert_eq!(check_state(cluster.session(0).load("s", &LoadOptions::new()).unwrap().bytes()), 2);
}

/// Over shared memory nothing of a daemon is on the way of a checkpoint.
#[test]
fn daemons_that_hang_are_not_noticed_over_shm() {
    let cluster = Cluster::start(3, &["--transport", "shm"]);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options());
    [1, 2].into_iter().for_each(|node| cluster.pause(node));
    for n in 2..100 {
        write_state(&mut segment, n);
        assert_eq!(segment.checkpoint().unwrap().elsewhere, 2);
    }
    all_is_well_again(&cluster, &mut segment, &[1, 2], 100);
    assert_eq!(removals(&session), 0);
}

/// A replica that was missed, and has been replaced, is no matter of concern any more.
#[test]
fn nothing_is_said_of_who_was_replaced() {
    let cluster = Cluster::start(3, OVER_TCP);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options());
    let warnings = || session.status("s").unwrap().owner.unwrap().warnings;
    for n in 2..4 {
        cluster.pause(2);
        write_state(&mut segment, n);
        assert_eq!(segment.checkpoint().unwrap().elsewhere, 1);
        assert_eq!(warnings().iter().filter(|warning| warning.contains("node n2")).count(), 1);
        all_is_well_again(&cluster, &mut segment, &[2], n);
        assert_eq!(warnings(), [""; 0]);
    }
}
