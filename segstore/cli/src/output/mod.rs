//! How things are said: tables for people, JSON for programs, progress for whoever waits.

pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod units;

use serde::Serialize;

/// One JSON document on standard output.
pub(crate) fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("segctl: this cannot be said as JSON: {error}"),
    }
}
