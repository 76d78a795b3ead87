//! Each rule of the protocol, by the story of what happens without it.
//!
//! Process 0 is the first owner (A), 1 and 2 come after it (B, C). At the start epoch 1 of term 1 is acknowledged by the whole
//! in-sync set. Where a story needs another image first, it makes one: slots alternate, so a slot that is written for the first
//! time is written in full and hides what the story is about.

mod damage;
mod fence;
mod forgetting;
mod levelling;
mod membership;
mod parting;
mod push;
mod reading;
mod repair;
mod takeover;

use super::world::{Config, Faults, Stage, Step, World};

/// Everything may go wrong; the scenario says what does.
const ANY: Faults = Faults {
    kills: 9,
    cuts: 9,
    losses: 9,
    partitions: 9,
    lost_replies: 9,
    late_answers: 9,
    watches: 9,
    restarts: 9,
    memory_losses: 9,
    give_ups: 9,
    repairs: 9,
    lost_repairs: 9,
    further_copies: 9,
    releases: 9,
    orphans: 9,
    reads: 9,
    dismissals: 9,
    resizes: 9,
};

fn world(in_sync: usize, spare: usize) -> World {
    World::new(&Config { in_sync, spare, processes: 4, commits: [9, 9, 9], faults: ANY, ..Config::small() })
}

/// Replica 1 was repaired from replica 0, and is being added.
fn with_repaired_spare() -> World {
    let mut world = world(1, 1);
    world.run([Step::Repair(0, 1), Step::RepairArrives(0)]);
    finish_work(&mut world, 1);
    world.run([Step::Repaired(0), Step::Connect(0, 1)]);
    world
}

/// What the daemon of `r` has begun comes to its end.
fn finish_work(world: &mut World, r: usize) {
    while world.is_enabled(Step::WorkGoesOn(r, 0)) {
        world.step(Step::WorkGoesOn(r, 0));
    }
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
