//! Every interleaving of small worlds, by breadth-first search.
//!
//! Where a world takes minutes to exhaust, a smaller one stands for it every day, and `scripts/test --deep` explores the large one.

use std::time::Instant;

use segstore_core::owner::{BelowMinimum, Policy};
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
        vec![
            Property::always("every promise is kept", |_, world: &World| world.violation().is_none()),
            Property::always("nobody waits for ever", |_, world: &World| world.hang().is_none()),
        ]
    }
}

fn explore(name: &str, config: Config) -> Option<Vec<Step>> {
    let started = Instant::now();
    let checker = Cluster(config).checker().threads(2).spawn_bfs().join();
    let found = checker.discoveries().into_values().next();
    let verdict = found.as_ref().map_or("exhausted", |_| "VIOLATION");
    println!(
        "{name:40} {:>10} states, depth {:>3}, {:>6.1} s: {verdict}",
        checker.unique_state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f64()
    );
    found.map(|path| {
        println!("{:?} {:?}", path.last_state().violation(), path.last_state().hang());
        path.into_actions()
    })
}

/// The configuration to explore now.
fn quick_or(quick: Config, deep: Config) -> Config {
    if std::env::var_os("SEGSTORE_DEEP").is_some() { deep } else { quick }
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

/// A small world with these faults.
fn small(faults: Faults) -> Config {
    Config { commits: [1, 0, 0], faults, ..Config::small() }
}

/// A small world with one replica in sync, one to repair, and these faults.
fn repairing(faults: Faults) -> Config {
    Config { in_sync: 1, spare: 1, ..small(Faults { repairs: faults.repairs.max(1), ..faults }) }
}

configurations! {
    /// The old owner is alive and keeps pushing while another takes over, with and without reaching both replicas.
    two_owners: Config { commits: [1, 1, 0], ..small(Faults { partitions: 1, ..NONE }) };
    /// A third owner reads what the second left behind.
    three_owners: quick_or(
        Config { processes: 3, in_sync: 1, ..small(NONE) },
        Config { processes: 3, ..small(Faults { partitions: 2, ..NONE }) },
    );
    /// An owner dies in the middle of a push, and its successor builds on what it left.
    successors_push: quick_or(
        Config { processes: 3, in_sync: 1, commits: [1, 1, 0], ..small(Faults { kills: 1, ..NONE }) },
        Config { processes: 3, in_sync: 1, commits: [2, 1, 0], ..small(Faults { kills: 2, ..NONE }) },
    );
    /// A link breaks with writes in flight; the replica is removed, or the owner connects again.
    links_break: Config { commits: [2, 0, 0], ..small(Faults { cuts: 1, give_ups: 1, ..NONE }) };
    /// A link is lost and comes back, or does not; the replica's daemon may have restarted.
    links_come_back: quick_or(
        Config { processes: 1, commits: [2, 0, 0], ..small(Faults { losses: 2, restarts: 1, ..NONE }) },
        Config { commits: [2, 0, 0], ..small(Faults { cuts: 1, losses: 2, restarts: 1, ..NONE }) },
    );
    /// The push to the only replica is ended between any two of its writes, and the next one goes on from there, or a rival takes over.
    ended_pushes: Config {
        in_sync: 1,
        piecewise: true,
        commits: [3, 0, 0],
        ..small(Faults { losses: 2, give_ups: 2, restarts: 1, ..NONE })
    };
    /// There is only one replica, and its link breaks.
    last_replica: Config { in_sync: 1, commits: [2, 0, 0], ..small(Faults { cuts: 1, give_ups: 1, ..NONE }) };
    /// There is only one replica, and its daemon forgets what it may.
    last_replica_restarts: Config {
        in_sync: 1,
        commits: [2, 0, 0],
        ..small(Faults { cuts: 1, give_ups: 2, restarts: 1, ..NONE })
    };
    /// The directory's answers are lost or come late while a replica is removed.
    answers_are_lost: small(Faults { cuts: 1, lost_replies: 1, ..NONE });
    /// Three replicas, of which a takeover reaches any two or three.
    three_replicas: quick_or(
        Config { in_sync: 3, ..small(NONE) },
        Config { in_sync: 3, ..small(Faults { partitions: 1, ..NONE }) },
    );
    /// Three replicas, of which a rival may not reach one, and goes on; the owner dies, or does not.
    three_replicas_and_a_rival: Config {
        in_sync: 3,
        commits: [0, 1, 0],
        ..small(Faults { kills: 1, partitions: 1, ..NONE })
    };
    /// Three replicas, and one is removed.
    three_replicas_and_a_cut: quick_or(
        Config { in_sync: 3, processes: 1, ..small(Faults { cuts: 2, give_ups: 1, ..NONE }) },
        Config { in_sync: 3, ..small(Faults { cuts: 1, ..NONE }) },
    );
    /// A daemon restarts with its memory while an owner is replaced.
    daemons_restart: small(Faults { restarts: 1, ..NONE });
    /// A node comes back without its memory.
    memory_is_lost: small(Faults { memory_losses: 1, ..NONE });
    /// Somebody reads, with and without the owner's help, while the owner goes on and is replaced.
    readers: quick_or(
        Config { in_sync: 1, commits: [2, 1, 0], ..small(Faults { reads: 1, ..NONE }) },
        Config { commits: [2, 1, 0], ..small(Faults { reads: 1, partitions: 1, ..NONE }) },
    );
    /// A replica beside the processes serves takeovers, and is pushed to by each owner in turn.
    local_replica: quick_or(
        Config { in_sync: 1, local: true, commits: [1, 1, 0], ..small(Faults { kills: 1, ..NONE }) },
        Config { in_sync: 1, local: true, commits: [2, 1, 0], ..small(Faults { kills: 1, cuts: 1, ..NONE }) },
    );
    /// The only replica in sync is on the owner's node, after a takeover too, and that is not enough.
    replica_beside_the_owner: Config {
        collocated: true,
        policy: Policy { minimum: 1, below: BelowMinimum::Stop },
        ..small(Faults { kills: 1, repairs: 1, ..NONE })
    };
    /// A fresh replica is repaired while the owner goes on.
    repair: Config { commits: [2, 0, 0], ..repairing(Faults { partitions: 1, ..NONE }) };
    /// An owner asks for a replica, hears nothing and asks again; a rival does the same. Each request arrives at any time.
    late_repairs: repairing(Faults { repairs: 2, lost_repairs: 1, ..NONE });
    /// A segment is released, and its replicas level their slots while others take over.
    levelled: Config { processes: 3, in_sync: 1, commits: [1, 1, 0], ..small(Faults { releases: 1, ..NONE }) };
    /// A segment is handed over: its owner lets go after its last checkpoint, with attempts before it that came to nothing, and the next one
    /// starts from exactly that.
    handed_over: quick_or(
        Config { in_sync: 1, commits: [2, 1, 0], ..small(Faults { releases: 1, give_ups: 1, losses: 1, ..NONE }) },
        Config { commits: [2, 0, 0], ..small(Faults { releases: 1, give_ups: 1, losses: 1, ..NONE }) },
    );
    /// The same from two replicas, of which one may be lost before.
    handed_over_with_two: small(Faults { releases: 1, give_ups: 1, losses: 1, ..NONE });
    /// The directory's answers take their time, while a replica is removed and a rival takes over.
    answers_are_late: small(Faults { cuts: 1, late_answers: 2, ..NONE });
    /// Owners hear of their record unasked, as it was a while ago, while a replica is lost and another repaired.
    records_are_heard_of: Config { processes: 1, ..repairing(Faults { watches: 2, late_answers: 1, cuts: 1, ..NONE }) };
    /// The same beside a rival: what is heard late may be of before its claim, or of after it.
    a_rivals_records_are_heard_of: small(Faults { watches: 1, cuts: 1, ..NONE });
    /// The same while a replica is filled.
    a_rivals_records_are_heard_of_late: Config {
        in_sync: 1,
        spare: 1,
        ..small(Faults { watches: 1, repairs: 1, late_answers: 1, ..NONE })
    };
    /// The same while a healthy replica is let go.
    let_go_and_heard_of: Config {
        processes: 1,
        ..small(Faults { dismissals: 1, watches: 1, late_answers: 1, memory_losses: 1, ..NONE })
    };
    /// A daemon forgets what nobody needs.
    orphans: quick_or(
        small(Faults { partitions: 1, orphans: 1, ..NONE }),
        small(Faults { partitions: 1, orphans: 1, repairs: 1, ..NONE }),
    );
    /// A fresh replica is added by a directory whose answer is lost or late.
    late_add: quick_or(
        repairing(Faults { cuts: 1, lost_replies: 1, ..NONE }),
        Config { commits: [2, 0, 0], ..repairing(Faults { cuts: 1, lost_replies: 1, partitions: 1, ..NONE }) },
    );
    /// What was modified while a replica was filled is copied as well, once, while the owner goes on, gives up, or is replaced.
    filled_again: quick_or(
        Config { commits: [3, 0, 0], ..repairing(Faults { further_copies: 1, partitions: 1, ..NONE }) },
        Config { commits: [3, 1, 0], ..repairing(Faults { further_copies: 1, cuts: 1, give_ups: 1, ..NONE }) },
    );
    /// The only replica is out of reach, of its owner alone or of everybody, and everything is pushed to a fresh one, while a rival takes over.
    nothing_to_copy_from: Config {
        in_sync: 1,
        spare: 1,
        ..small(Faults { cuts: 1, repairs: 1, partitions: 1, ..NONE })
    };
    /// The only replica has lost its memory, and its owner has all there is.
    only_the_owner_is_left: Config {
        in_sync: 1,
        spare: 1,
        ..small(Faults { memory_losses: 1, repairs: 1, ..NONE })
    };
    /// A replica is removed, repaired and added again.
    removed_and_repaired: Config { processes: 1, commits: [2, 0, 0], ..small(Faults { cuts: 1, repairs: 1, ..NONE }) };
    /// A healthy replica is let go, or kept after all, while another loses its memory or its link.
    let_go: quick_or(
        small(Faults { dismissals: 1, memory_losses: 1, ..NONE }),
        Config { commits: [2, 0, 0], ..small(Faults { dismissals: 2, memory_losses: 1, cuts: 1, ..NONE }) },
    );
    /// The directory's answers are lost or come late while a replica is let go.
    let_go_late: quick_or(
        Config { processes: 1, ..small(Faults { dismissals: 1, lost_replies: 1, losses: 1, memory_losses: 1, ..NONE }) },
        small(Faults { dismissals: 1, lost_replies: 1, cuts: 1, memory_losses: 1, ..NONE }),
    );
    /// Of three replicas one is let go.
    one_of_three_is_let_go: quick_or(
        Config { in_sync: 3, processes: 1, ..small(Faults { dismissals: 1, memory_losses: 1, ..NONE }) },
        Config { in_sync: 3, processes: 1, ..small(Faults { dismissals: 2, memory_losses: 2, cuts: 1, ..NONE }) },
    );
    /// A caretaker restores a replica when the owner has gone, and the next one comes at any time; an answer of the directory is lost.
    caretakers: Config {
        processes: 3,
        caretaker: true,
        commits: [0, 1, 0],
        ..repairing(Faults { kills: 1, lost_replies: 1, ..NONE })
    };
    /// A replica is lost, and another repaired while a rival takes over.
    lost_and_repaired: quick_or(
        Config { processes: 2, ..repairing(Faults { kills: 1, ..NONE }) },
        Config { spare: 1, commits: [2, 0, 0], ..small(Faults { memory_losses: 1, repairs: 1, ..NONE }) },
    );
}
