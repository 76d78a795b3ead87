//! Rules 2 to 4 and 14: what a push may leave behind, and what it reads.

use segstore_core::id::Stamp;
use segstore_core::owner::{Blocked, Outcome};

use super::Step::{
    Commit, Connect, Cut, Deliver, Directory, GiveUp, Kill, Lose, Repair, RepairArrives, Repaired, ReplyLate, Restart,
    StopTrying,
};
use super::{ANY, Config, World, assert_kept, finish_work, owner, world};

/// A is killed at every point of a push to the only replica; whoever loads finds one whole image.
#[test]
fn a_push_may_stop_anywhere() {
    for writes in 0.. {
        let mut world = world(1, 0);
        world.checkpoint(0, 1);
        world.step(Commit(0, 0));
        for _ in 0..writes {
            world.run([Deliver(0, 0)]);
        }
        let is_whole = !world.is_enabled(Deliver(0, 0));
        world.step(Kill(0));
        world.take_over(1, &[0]);
        let expected = if is_whole { 3 } else { 2 };
        assert_eq!(world.taken_over(), Some(Stamp::new(1, expected)), "after {writes} writes");
        assert_kept(&world);
        if is_whole {
            return;
        }
    }
}

/// A writes part of epoch 3 and dies. B goes on from epoch 2 and changes another block in the same slot.
#[test]
fn a_touched_slot_is_filled_in_full() {
    for writes in 0.. {
        let mut world = world(1, 0);
        world.checkpoint(0, 1);
        world.step(Commit(0, 0));
        for _ in 0..writes {
            world.run([Deliver(0, 0)]);
        }
        if !world.is_enabled(Deliver(0, 0)) {
            return;
        }
        world.step(Kill(0));
        world.take_over(1, &[0]);
        world.settle(1);
        world.checkpoint(1, 1);
        assert_eq!(world.acknowledged(), Some(Stamp::new(2, 3)));
        world.take_over(2, &[0]);
        assert_eq!(world.taken_over(), Some(Stamp::new(2, 3)), "after {writes} writes");
        assert_kept(&world);
    }
}

/// Replica 0 holds epoch 2 with X; the attempt fails, and the next one brings X'.
#[test]
fn no_number_is_used_twice() {
    let mut world = world(2, 0);
    world.step(Commit(0, 0));
    world.land(0, 0);
    world.run([Cut(0, 1), GiveUp(0)]);
    world.settle(0);
    world.checkpoint(0, 0);
    assert_eq!(world.acknowledged(), Some(Stamp::new(1, 3)));
    assert_eq!(owner(&world, 0).outcome(segstore_core::id::Epoch(2)), Outcome::Superseded(segstore_core::id::Epoch(3)));
    world.take_over(1, &[0, 1]);
    assert_kept(&world);
}

/// After an error the next attempt goes into the same slot, never into the one that holds what is acknowledged.
#[test]
fn the_newest_acknowledged_image_is_spared() {
    let mut world = world(1, 0);
    for _ in 0..3 {
        world.step(Commit(0, 0));
        world.run([Deliver(0, 0), Cut(0, 0), GiveUp(0)]);
        world.settle(0);
    }
    world.step(Kill(0));
    world.take_over(1, &[0]);
    assert_eq!(world.taken_over(), Some(Stamp::new(1, 1)));
    assert_kept(&world);
}

/// The link is back before the attempt has ended: the same number brings the same bytes into the same slot.
#[test]
fn an_attempt_ends_when_the_link_is_back() {
    let mut world = world(2, 0);
    world.step(Commit(0, 0));
    world.land(0, 0);
    world.run([Cut(0, 1), ReplyLate(0), Connect(0, 1)]);
    world.settle(0);
    assert_eq!(world.acknowledged(), Some(Stamp::new(1, 2)));
    let mut world = super::world(1, 0);
    world.run([Commit(0, 0), Cut(0, 0), Connect(0, 0)]);
    world.settle(0);
    assert_eq!(world.acknowledged(), Some(Stamp::new(1, 2)));
}

/// A push is ended after any of its writes, and the block that it had brought changes before the next one goes on from there: that one is
/// whole, and shorter where blocks had come.
#[test]
fn a_push_goes_on_where_one_was_ended() {
    for writes in 0.. {
        let config = Config { in_sync: 1, piecewise: true, commits: [9, 9, 9], faults: ANY, ..Config::small() };
        let mut world = World::new(&config);
        world.step(Commit(0, 1));
        let all = world.in_flight(0, 0).len();
        for _ in 0..writes {
            world.run([Deliver(0, 0)]);
        }
        if !world.is_enabled(Deliver(0, 0)) {
            return assert!(writes == 6, "mark, entries, two blocks, header, mark: {writes}");
        }
        world.run([Lose(0, 0), GiveUp(0), Connect(0, 0)]);
        let mut other = world.clone();
        other.step(Commit(0, 1));
        // Both blocks, or the one that had not come and has changed besides.
        assert_eq!(all - other.in_flight(0, 0).len(), usize::from(writes >= 3), "after {writes} writes");
        for (mut world, block) in [(world, 0), (other, 1)] {
            if block == 0 {
                world.step(Commit(0, 0));
            }
            world.settle(0);
            assert_eq!(world.acknowledged(), Some(Stamp::new(1, 3)));
            world.take_over(1, &[0]);
            assert_eq!(world.taken_over(), Some(Stamp::new(1, 3)), "after {writes} writes, then block {block}");
            assert_kept(&world);
        }
    }
}

/// A daemon restarts with its memory: nobody is removed, the attempt waits, and the same push is made again.
#[test]
fn a_daemon_that_restarts_stays_in_sync() {
    let mut world = world(2, 0);
    world.step(Commit(0, 0));
    world.land(0, 0);
    world.run([Deliver(0, 1), Restart(1), Lose(0, 1)]);
    assert_eq!(owner(&world, 0).blocked(), Some(Blocked::Connecting(vec![world.member(1)])));
    assert!(!world.is_enabled(Directory(0)), "nothing is asked of the directory");
    let mut given_up = world.clone();
    world.settle(0);
    assert_eq!((world.acknowledged(), world.in_sync()), (Some(Stamp::new(1, 2)), vec![0, 1]));
    // If it does not come back, it is removed.
    given_up.run([StopTrying(0, 1), Directory(0)]);
    assert_eq!((given_up.acknowledged(), given_up.in_sync()), (Some(Stamp::new(1, 2)), vec![0]));
    assert_kept(&world);
}

/// The only member in sync has the checkpoint, a replica that joins does not: its push still reads working memory.
#[test]
fn the_call_waits_for_whoever_reads_memory() {
    let mut world = world(1, 1);
    world.run([Repair(0, 1), RepairArrives(0)]);
    finish_work(&mut world, 1);
    world.step(Commit(0, 0));
    world.land(0, 0);
    world.run([Repaired(0), Connect(0, 1), Commit(0, 0)]);
    world.land(0, 0);
    if world.acknowledged() == Some(Stamp::new(1, 3)) {
        world.step(Commit(0, 0)); // The application goes on, and changes the block that is being sent.
    }
    world.land(0, 1);
    world.step(Directory(0));
    assert_eq!(world.in_sync(), [0, 1]);
    world.take_over(1, &[1]);
    assert_eq!(world.taken_over(), Some(Stamp::new(1, 3)));
    assert_kept(&world);
}
