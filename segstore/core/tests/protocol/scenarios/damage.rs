//! Rule 13: bad blocks under a good header.

use segstore_core::id::Stamp;

use super::Step::{Commit, Directory, Fence, Load, TakeOver};
use super::{Stage, assert_kept, world};

#[test]
fn an_older_image_is_not_given_for_a_damaged_one() {
    let mut world = world(2, 0);
    world.checkpoint(0, 0);
    world.damage(0, Stamp::new(1, 2), 0);
    world.damage(1, Stamp::new(1, 2), 1);
    world.damage(0, Stamp::new(1, 2), 1);
    world.damage(1, Stamp::new(1, 2), 0);
    world.take_over(1, &[0, 1]);
    let Stage::Failed(why) = world.process(1) else { panic!("epoch 1 was given for epoch 2, which was acknowledged") };
    assert!(why.contains("no good copy of epoch 2 of term 1"), "{why}");
    assert!(why.contains(&world.member(0).to_string()) && why.contains(&world.member(1).to_string()), "{why}");
}

#[test]
fn another_replica_is_asked_for_a_damaged_one() {
    let mut world = world(2, 0);
    world.checkpoint(0, 0);
    world.damage(0, Stamp::new(1, 2), 0);
    world.take_over(1, &[0, 1]);
    assert_eq!(world.taken_over(), Some(Stamp::new(1, 2)));
    assert_kept(&world);
}

/// One bit in a slot's head must not make an acknowledged image look like a push that never ended.
#[test]
fn a_damaged_head_does_not_bring_back_an_older_image() {
    for at in [20, 64 + 20] {
        for reachable in [&[0, 1][..], &[0]] {
            let mut world = world(2, 0);
            world.checkpoint(0, 0);
            world.damage_head(0, Stamp::new(1, 2), at);
            world.damage_head(1, Stamp::new(1, 2), at);
            world.take_over(1, reachable);
            let loaded = world.taken_over();
            assert!(loaded.is_none() || loaded == Some(Stamp::new(1, 2)), "byte {at}: {loaded:?}");
            if let Stage::Failed(why) = world.process(1) {
                assert!(why.contains("may have been acknowledged"), "{why}");
            }
        }
    }
}

/// Replica 0's head is damaged, replica 1 is whole: that is what there are replicas for.
#[test]
fn a_damaged_head_is_passed_over_where_another_is_whole() {
    for at in [20, 64 + 20] {
        let mut world = world(2, 0);
        world.checkpoint(0, 0);
        world.damage_head(0, Stamp::new(1, 2), at);
        world.take_over(1, &[0, 1]);
        assert_eq!(world.taken_over(), Some(Stamp::new(1, 2)), "byte {at}");
        assert_kept(&world);
    }
}

/// The damaged copy must not become the base of later checkpoints: whoever is damaged is in sync no more.
#[test]
fn damage_that_was_seen_is_not_carried_on() {
    let mut world = world(2, 0);
    world.checkpoint(0, 0);
    world.damage(0, Stamp::new(1, 2), 0);
    world.take_over(1, &[0, 1]);
    assert_eq!(world.in_sync(), [1]);
    world.settle(1);
    world.checkpoint(1, 1);
    world.checkpoint(1, 1);
    world.take_over(2, &[0, 1]);
    assert_eq!(world.taken_over(), Some(Stamp::new(2, 4)));
    assert_kept(&world);
}

/// C overwrites what B is loading: B was overtaken, and nothing is damaged.
#[test]
fn an_overtaken_claimant_says_so() {
    let mut world = world(2, 0);
    world.run([TakeOver(1), Directory(1), Directory(1), Fence(1, 0), Fence(1, 1)]);
    world.take_over(2, &[0, 1]);
    world.settle(2);
    world.checkpoint(2, 0);
    world.checkpoint(2, 0);
    world.step(Load(1));
    world.settle(1);
    let Stage::Failed(why) = world.process(1) else { panic!("{:?}", world.process(1)) };
    assert!(why.contains("took the segment over"), "{why}");
    assert_kept(&world);
}

/// Epoch 2 stands at replica 0 alone, damaged. Replica 1 was in sync and never held it: it was not acknowledged.
#[test]
fn a_damaged_image_that_was_never_acknowledged_is_passed_over() {
    let mut world = world(2, 0);
    world.step(Commit(0, 0));
    world.land(0, 0);
    world.damage(0, Stamp::new(1, 2), 0);
    world.take_over(1, &[0, 1]);
    assert_eq!(world.taken_over(), Some(Stamp::new(1, 1)));
    assert_eq!(world.in_sync(), [1], "replica 0 holds something newer, and damaged");
    assert_kept(&world);
}
