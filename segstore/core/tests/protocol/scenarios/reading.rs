//! Rule 8: readers check, and ask.

use segstore_core::id::Stamp;

use super::Step::{Ask, Commit, Cut, Deliver, Directory, GiveUp, HoldExpires, LookAt, Read, ReaderGoesOn};
use super::{World, assert_kept, world};

/// The first reader goes on until it is done.
fn finish(world: &mut World) {
    while world.is_enabled(ReaderGoesOn(0)) {
        world.step(ReaderGoesOn(0));
    }
}

/// Readers of the same epoch that are between any two looks while the owner goes on.
#[test]
fn a_held_image_is_read_while_the_owner_goes_on() {
    for looks in 0..6 {
        let mut world = world(2, 0);
        world.checkpoint(0, 1);
        world.run([Read, Ask(0, 0, 1)]);
        (0..looks).for_each(|_| world.step(ReaderGoesOn(0)));
        world.checkpoint(0, 0);
        world.checkpoint(0, 0);
        finish(&mut world);
        assert_eq!(world.last_read(), Some(Stamp::new(1, 2)), "after {looks} looks");
        world.settle(0);
        assert_eq!(world.acknowledged(), Some(Stamp::new(1, 4)), "the reader is done, and its slot is free");
        assert_kept(&world);
    }
}

/// The same without the owner's help: whoever is overtaken by the owner begins again, and takes nothing for damage.
#[test]
fn what_moved_is_not_damaged() {
    for looks in 0..6 {
        let mut world = world(1, 0);
        world.checkpoint(0, 1);
        world.run([Read, LookAt(0, 0)]);
        for _ in 0..looks {
            if world.is_enabled(ReaderGoesOn(0)) {
                world.step(ReaderGoesOn(0));
            }
        }
        world.checkpoint(0, 0);
        world.checkpoint(0, 1);
        finish(&mut world);
        assert_kept(&world);
    }
}

/// What a reader without the owner's help gets may be pending: epoch 2 stands at replica 0 alone.
#[test]
fn a_pending_image_can_be_asked_for() {
    let mut world = world(2, 0);
    world.step(Commit(0, 0));
    world.land(0, 0);
    world.run([Read, LookAt(0, 0)]);
    finish(&mut world);
    assert_eq!(world.last_read(), Some(Stamp::new(1, 2)));
    assert_kept(&world);
}

/// A reader finds epoch 2 at replica 0, where it is pending. B fences only replica 1 and returns epoch 1. From then on nobody may
/// see epoch 2.
#[test]
fn a_reader_asks_the_directory_again() {
    let mut world = world(2, 0);
    world.step(Commit(0, 0));
    world.land(0, 0);
    world.run([Read, LookAt(0, 0)]);
    world.take_over(1, &[1]);
    assert_eq!(world.taken_over(), Some(Stamp::new(1, 1)));
    finish(&mut world);
    assert_kept(&world);
    assert_eq!(world.last_read(), None);
    // Nor does one that begins now look at a replica that the takeover left out.
    world.step(Read);
    assert!(!world.is_enabled(LookAt(0, 0)) && world.is_enabled(LookAt(0, 1)));
}

/// The hold is over before the reader has looked, and the slot holds an image that nobody has acknowledged.
#[test]
fn a_reader_takes_only_what_is_held() {
    let mut world = world(2, 0);
    world.run([Read, Ask(0, 0, 0), HoldExpires(0)]);
    world.checkpoint(0, 0);
    world.step(Commit(0, 1));
    world.land(0, 0);
    finish(&mut world);
    assert_eq!((world.last_read(), world.acknowledged()), (None, Some(Stamp::new(1, 2))));
    assert_kept(&world);
}

/// The time is up in the middle of the copy.
#[test]
fn a_reader_whose_time_is_up_begins_again() {
    for looks in 1..6 {
        let mut world = world(1, 0);
        world.run([Read, Ask(0, 0, 0)]);
        (0..looks).for_each(|_| world.step(ReaderGoesOn(0)));
        world.step(HoldExpires(0));
        world.checkpoint(0, 0);
        world.step(Commit(0, 1));
        world.run([Deliver(0, 0); 3]);
        finish(&mut world);
        assert_kept(&world);
    }
}

/// A owns nothing any more and does not know it. It holds what it knows to be acknowledged, and that is old.
#[test]
fn only_the_owner_is_asked() {
    let mut world = world(2, 0);
    world.take_over(1, &[0, 1]);
    world.settle(1);
    world.checkpoint(1, 0);
    world.step(Read);
    if world.is_enabled(Ask(0, 0, 0)) {
        world.step(Ask(0, 0, 0)); // The world's readers do that only without the rule.
        finish(&mut world);
    }
    assert_kept(&world);
    world.run([Read, Ask(0, 1, 0)]);
    finish(&mut world);
    assert_eq!(world.last_read(), Some(Stamp::new(2, 2)));
}

/// A member is removed while a reader copies what it holds.
#[test]
fn a_replica_that_is_removed_is_not_read_on() {
    let mut world = world(2, 0);
    world.run([Read, Ask(0, 0, 1), ReaderGoesOn(0), Commit(0, 0)]);
    world.land(0, 0);
    world.run([Cut(0, 1), Directory(0)]);
    assert_eq!(world.in_sync(), [0]);
    finish(&mut world);
    assert_eq!(world.last_read(), None);
    assert!(!world.is_enabled(GiveUp(0)), "the attempt is acknowledged");
    assert_kept(&world);
}
