//! How things are said: tables for people, JSON for programs, progress for whoever waits.

pub(crate) mod facts;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod units;

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use serde::Serialize;

/// One line on standard output. Whoever reads it may have had enough: then nothing more is to do.
pub(crate) fn line(text: impl Display) {
    if let Err(error) = writeln!(std::io::stdout().lock(), "{text}") {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        eprintln!("segctl: writing to standard output: {error}");
        std::process::exit(1);
    }
}

/// One JSON document on standard output.
pub(crate) fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(text),
        Err(error) => eprintln!("segctl: this cannot be said as JSON: {error}"),
    }
}
