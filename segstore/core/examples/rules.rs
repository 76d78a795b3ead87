//! Prints the names of the protocol's rules, a line each: what `scripts/test --sabotage` leaves out in turn.

fn main() {
    for rule in segstore_core::rule::Rule::ALL {
        println!("{}", rule.name());
    }
}
