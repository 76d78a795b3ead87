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

/// Leaves the rule out that `SEGSTORE_LEAVE_OUT` names. Tests must then fail.
#[cfg(feature = "sabotage")]
fn leave_out_what_the_environment_says() {
    use segstore_core::rule::{Rule, leave_out};
    if let Ok(name) = std::env::var("SEGSTORE_LEAVE_OUT") {
        let rule = Rule::ALL.iter().find(|rule| rule.name() == name);
        leave_out(*rule.unwrap_or_else(|| panic!("SEGSTORE_LEAVE_OUT={name}: no such rule")));
    }
}

/// `scripts/test` leaves out what this prints, one after the other.
#[test]
fn every_rule_has_a_name_of_its_own() {
    let names: Vec<_> = segstore_core::rule::Rule::ALL.iter().map(|rule| rule.name()).collect();
    let different: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(different.len(), names.len());
    names.iter().for_each(|name| println!("rule {name}"));
}
