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
    write_state(segment, n);
    let began = Instant::now();
    let pending = segment.checkpoint();
    let Err(Error::Pending { waiting_for, .. }) = pending else { panic!("{pending:?}") };
    assert!(began.elapsed() >= TIME && waiting_for.contains("node n"), "{waiting_for}");
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
