//! How things are said: tables for people, JSON for programs, progress for whoever waits.

pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod units;

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use serde::Serialize;
use serde_json::Value;

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

/// A value as programs read it: times in RFC 3339, permission bits as `chmod` takes them, and the unit in the name of what is a number.
pub(crate) fn for_programs(value: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(value).unwrap_or_default();
    label(&mut value);
    value
}

fn label(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(label),
        Value::Object(fields) => {
            for (old, new) in [("unsafe_for", "unsafe_for_ms"), ("sum", "sum_ns")] {
                if let Some(value) = fields.remove(old) {
                    fields.insert(new.to_owned(), value);
                }
            }
            for (key, value) in fields.iter_mut() {
                match (key.as_str(), value.as_u64()) {
                    ("at" | "since" | "created", Some(millis)) => *value = units::moment(millis).into(),
                    ("mode", Some(mode)) => *value = format!("{mode:03o}").into(),
                    _ => label(value),
                }
            }
        }
        _ => {}
    }
}

/// One JSON document on standard output.
pub(crate) fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(text),
        Err(error) => eprintln!("segctl: this cannot be said as JSON: {error}"),
    }
}
