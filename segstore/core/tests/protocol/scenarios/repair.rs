//! Rule 9: a replica is filled while the owner goes on.

use segstore_core::id::Stamp;

use super::Step::{
    Commit, Connect, CopiesAgain, Cut, Deliver, Directory, Repair, RepairArrives, Repaired, TakeOver, WorkGoesOn,
};
use super::{World, assert_kept, finish_work, owner, with_repaired_spare, world};

/// B has a replica repaired between its claim and its fence, while A still pushes: the copy picks up a block that is aborted.
#[test]
fn a_repair_starts_after_the_takeover() {
    let mut world = world(1, 1);
    world.checkpoint(0, 1);
    world.run([TakeOver(1), Directory(1), Directory(1)]);
    if !world.is_enabled(Repair(1, 1)) {
        return; // There is nothing to start one from: that is the rule.
    }
    world.run([Repair(1, 1), RepairArrives(0), WorkGoesOn(1, 0)]);
    world.step(Commit(0, 0));
    world.land(0, 0);
    world.step(Commit(0, 1));
    world.run([Deliver(0, 0); 3]);
    finish_work(&mut world, 1);
    world.finish_takeover(1, &[0]);
    world.settle(1);
    world.checkpoint(1, 0);
    world.settle(1);
    world.take_over(2, &[1]);
    assert_kept(&world);
}

/// The owner's next checkpoints, of which no repair knows: nothing else goes on meanwhile.
fn push_alone(world: &mut World, blocks: [u32; 3]) {
    for block in blocks {
        world.step(Commit(0, block));
        world.land(0, 0);
    }
}

/// A replica is repaired while the owner goes on; whatever it then holds in sync can be loaded from it alone.
#[test]
fn a_fuzzy_copy_becomes_a_checkpoint() {
    for steps_before in 0..11 {
        let mut world = world(1, 1);
        world.checkpoint(0, 1);
        world.run([Repair(0, 1), RepairArrives(0)]);
        for _ in 0..steps_before {
            if world.is_enabled(WorkGoesOn(1, 0)) {
                world.step(WorkGoesOn(1, 0));
            }
        }
        push_alone(&mut world, [0, 1, 0]);
        finish_work(&mut world, 1);
        if world.is_enabled(Repaired(0)) {
            world.run([Repaired(0), Connect(0, 1)]);
            for _ in 0..3 {
                world.checkpoint(0, 0);
                let mut rival = world.clone();
                if world.in_sync() == [0, 1] {
                    rival.take_over(1, &[1]);
                    assert_eq!(rival.taken_over(), rival.acknowledged(), "after {steps_before} steps");
                }
                assert_kept(&rival);
            }
            assert_eq!(world.in_sync(), [0, 1], "after {steps_before} steps");
        }
    }
}

/// What was changed during the first copy is copied by a second one; of what is reported then, each slot lacks what came later alone.
#[test]
fn what_changes_during_a_copy_is_copied_as_well() {
    for steps_before in 1..8 {
        let mut world = world(1, 1);
        world.checkpoint(0, 1);
        world.run([Repair(0, 1), RepairArrives(0)]);
        world.run(std::iter::repeat_n(WorkGoesOn(1, 0), steps_before));
        push_alone(&mut world, [1, 0, 0]);
        while !world.is_enabled(CopiesAgain(1, 0)) {
            world.step(WorkGoesOn(1, 0));
        }
        world.step(CopiesAgain(1, 0));
        finish_work(&mut world, 1);
        world.run([Repaired(0), Connect(0, 1)]);
        for block in [0, 1] {
            world.checkpoint(0, block);
            world.settle(0);
            let mut rival = world.clone();
            rival.take_over(1, &[1]);
            assert_eq!((rival.taken_over(), world.in_sync()), (rival.acknowledged(), vec![0, 1]), "{steps_before}");
            assert_kept(&rival);
        }
    }
}

/// The same, of a segment whose owner does nothing meanwhile: it needs no checkpoint to be safe again.
#[test]
fn an_idle_segment_is_repaired() {
    let mut world = with_repaired_spare();
    world.step(Directory(0));
    assert_eq!(world.in_sync(), [0, 1]);
    // A push that stops in the middle leaves the other slot: it must be whole, too.
    world.checkpoint(0, 0);
    world.step(Commit(0, 1));
    world.run([Deliver(0, 1); 2]);
    world.take_over(1, &[1]);
    assert_eq!(world.taken_over(), Some(Stamp::new(1, 2)));
    assert_kept(&world);
}

/// Replica 1 is left out, and comes back with its memory: a new one is made out of it, into which only the one block is copied that has
/// changed.
#[test]
fn a_replica_that_was_left_out_is_filled_by_what_has_changed() {
    // Mark, two entries, two blocks, header, mark: all but the last.
    for pushed in 0..5 {
        let mut world = world(2, 0);
        [1, 0, 1].into_iter().for_each(|block| world.checkpoint(0, block));
        // Its last push is cut off.
        world.step(Commit(0, 0));
        world.run([Deliver(0, 1)].repeat(pushed));
        world.land(0, 0);
        world.run([Cut(0, 1), Directory(0)]);
        assert_eq!((world.in_sync(), world.acknowledged()), (vec![0], Some(Stamp::new(1, 5))));
        world.run([Repair(0, 1), RepairArrives(0)]);
        let mut steps = 0;
        while world.is_enabled(WorkGoesOn(1, 0)) {
            world.step(WorkGoesOn(1, 0));
            steps += 1;
        }
        assert_eq!(steps, 8, "head, table, one block with its entry, store, head again, close, end");
        world.run([Repaired(0), Connect(0, 1), Directory(0)]);
        assert_eq!(world.in_sync(), [0, 1]);
        for block in [1, 0] {
            world.checkpoint(0, block);
            let mut rival = world.clone();
            rival.take_over(1, &[1]);
            assert_eq!(rival.taken_over(), rival.acknowledged());
            assert_kept(&rival);
        }
    }
}

/// A's last push has come to replica 1 alone, and B, who did not find it, has a new one made out of that. Nothing of the push is kept.
#[test]
fn what_a_takeover_did_not_find_is_not_kept_by_a_repair() {
    let mut world = world(2, 0);
    [1, 0].into_iter().for_each(|block| world.checkpoint(0, block));
    world.step(Commit(0, 1));
    world.land(0, 1);
    world.take_over(1, &[0]);
    assert_eq!((world.taken_over(), world.in_sync()), (Some(Stamp::new(1, 3)), vec![0]));
    world.run([Connect(1, 0), Repair(1, 1), RepairArrives(0)]);
    finish_work(&mut world, 1);
    world.run([Repaired(1), Connect(1, 1)]);
    world.checkpoint(1, 0);
    world.settle(1);
    assert_eq!(world.in_sync(), [0, 1]);
    world.take_over(2, &[1]);
    assert_eq!(world.taken_over(), Some(Stamp::new(2, 4)));
    assert_kept(&world);
}

/// A reaches its only replica no more, and nothing can be copied from anywhere: it pushes everything to a fresh one, which takes the place of
/// the other. Until the directory has said so, nothing is acknowledged.
#[test]
fn what_an_owner_has_is_pushed_to_a_fresh_replica() {
    let mut world = world(1, 1);
    world.checkpoint(0, 1);
    assert!(!owner(&world, 0).is_alone());
    world.step(Cut(0, 0));
    assert!(!owner(&world, 0).is_alone(), "without a checkpoint nothing would be pushed");
    world.step(Commit(0, 0));
    assert!(owner(&world, 0).is_alone());
    let acknowledged = world.acknowledged();
    world.run([Repair(0, 1), RepairArrives(0), Repaired(0)]);
    assert!(!owner(&world, 0).is_alone(), "one is on its way");
    world.step(Connect(0, 1));
    world.land(0, 1);
    assert_eq!((world.acknowledged(), world.in_sync()), (acknowledged, vec![0]), "before the directory has answered");
    let mut rival = world.clone();
    rival.take_over(1, &[0]);
    rival.settle(1);
    rival.settle(0);
    assert_kept(&rival);
    world.settle(0);
    assert_eq!(world.in_sync(), [1]);
    assert!(world.acknowledged() > acknowledged);
    world.checkpoint(0, 0);
    world.take_over(2, &[1]);
    assert_eq!(world.taken_over(), world.acknowledged());
    assert_kept(&world);
}
