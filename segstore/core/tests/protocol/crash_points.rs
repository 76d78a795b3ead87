//! Every crash point, enumerated: a push is cut off after each of its writes and at each byte inside them.

use segstore_core::id::Stamp;

use super::world::{Config, Faults, Step, World};

/// A push that gets so far: whole writes, and then a part of the next one.
#[derive(Clone, Debug)]
struct Cut {
    writes: usize,
    part: std::ops::Range<usize>,
}

/// Every way to cut off writes of these sizes. Fabrics promise nothing of the order of bytes inside one write: each end of it
/// may land alone.
fn cuts(sizes: &[usize]) -> Vec<Cut> {
    let inside = |(writes, &size): (usize, &usize)| {
        let heads = (0..size).map(move |end| Cut { writes, part: 0..end });
        heads.chain((1..size).map(move |start| Cut { writes, part: start..size }))
    };
    let whole = Cut { writes: sizes.len(), part: 0..0 };
    sizes.iter().enumerate().flat_map(inside).chain([whole]).collect()
}

fn apply(world: &mut World, r: usize, cut: &Cut) {
    for _ in 0..cut.writes {
        world.step(Step::Deliver(0, r));
    }
    if !cut.part.is_empty() {
        world.tear(0, r, cut.part.clone());
    }
}

/// Process 0 has two checkpoints behind it, so both slots were used, and a third under way.
fn pushing(in_sync: usize) -> World {
    let faults = Faults { kills: 1, partitions: 1, ..Faults::default() };
    let config = Config { in_sync, processes: 3, commits: [2, 1, 0], faults, ..Config::small() };
    let mut world = World::new(&config);
    world.checkpoint(0, 1);
    world.step(Step::Commit(0, 0));
    world
}

fn load(world: &mut World, p: usize, reachable: &[usize], what: &dyn std::fmt::Debug) -> Stamp {
    world.take_over(p, reachable);
    assert_eq!(world.violation(), None, "{what:?}");
    world.taken_over().unwrap_or_else(|| panic!("nothing was loaded: {what:?}"))
}

#[test]
fn one_replica_cut_at_every_byte() {
    let world = pushing(1);
    let cuts = cuts(&world.in_flight(0, 0));
    for cut in &cuts {
        let mut world = world.clone();
        apply(&mut world, 0, cut);
        world.step(Step::Kill(0));
        let loaded = load(&mut world, 1, &[0], cut);
        assert!(loaded == Stamp::new(1, 2) || loaded == Stamp::new(1, 3), "{cut:?}: {loaded:?}");
        // Whatever was left in the slot must not show through the next checkpoint.
        world.settle(1);
        world.checkpoint(1, 1);
        assert_eq!(load(&mut world, 2, &[0], cut).term.0, 2, "{cut:?}");
    }
    println!("one replica: {} crash points", cuts.len());
}

#[test]
fn two_replicas_cut_at_every_pair_of_bytes() {
    let world = pushing(2);
    let cuts = cuts(&world.in_flight(0, 0));
    for first in &cuts {
        let mut world = world.clone();
        apply(&mut world, 0, first);
        for second in &cuts {
            let mut world = world.clone();
            apply(&mut world, 1, second);
            world.step(Step::Kill(0));
            load(&mut world, 1, &[0, 1], &(first, second));
        }
    }
    println!("two replicas: {} crash points", cuts.len() * cuts.len());
}

/// The newest image is whole on one replica and torn on the other; only one of them answers.
#[test]
fn one_of_two_replicas_is_out_of_reach() {
    let world = pushing(2);
    let cuts = cuts(&world.in_flight(0, 0));
    for cut in &cuts {
        for reachable in 0..2 {
            let mut world = world.clone();
            apply(&mut world, 0, cut);
            world.step(Step::Kill(0));
            load(&mut world, 1, &[reachable], cut);
        }
    }
    println!("one of two replicas: {} crash points", 2 * cuts.len());
}
