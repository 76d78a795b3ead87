//! A healthy replica is let go: those who stay must do without it, and it counts again if they do not.

use segstore_core::id::Stamp;

use super::Step::{
    Commit, Complete, Cut, Deliver, Directory, Dismiss, LateSwap, Look, LookLost, LoseMemory, NotTaken, Recall,
    ReplyLate,
};
use super::{assert_kept, owner, world};

/// Nothing is pushed, so nobody has noticed that the one who is to stay has lost everything.
#[test]
fn who_stays_shows_itself_before_another_is_let_go() {
    let mut world = world(2, 0);
    world.run([LoseMemory(1), Dismiss(0, 0)]);
    assert!(!world.is_enabled(Directory(0)), "nothing is changed on the strength of a link that stands idle");
    world.step(Look(0, 1));
    assert!(!owner(&world, 0).is_parting(world.member(0)), "it is called off");
    assert_eq!(world.in_sync(), [0, 1]);
    assert_kept(&world);
}

#[test]
fn a_look_that_is_lost_shows_nothing() {
    let mut world = world(2, 0);
    world.run([Dismiss(0, 0), LookLost(0, 1)]);
    assert!(!world.is_enabled(Directory(0)) && !owner(&world, 0).is_parting(world.member(0)));
}

/// The directory may take its time: the one who stays has shown itself, and is gone when the removal is confirmed.
#[test]
fn who_was_let_go_comes_back_if_the_other_is_gone_by_then() {
    let mut world = world(2, 0);
    world.run([Dismiss(0, 0), Look(0, 1), LoseMemory(1), Directory(0)]);
    assert_eq!(world.in_sync(), [1]);
    assert_kept(&world);
    world.run([Look(0, 1), Directory(0)]);
    assert_eq!(world.in_sync(), [0, 1], "it still holds what is acknowledged");
    world.step(Commit(0, 0));
    world.land(0, 0);
    world.run([Complete(0, 1), Directory(0)]);
    assert_eq!((world.in_sync(), world.acknowledged()), (vec![0], Some(Stamp::new(1, 2))));
    world.take_over(1, &[0]);
    assert_kept(&world);
}

/// The one who stays is lost while the removal is under way: that must not land any more.
#[test]
fn a_removal_whose_reason_is_gone_does_not_land() {
    let mut world = world(2, 0);
    world.run([Dismiss(0, 0), Look(0, 1), ReplyLate(0), Commit(0, 0), Cut(0, 1)]);
    world.land(0, 0);
    // The owner reads that nothing has changed, and changes the version.
    world.run([Directory(0), Directory(0), LateSwap(0)]);
    assert_eq!((world.in_sync(), world.acknowledged()), (vec![0], Some(Stamp::new(1, 2))));
    world.take_over(1, &[0]);
    assert_kept(&world);
}

/// Where checkpoints are made, those show who is there; one that was begun before the removal was confirmed does not.
#[test]
fn checkpoints_let_it_go() {
    let mut world = world(2, 0);
    world.run([Commit(0, 0), Dismiss(0, 0)]);
    world.land(0, 1);
    world.step(Directory(0));
    assert_eq!(world.in_sync(), [1]);
    assert_eq!(world.acknowledged(), Some(Stamp::new(1, 1)), "a push to the other one still reads working memory");
    world.land(0, 0);
    assert_eq!(world.acknowledged(), Some(Stamp::new(1, 2)));
    assert!(owner(&world, 0).follows(world.member(0)));
    let mut at_rest = world.clone();
    at_rest.step(Look(0, 1));
    world.step(Commit(0, 1));
    world.land(0, 1);
    for mut world in [at_rest, world] {
        assert!(!owner(&world, 0).follows(world.member(0)));
        assert_eq!(owner(&world, 0).attempt(), None);
        world.take_over(1, &[1]);
        assert_kept(&world);
    }
}

/// The directory does not take the removal, for long; its reason is gone when it takes something again.
#[test]
fn a_removal_is_decided_anew_for_each_time_it_is_tried() {
    let mut world = world(2, 0);
    world.run([Dismiss(0, 0), Look(0, 1), Commit(0, 0), Cut(0, 1)]);
    world.land(0, 0);
    world.run([NotTaken(0), Directory(0)]);
    assert_eq!((world.in_sync(), world.acknowledged()), (vec![0], Some(Stamp::new(1, 2))));
    assert_kept(&world);
}

/// It may be kept after all at any time.
#[test]
fn who_is_recalled_counts_again() {
    let mut before = world(2, 0);
    before.run([Dismiss(0, 0), Look(0, 1), Recall(0, 0), Directory(0)]);
    assert_eq!(before.in_sync(), [1], "the removal was on its way");
    before.step(Directory(0));
    assert_eq!(before.in_sync(), [0, 1]);
    let mut after = world(2, 0);
    after.run([Dismiss(0, 0), Look(0, 1), Directory(0), Recall(0, 0), Directory(0)]);
    assert_eq!(after.in_sync(), [0, 1]);
    for mut world in [before, after] {
        world.checkpoint(0, 0);
        world.take_over(1, &[0]);
        assert_eq!(world.taken_over(), Some(Stamp::new(1, 2)));
        assert_kept(&world);
    }
}

#[test]
fn nobody_is_let_go_if_too_few_stay() {
    let mut world = world(1, 0);
    world.step(Dismiss(0, 0));
    assert!(!owner(&world, 0).is_parting(world.member(0)));
    let mut world = super::world(2, 0);
    world.run([Commit(0, 0), Cut(0, 1), Dismiss(0, 0)]);
    assert!(!owner(&world, 0).is_parting(world.member(0)), "the other one is out of reach");
    world.step(Deliver(0, 0));
}
