//! Every interleaving of small worlds, by breadth-first search.

use std::time::Instant;

use stateright::{Checker, Model, Property};

use super::world::{Config, Faults, Step, World};

struct Cluster(Config);

impl Model for Cluster {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.0)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Step>) {
        if world.violation().is_none() {
            actions.extend(world.enabled());
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        next.step(step);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("every promise is kept", |_, world: &World| world.violation().is_none())]
    }
}

fn explore(name: &str, config: Config) -> Option<Vec<Step>> {
    let started = Instant::now();
    let checker = Cluster(config).checker().threads(2).spawn_bfs().join();
    let found = checker.discovery("every promise is kept");
    let verdict = found.as_ref().map_or("exhausted", |_| "VIOLATION");
    println!(
        "{name:40} {:>10} states, depth {:>3}, {:>6.1} s: {verdict}",
        checker.unique_state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f64()
    );
    found.map(|path| {
        println!("{:?}", path.last_state().violation());
        path.into_actions()
    })
}

macro_rules! configurations {
    ($($(#[$doc:meta])* $name:ident: $config:expr;)*) => {
        $(
            $(#[$doc])*
            #[test]
            fn $name() {
                assert_eq!(explore(stringify!($name), $config), None);
            }
        )*
    };
}

const NONE: Faults = Config::small().faults;

configurations! {
    /// The old owner is alive and keeps pushing while another takes over, with and without reaching both replicas.
    two_owners: Config { faults: Faults { partitions: 1, ..NONE }, ..Config::small() };
    /// A third owner reads what the second left behind.
    three_owners: Config {
        processes: 3,
        commits: [1, 0, 0],
        faults: Faults { partitions: 2, ..NONE },
        ..Config::small()
    };
    /// An owner dies in the middle of a push, and its successor builds on what it left.
    successors_push: Config {
        processes: 3,
        commits: [1, 1, 0],
        faults: Faults { kills: 1, ..NONE },
        ..Config::small()
    };
    /// A link breaks with writes in flight; the replica is removed, or the owner connects again.
    links_break: Config { commits: [2, 0, 0], faults: Faults { cuts: 1, give_ups: 1, ..NONE }, ..Config::small() };
    /// There is only one replica, and its link breaks.
    last_replica: Config {
        in_sync: 1,
        commits: [2, 0, 0],
        faults: Faults { cuts: 1, give_ups: 1, ..NONE },
        ..Config::small()
    };
    /// The directory's answers are lost or come late while a replica is removed.
    answers_are_lost: Config {
        commits: [1, 0, 0],
        faults: Faults { cuts: 1, lost_replies: 1, ..NONE },
        ..Config::small()
    };
    /// Three replicas, of which a takeover reaches any two or three.
    three_replicas: Config {
        in_sync: 3,
        commits: [1, 0, 0],
        faults: Faults { partitions: 1, ..NONE },
        ..Config::small()
    };
    /// Three replicas, and one is removed.
    three_replicas_and_a_cut: Config {
        in_sync: 3,
        commits: [1, 0, 0],
        faults: Faults { cuts: 1, ..NONE },
        ..Config::small()
    };
    /// A daemon restarts with its memory while an owner is replaced.
    daemons_restart: Config { commits: [1, 0, 0], faults: Faults { restarts: 1, ..NONE }, ..Config::small() };
    /// A node comes back without its memory.
    memory_is_lost: Config { commits: [1, 0, 0], faults: Faults { memory_losses: 1, ..NONE }, ..Config::small() };
    /// A fresh replica is repaired while the owner goes on.
    repair: Config {
        in_sync: 1,
        spare: 1,
        commits: [2, 0, 0],
        faults: Faults { repairs: 1, partitions: 1, ..NONE },
        ..Config::small()
    };
    /// A fresh replica is added by a directory whose answer is lost or late.
    late_add: Config {
        in_sync: 1,
        spare: 1,
        commits: [2, 0, 0],
        faults: Faults { repairs: 1, cuts: 1, lost_replies: 1, partitions: 1, ..NONE },
        ..Config::small()
    };
    /// A replica is removed, repaired and added again.
    removed_and_repaired: Config {
        processes: 1,
        commits: [2, 0, 0],
        faults: Faults { cuts: 1, repairs: 1, ..NONE },
        ..Config::small()
    };
}
