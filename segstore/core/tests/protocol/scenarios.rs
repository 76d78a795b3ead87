//! Each rule of the protocol, by the story of what happens without it.
//!
//! Process 0 is the first owner (A), 1 and 2 come after it (B, C). At the start epoch 1 of term 1 is acknowledged by the whole
//! in-sync set. Where a story needs another image first, it makes one: slots alternate, so a slot that is written for the first
//! time is written in full and hides what the story is about.

mod reading;

use segstore_core::id::Stamp;
use segstore_core::owner::{BelowMinimum, Blocked, Outcome, Policy};

use super::world::{Config, Faults, Stage, Step, World};
use Step::{
    Commit, Complete, Connect, Cut, Deliver, DeliverLate, Directory, Fence, FenceLost, GiveUp, Kill, LateSwap, Load,
    Lose, Repair, RepairGoesOn, Repaired, ReplyLate, Restart, StopTrying, TakeOver,
};

/// Everything may go wrong; the scenario says what does.
const ANY: Faults = Faults {
    kills: 9,
    cuts: 9,
    losses: 9,
    partitions: 9,
    lost_replies: 9,
    restarts: 9,
    memory_losses: 9,
    give_ups: 9,
    repairs: 9,
    reads: 9,
    resizes: 9,
};

fn world(in_sync: usize, spare: usize) -> World {
    World::new(&Config { in_sync, spare, processes: 4, commits: [9, 9, 9], faults: ANY, ..Config::small() })
}

fn owner(world: &World, p: usize) -> &segstore_core::owner::Owner {
    match world.process(p) {
        Stage::Owning(owning) => &owning.owner,
        other => panic!("process {p} owns nothing: {other:?}"),
    }
}

fn assert_kept(world: &World) {
    assert_eq!(world.violation(), None);
}

// ---- rule 1: seal ----

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

// ---- rule 2: the order of a push ----

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

// ---- rule 3: a slot that was touched is not at its old epoch ----

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

// ---- rule 4: no number twice ----

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
    let mut world = super::scenarios::world(1, 0);
    world.run([Commit(0, 0), Cut(0, 0), Connect(0, 0)]);
    world.settle(0);
    assert_eq!(world.acknowledged(), Some(Stamp::new(1, 2)));
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

// ---- rule 5: only the owner changes the set ----

fn with_repaired_spare() -> World {
    let mut world = world(1, 1);
    world.step(Repair(0, 1));
    while world.is_enabled(RepairGoesOn(1)) {
        world.step(RepairGoesOn(1));
    }
    world.run([Repaired(0), Connect(0, 1)]);
    world
}

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
    assert!(owner(&world, 0).fenced().is_some());
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

// ---- rule 6: the whole record ----

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
    assert!(owner(&world, 0).fenced().is_some());
    assert_kept(&world);
}

// ---- rule 7: replicas remember ----

/// A connects again after the fence.
#[test]
fn lower_terms_are_refused() {
    let mut world = world(1, 0);
    world.step(Commit(0, 0));
    world.take_over(1, &[0]);
    world.run([Complete(0, 0), GiveUp(0), Connect(0, 0)]);
    assert!(owner(&world, 0).fenced().is_some(), "the replica says so, with the directory out of reach");
    assert_kept(&world);
}

/// A connects again after the fence, and after the replica's daemon was restarted.
#[test]
fn terms_are_remembered_over_restarts() {
    let mut world = world(1, 0);
    world.step(Commit(0, 0));
    world.take_over(1, &[0]);
    world.run([Complete(0, 0), GiveUp(0), Restart(0), Connect(0, 0)]);
    assert!(owner(&world, 0).fenced().is_some(), "the replica forgot the fence");
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

// ---- rule 9: repair ----

/// B has a replica repaired between its claim and its fence, while A still pushes: the copy picks up a block that is aborted.
#[test]
fn a_repair_starts_after_the_takeover() {
    let mut world = world(1, 1);
    world.checkpoint(0, 1);
    world.run([TakeOver(1), Directory(1), Directory(1)]);
    if !world.is_enabled(Repair(1, 1)) {
        return; // There is nothing to start one from: that is the rule.
    }
    world.run([Repair(1, 1), RepairGoesOn(1), RepairGoesOn(1)]);
    world.step(Commit(0, 0));
    world.land(0, 0);
    world.step(Commit(0, 1));
    world.run([Deliver(0, 0); 5]);
    while world.is_enabled(RepairGoesOn(1)) {
        world.step(RepairGoesOn(1));
    }
    world.finish_takeover(1, &[0]);
    world.settle(1);
    world.checkpoint(1, 0);
    world.settle(1);
    world.take_over(2, &[1]);
    assert_kept(&world);
}

/// A replica is repaired while the owner goes on; whatever it then holds in sync can be loaded from it alone.
#[test]
fn a_fuzzy_copy_becomes_a_checkpoint() {
    for steps_before in 0..12 {
        let mut world = world(1, 1);
        world.checkpoint(0, 1);
        world.step(Repair(0, 1));
        for _ in 0..steps_before {
            if world.is_enabled(RepairGoesOn(1)) {
                world.step(RepairGoesOn(1));
            }
        }
        for block in [0, 1, 0] {
            world.step(Commit(0, block));
            world.land(0, 0);
        }
        while world.is_enabled(RepairGoesOn(1)) {
            world.step(RepairGoesOn(1));
        }
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

// ---- rule 14: working memory rests ----

/// The only member in sync has the checkpoint, a replica that joins does not: its push still reads working memory.
#[test]
fn the_call_waits_for_whoever_reads_memory() {
    let mut world = world(1, 1);
    world.step(Repair(0, 1));
    while world.is_enabled(RepairGoesOn(1)) {
        world.step(RepairGoesOn(1));
    }
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

// ---- rule 13: bad blocks under a good header ----

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

// ---- rule 16: the directory went back ----

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

// ---- rule 19: below the minimum ----

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
    world.step(Repair(1, 0));
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
    world.run([Repair(0, 2)]);
    while world.is_enabled(RepairGoesOn(2)) {
        world.step(RepairGoesOn(2));
    }
    world.run([Repaired(0), Connect(0, 2)]);
    world.land(0, 2);
    world.step(Directory(0));
    assert_eq!(world.in_sync(), [0, 2]);
    assert_eq!(world.acknowledged(), Some(Stamp::new(1, 2)));
    world.take_over(1, &[2]);
    assert_eq!(world.taken_over(), Some(Stamp::new(1, 2)));
    assert_kept(&world);
}
