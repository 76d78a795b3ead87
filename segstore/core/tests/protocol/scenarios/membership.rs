//! Rules 5, 6 and 19: who is in sync, and who says so.

use segstore_core::id::Stamp;
use segstore_core::owner::{BelowMinimum, Blocked, Policy};

use super::Step::{
    Commit, Connect, Cut, Directory, GiveUp, Kill, LateSwap, LoseMemory, NotTaken, Repair, RepairArrives, Repaired,
    ReplyLate, TakeOver,
};
use super::{ANY, Config, Stage, Step, World, assert_kept, finish_work, owner, with_repaired_spare, world};

/// A checkpoint that is acknowledged without the new member, and an add that lands after it.
#[test]
fn checkpoints_wait_while_a_member_is_added() {
    let mut world = with_repaired_spare();
    world.run([ReplyLate(0), Commit(0, 0)]);
    world.land(0, 0);
    assert_eq!(world.acknowledged(), Some(Stamp::new(1, 1)), "the add may stand in the directory or may not");
    world.step(LateSwap(0));
    assert_eq!(world.in_sync(), [0, 1]);
    world.take_over(1, &[1]);
    assert_kept(&world);
}

/// An add whose answer is late, of a replica that is gone by then: the doubt is settled before anything is acknowledged.
#[test]
fn a_late_add_of_a_lost_member_is_settled() {
    let mut world = with_repaired_spare();
    world.run([ReplyLate(0), Commit(0, 0), Cut(0, 1)]);
    world.land(0, 0);
    assert_eq!(world.acknowledged(), Some(Stamp::new(1, 1)));
    // The owner reads that nothing has changed, and changes the version, so that the add can never land.
    world.run([Directory(0), Directory(0)]);
    assert_eq!(world.acknowledged(), Some(Stamp::new(1, 2)));
    world.step(LateSwap(0));
    assert_eq!(world.in_sync(), [0]);
    world.take_over(1, &[0, 1]);
    assert_kept(&world);
}

/// An add that nobody took, of a replica that is gone by then: it is as if it had never been asked for.
#[test]
fn nobody_waits_for_a_lost_member_whose_add_was_not_made() {
    let mut world = with_repaired_spare();
    world.run([Commit(0, 0), Cut(0, 1), NotTaken(0)]);
    world.land(0, 0);
    assert_eq!(world.acknowledged(), Some(Stamp::new(1, 2)));
    assert_eq!(world.in_sync(), [0]);
    assert_kept(&world);
}

/// The same, but the add lands before the owner can keep it from landing.
#[test]
fn a_late_add_that_lands_is_undone() {
    let mut world = with_repaired_spare();
    world.run([ReplyLate(0), Commit(0, 0), Cut(0, 1)]);
    world.land(0, 0);
    world.run([Directory(0), LateSwap(0), Directory(0)]);
    assert_eq!(world.in_sync(), [0, 1], "the add came first");
    assert_eq!(world.acknowledged(), Some(Stamp::new(1, 1)));
    world.run([Directory(0)]);
    assert_eq!(world.in_sync(), [0], "the replica is out of reach, so it is removed");
    assert_eq!(world.acknowledged(), Some(Stamp::new(1, 2)));
    assert_kept(&world);
}

/// Replica 1's node has lost its power, which nobody has noticed, when the links to the others break. They are whole, and it is not.
#[test]
fn nobody_is_removed_before_one_who_stays_has_taken_the_checkpoint() {
    let mut world = world(3, 0);
    world.checkpoint(0, 1);
    world.run([Commit(0, 0), Cut(0, 0), Cut(0, 2)]);
    let directory_answers = |world: &mut World| {
        while world.is_enabled(Directory(0)) {
            world.step(Directory(0));
        }
    };
    directory_answers(&mut world);
    let mut well = world.clone();
    world.run([LoseMemory(1), Kill(0)]);
    world.take_over(1, &[0, 2]);
    assert_eq!((world.taken_over(), world.in_sync()), (Some(Stamp::new(1, 2)), vec![0, 2]));
    assert_kept(&world);
    // Where its node is well, nothing is held up.
    well.land(0, 1);
    directory_answers(&mut well);
    assert_eq!((well.acknowledged(), well.in_sync()), (Some(Stamp::new(1, 3)), vec![1]));
    assert_kept(&well);
}

/// An acknowledgement without a member, before its removal is confirmed.
#[test]
fn a_removal_is_confirmed_before_it_counts() {
    let mut world = world(2, 0);
    world.step(Commit(0, 0));
    world.land(0, 0);
    world.step(Cut(0, 1));
    assert_eq!(world.acknowledged(), Some(Stamp::new(1, 1)));
    world.take_over(1, &[1]);
    world.settle(0);
    assert_eq!(world.acknowledged(), Some(Stamp::new(1, 1)), "B was faster");
    assert!(owner(&world, 0).end().is_some());
    assert_kept(&world);
}

#[test]
fn the_last_member_is_never_removed() {
    let mut world = world(1, 0);
    world.run([Commit(0, 0), Cut(0, 0), Directory(0)]);
    assert_eq!(world.in_sync(), [0]);
    assert_eq!(owner(&world, 0).blocked(), Some(Blocked::Needed(vec![world.member(0)])));
    world.take_over(1, &[0]);
    assert_eq!(world.taken_over(), Some(Stamp::new(1, 1)));
    assert_kept(&world);
}

/// B reads the record; A removes replica 1; B's claim must not bring it back.
#[test]
fn a_claim_does_not_undo_a_removal() {
    let mut world = world(2, 0);
    world.run([TakeOver(1), Directory(1)]);
    world.step(Commit(0, 0));
    world.land(0, 0);
    world.run([Cut(0, 1), Directory(0)]);
    assert_eq!(world.acknowledged(), Some(Stamp::new(1, 2)));
    world.finish_takeover(1, &[1]);
    assert!(matches!(world.process(1), Stage::Failed(_)), "replica 1 is no member any more");
    assert_kept(&world);
}

/// A claim whose answer was lost is settled by reading: it is made once.
#[test]
fn a_lost_answer_is_settled_by_reading() {
    let mut world = world(2, 0);
    world.run([TakeOver(1), Directory(1), Step::ReplyLost(1)]);
    world.finish_takeover(1, &[0, 1]);
    assert_eq!(owner(&world, 1).ownership().term.0, 2);
    assert_kept(&world);
}

/// A is cut off from its replicas, one after the other, but not from the directory. B takes over.
#[test]
fn an_owner_that_is_cut_off_learns_that_it_was_replaced() {
    let mut world = world(2, 0);
    let answer = |world: &mut World| {
        while world.is_enabled(Directory(0)) {
            world.step(Directory(0));
        }
    };
    world.run([Commit(0, 0), Cut(0, 0)]);
    answer(&mut world);
    world.run([Cut(0, 1)]);
    answer(&mut world);
    world.take_over(1, &[0, 1]);
    world.run([GiveUp(0), Commit(0, 0)]);
    answer(&mut world);
    assert!(owner(&world, 0).end().is_some());
    assert_kept(&world);
}

/// Two nodes, each with a replica; the first dies. What runs on the second then has its only replica beside it.
fn after_a_takeover_on_two_nodes(below: BelowMinimum) -> World {
    let policy = Policy { minimum: 1, below };
    let config = Config { collocated: true, processes: 3, commits: [9, 9, 9], faults: ANY, policy, ..Config::small() };
    let mut world = World::new(&config);
    world.step(Kill(0));
    world.take_over(1, &[1]);
    world.settle(1);
    assert_eq!(world.in_sync(), [1]);
    world
}

#[test]
fn a_replica_on_the_owners_node_is_not_enough() {
    let mut world = after_a_takeover_on_two_nodes(BelowMinimum::Stop);
    world.checkpoint(1, 0);
    assert_eq!(world.acknowledged(), Some(Stamp::new(1, 1)));
    assert_eq!(owner(&world, 1).blocked(), Some(Blocked::BelowMinimum { in_sync: 0, minimum: 1 }));
    // The other node is back: its replica is repaired and gets the attempt that waits.
    world.run([Repair(1, 0), RepairArrives(0)]);
    world.settle(1);
    assert_eq!((world.acknowledged(), world.in_sync()), (Some(Stamp::new(2, 2)), vec![0, 1]));
    // Nor is the member on the other node removed if only the one beside the owner would be left.
    world.run([Commit(1, 0), Cut(1, 0)]);
    world.land(1, 1);
    assert_eq!(owner(&world, 1).blocked(), Some(Blocked::Needed(vec![world.member(0)])));
    assert_kept(&world);
}

#[test]
fn a_replica_on_the_owners_node_serves_where_the_policy_goes_on() {
    let mut world = after_a_takeover_on_two_nodes(BelowMinimum::Continue);
    world.checkpoint(1, 0);
    assert_eq!(world.acknowledged(), Some(Stamp::new(2, 2)));
    world.take_over(2, &[1]);
    assert_eq!(world.taken_over(), Some(Stamp::new(2, 2)), "it is a member like any other while its node lives");
    assert_kept(&world);
}

#[test]
fn below_the_minimum_nothing_is_acknowledged_until_repair() {
    let policy = Policy { minimum: 2, below: BelowMinimum::Stop };
    let config = Config { spare: 1, commits: [9, 9, 9], faults: ANY, policy, ..Config::small() };
    let mut world = World::new(&config);
    world.step(Commit(0, 0));
    world.land(0, 0);
    world.run([Cut(0, 1), Directory(0)]);
    assert_eq!(world.in_sync(), [0, 1], "without it nothing could be acknowledged, so it is not removed");
    assert_eq!(world.acknowledged(), Some(Stamp::new(1, 1)));
    assert_eq!(owner(&world, 0).blocked(), Some(Blocked::Needed(vec![world.member(1)])));
    let mut reconnected = world.clone();
    reconnected.settle(0);
    assert_eq!(reconnected.acknowledged(), Some(Stamp::new(1, 2)), "the link is back: nothing was lost");
    // The attempt waits; a replica is repaired meanwhile and gets the attempt itself.
    world.run([Repair(0, 2), RepairArrives(0)]);
    finish_work(&mut world, 2);
    world.run([Repaired(0), Connect(0, 2)]);
    world.land(0, 2);
    world.step(Directory(0));
    assert_eq!(world.in_sync(), [0, 2]);
    assert_eq!(world.acknowledged(), Some(Stamp::new(1, 2)));
    world.take_over(1, &[2]);
    assert_eq!(world.taken_over(), Some(Stamp::new(1, 2)));
    assert_kept(&world);
}
