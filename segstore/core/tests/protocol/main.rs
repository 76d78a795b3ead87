//! The protocol proved: every rule by name, every crash point, every interleaving that fits in memory.
#![allow(unreachable_pub, reason = "modules of one program")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "the worlds here are tiny and their mistakes are ours"
)]

mod answers;
mod crash_points;
mod decisions;
mod golden;
mod model;
mod properties;
mod scenarios;
mod world;

// Tests must then fail.
#[cfg(feature = "sabotage")]
use segstore_core::rule::leave_out_what_the_environment_says;

/// `scripts/test` leaves out what this prints, one after the other.
#[test]
fn every_rule_has_a_name_of_its_own() {
    let names: Vec<_> = segstore_core::rule::Rule::ALL.iter().map(|rule| rule.name()).collect();
    let different: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(different.len(), names.len());
    names.iter().for_each(|name| println!("rule {name}"));
}
