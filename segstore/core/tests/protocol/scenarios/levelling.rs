//! A released segment's replicas bring their stale slots up to date, until somebody owns it again.

use segstore_core::id::Stamp;
use segstore_core::layout::Entry;

use super::super::world::BLOCK;
use super::Step::{Commit, Connect, Deliver, LevelArrives, Release, Restart, TakeOver, WorkGoesOn};
use super::{Stage, World, assert_kept, finish_work, world};

/// A has released the segment, of which two checkpoints are acknowledged, and its only replica has begun to level its slots.
fn levelling() -> World {
    let mut world = world(1, 0);
    world.checkpoint(0, 1);
    world.run([Release(0), LevelArrives(0)]);
    world
}

/// B takes over while the slots are levelled, and its first checkpoint goes where the level would go on.
#[test]
fn a_level_cannot_outlive_a_fence() {
    for (before, delivered) in (0..6).flat_map(|before| (0..10).map(move |delivered| (before, delivered))) {
        let mut world = levelling();
        for _ in 0..before {
            world.step(WorkGoesOn(0, 0));
        }
        world.take_over(1, &[0]);
        world.run([Connect(1, 0), Commit(1, 0)]);
        for _ in 0..delivered {
            if world.is_enabled(Deliver(1, 0)) {
                world.step(Deliver(1, 0));
            }
        }
        finish_work(&mut world, 0);
        world.settle(1);
        assert_eq!(world.acknowledged(), Some(Stamp::new(2, 3)));
        world.take_over(2, &[0]);
        assert_eq!(world.taken_over(), Some(Stamp::new(2, 3)), "after {before} steps of the level");
        assert_kept(&world);
    }
}

/// The request to level arrives when B has claimed the segment, or has it.
#[test]
fn a_late_level_spoils_nothing() {
    let mut world = world(1, 0);
    world.checkpoint(0, 1);
    world.run([Release(0), TakeOver(1)]);
    let mut owned = world.clone();
    world.run([LevelArrives(0), WorkGoesOn(0, 0), WorkGoesOn(0, 0)]);
    owned.finish_takeover(1, &[0]);
    owned.step(LevelArrives(0));

    assert!(!owned.is_enabled(WorkGoesOn(0, 0)), "its term is over");
    for mut world in [world, owned] {
        world.finish_takeover(1, &[0]);
        world.settle(1);
        world.checkpoint(1, 0);
        world.take_over(2, &[0]);
        assert_eq!(world.taken_over(), Some(Stamp::new(2, 3)));
        assert_kept(&world);
    }
}

/// The daemon is killed after every step.
#[test]
fn a_level_that_is_cut_off_leaves_the_image() {
    for steps in 0..5 {
        let mut world = levelling();
        world.run(std::iter::repeat_n(WorkGoesOn(0, 0), steps));
        world.step(Restart(0));
        assert_eq!(world.lie(), None);
        world.take_over(1, &[0]);
        assert_eq!(world.taken_over(), Some(Stamp::new(1, 2)), "after {steps} steps");
        world.settle(1);
        world.checkpoint(1, 0);
        assert_kept(&world);
    }
}

/// The next owner sends the block that it changes: without the level, the stale slot lacks another one, too.
#[test]
fn a_levelled_slot_lacks_nothing() {
    let mut world = levelling();
    let mut untouched = world.clone();
    finish_work(&mut world, 0);
    assert_eq!(world.lie(), None);
    let bytes_of_a_checkpoint = |world: &mut World| {
        world.take_over(1, &[0]);
        world.settle(1);
        world.step(Commit(1, 0));
        world.in_flight(1, 0).iter().sum::<usize>()
    };
    let row = BLOCK + Entry::BYTES as usize;
    assert_eq!(bytes_of_a_checkpoint(&mut world) + row, bytes_of_a_checkpoint(&mut untouched));
}

/// The newest slot's head is damaged. It may be whole all the same, or hide what was acknowledged: the older slot is not copied
/// over it.
#[test]
fn a_slot_that_cannot_be_read_is_not_levelled() {
    let newest = Stamp::new(1, 2);
    let after_damage = |at: usize| {
        let mut world = world(1, 0);
        world.checkpoint(0, 1);
        world.damage_head(0, newest, at);
        world.run([Release(0), LevelArrives(0)]);
        finish_work(&mut world, 0);
        world.take_over(1, &[0]);
        world
    };
    let world = after_damage(8);
    assert_eq!(world.taken_over(), Some(newest), "only its mark was damaged");
    assert_kept(&world);
    let world = after_damage(80);
    let Stage::Failed(why) = world.process(1) else { panic!("{:?} was loaded", world.taken_over()) };
    assert!(why.contains("may have been acknowledged"), "{why}");
}
