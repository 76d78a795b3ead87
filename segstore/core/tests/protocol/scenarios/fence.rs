//! Rule 7: replicas remember.

use segstore_core::id::Stamp;

use super::Step::{Commit, Complete, Connect, Cut, Deliver, DeliverLate, GiveUp, Restart};
use super::{assert_kept, owner, world};

/// A connects again after the fence.
#[test]
fn lower_terms_are_refused() {
    let mut world = world(1, 0);
    world.step(Commit(0, 0));
    world.take_over(1, &[0]);
    world.run([Complete(0, 0), GiveUp(0), Connect(0, 0)]);
    assert!(owner(&world, 0).end().is_some(), "the replica says so, with the directory out of reach");
    assert_kept(&world);
}

/// A connects again after the fence, and after the replica's daemon was restarted.
#[test]
fn terms_are_remembered_over_restarts() {
    let mut world = world(1, 0);
    world.step(Commit(0, 0));
    world.take_over(1, &[0]);
    world.run([Complete(0, 0), GiveUp(0), Restart(0), Connect(0, 0)]);
    assert!(owner(&world, 0).end().is_some(), "the replica forgot the fence");
    assert_kept(&world);
}

/// A write of a broken endpoint lands after the owner has connected again, into the slot that the next attempt fills.
#[test]
fn opening_an_endpoint_revokes_the_earlier_one() {
    let mut world = world(1, 0);
    world.checkpoint(0, 1);
    world.run([Commit(0, 0), Deliver(0, 0), Deliver(0, 0), Cut(0, 0), GiveUp(0), Connect(0, 0)]);
    world.settle(0);
    world.checkpoint(0, 0);
    assert_eq!(world.acknowledged(), Some(Stamp::new(1, 4)));
    while world.is_enabled(DeliverLate(0, 0)) {
        world.step(DeliverLate(0, 0));
    }
    world.take_over(1, &[0]);
    assert_eq!(world.taken_over(), Some(Stamp::new(1, 4)));
    assert_kept(&world);
}
