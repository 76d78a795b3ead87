//! Rules 1 and 16: a takeover reads what it fenced, seals what it read, and trusts no old directory.

use segstore_core::id::Stamp;

use super::Step::{Commit, Directory, Fence, FenceLost, Kill, Load, TakeOver};
use super::{ANY, Config, Stage, World, assert_kept, owner, world};

/// A completes epoch 2 at replica 0 only. B fences only replica 1 and returns epoch 1. C must not find epoch 2.
#[test]
fn seal_leaves_out_what_was_not_fenced() {
    let mut world = world(2, 0);
    world.step(Commit(0, 0));
    world.land(0, 0);
    world.take_over(1, &[1]);
    assert_eq!(world.taken_over(), Some(Stamp::new(1, 1)));
    assert_eq!(world.in_sync(), [1]);
    world.take_over(2, &[0]);
    assert!(matches!(world.process(2), Stage::Failed(_)), "replica 1 is out of reach, and replica 0 is no member");
    assert_kept(&world);
}

/// The same, read before the seal: B must read only what it fenced.
#[test]
fn only_fenced_members_are_read() {
    let mut world = world(2, 0);
    world.run([TakeOver(1), Directory(1), Directory(1), Fence(1, 1)]);
    world.step(Commit(0, 0));
    world.land(0, 0);
    world.run([FenceLost(1, 0), Load(1)]);
    assert_eq!(world.taken_over(), None, "the seal must come first");
    world.settle(1);
    assert_eq!(world.taken_over(), Some(Stamp::new(1, 1)));
    assert_eq!(world.in_sync(), [1]);
    assert_kept(&world);
}

/// B is overtaken by C while it loads, and C goes on. B must not return what is old by then.
#[test]
fn a_takeover_that_was_overtaken_does_not_return() {
    let mut world = world(2, 0);
    world.run([TakeOver(1), Directory(1), Directory(1), Fence(1, 0), Fence(1, 1)]);
    world.take_over(2, &[0, 1]);
    world.settle(2);
    world.checkpoint(2, 0);
    assert_eq!(world.acknowledged(), Some(Stamp::new(3, 2)));
    world.settle(1);
    assert!(matches!(world.process(1), Stage::Failed(_)), "{:?}", world.process(1));
    assert_kept(&world);
}

#[test]
fn a_directory_from_an_old_copy_is_refused() {
    let mut world = world(2, 0);
    let copy = world.copy_of_directory();
    world.take_over(1, &[0]);
    world.settle(1);
    world.checkpoint(1, 0);
    assert_eq!(world.acknowledged(), Some(Stamp::new(2, 2)));
    world.restore_directory(copy);
    world.take_over(2, &[0, 1]);
    let Stage::Failed(why) = world.process(2) else { panic!("the takeover went on with an old directory") };
    assert!(why.contains("the directory went back"), "{why}");
    // Nor is the next one let pass because the first has raised the directory's term.
    world.take_over(3, &[0, 1]);
    let Stage::Failed(why) = world.process(3) else { panic!("the second takeover went on with an old directory") };
    assert!(why.contains("the directory went back"), "{why}");
}

/// Process 3 is a caretaker.
fn with_caretaker() -> World {
    let world = Config { processes: 4, caretaker: true, faults: ANY, ..Config::small() };
    World::new(&world)
}

/// C, a caretaker, sees that nobody holds the name; then B holds it, and reads the record before C has claimed it. B must not be kept out.
#[test]
fn whoever_holds_the_name_claims_over_a_caretaker() {
    let mut world = with_caretaker();
    world.run([Kill(0), TakeOver(3), Directory(3), TakeOver(1), Directory(1), Directory(3)]);
    world.finish_takeover(1, &[0, 1]);
    assert_eq!(owner(&world, 1).ownership().term.0, 3, "after the caretaker's");
    world.settle(3);
    assert!(matches!(world.process(3), Stage::Failed(_)), "{:?}", world.process(3));
    world.settle(1);
    world.checkpoint(1, 0);
    assert_eq!(world.acknowledged(), Some(Stamp::new(3, 2)));
    assert_kept(&world);
}

/// The name is held before the caretaker has looked: also by one whose claim is under way.
#[test]
fn a_caretaker_claims_nothing_that_somebody_holds() {
    let mut world = with_caretaker();
    world.run([TakeOver(3), Directory(3)]);
    let Stage::Failed(why) = world.process(3) else { panic!("{:?}", world.process(3)) };
    assert!(why.contains("holds its name"), "{why}");
    let mut world = with_caretaker();
    world.run([Kill(0), TakeOver(1), Directory(1), TakeOver(3), Directory(3)]);
    assert!(matches!(world.process(3), Stage::Failed(_)), "{:?}", world.process(3));
    world.finish_takeover(1, &[0, 1]);
    assert_eq!(owner(&world, 1).ownership().term.0, 2);
    assert_kept(&world);
}
