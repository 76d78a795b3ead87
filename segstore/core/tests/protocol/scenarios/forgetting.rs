//! A replica whose memory is given back is one that nobody relies on, however late that is asked for.

use segstore_core::id::Stamp;

use super::Step::{
    Connect, Directory, ForgetOrphan, LookForOrphan, Repair, RepairArrives, RepairUnanswered, Repaired, TakeOver,
};
use super::{World, assert_kept, finish_work, owner, with_repaired_spare, world};

/// The replica that a request has made on node 1 is filled, and comes into the set.
fn add(world: &mut World, p: usize) {
    finish_work(world, 1);
    world.run([Repaired(p), Connect(p, 1), Directory(p)]);
    assert_eq!(world.in_sync(), [0, 1]);
}

/// A hears nothing of its request and asks again. The first one arrives when what the second has made is in sync.
#[test]
fn a_late_request_forgets_only_what_it_names() {
    let mut world = world(1, 1);
    world.run([Repair(0, 1), RepairUnanswered(0), Repair(0, 1), RepairArrives(1)]);
    add(&mut world, 0);
    world.step(RepairArrives(0));
    world.checkpoint(0, 0);
    world.take_over(1, &[1]);
    assert_eq!(world.taken_over(), Some(Stamp::new(1, 2)));
    assert_kept(&world);
}

/// The same, where the first one's copy is still under way: it is replaced by the second's, not the other way round.
#[test]
fn the_later_request_has_the_replica() {
    let mut world = world(1, 1);
    world.run([Repair(0, 1), RepairArrives(0), RepairUnanswered(0), Repair(0, 1), RepairArrives(0)]);
    add(&mut world, 0);
    assert_kept(&world);
}

/// A asks for a replica and is taken over; B has one made on the same node before A's request arrives there.
#[test]
fn a_deposed_owners_request_takes_nothing_from_the_next_one() {
    let mut world = world(1, 1);
    world.step(Repair(0, 1));
    world.take_over(1, &[0]);
    world.run([Connect(1, 0), Repair(1, 1), RepairArrives(1)]);
    add(&mut world, 1);
    world.step(RepairArrives(0));
    world.checkpoint(1, 0);
    world.take_over(2, &[1]);
    assert_eq!(world.taken_over(), Some(Stamp::new(2, 2)));
    assert_kept(&world);
}

/// A was taken over while it slept, and asks for a replica on a node where B has one.
#[test]
fn a_deposed_owner_asks_in_vain() {
    let mut world = world(1, 1);
    world.take_over(1, &[0]);
    world.run([Connect(1, 0), Repair(1, 1), RepairArrives(0)]);
    add(&mut world, 1);
    world.run([Repair(0, 1)]);
    assert!(owner(&world, 0).end().is_some(), "its daemon knows who owns the segment");
    assert!(!world.is_enabled(RepairArrives(0)));
    assert_kept(&world);
}

/// What a takeover left out of the set is forgotten in the end, and nothing else.
#[test]
fn orphans_are_forgotten() {
    let mut world = with_repaired_spare();
    world.step(Directory(0));
    assert!((0..2).all(|r| !world.is_enabled(LookForOrphan(r))), "both are in sync");
    world.take_over(1, &[0]);
    world.run([LookForOrphan(1), TakeOver(2), ForgetOrphan(0)]);
    world.finish_takeover(2, &[0]);
    assert_eq!(world.taken_over(), world.acknowledged());
    assert_kept(&world);
}
