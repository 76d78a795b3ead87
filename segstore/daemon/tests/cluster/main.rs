//! The promises, on real daemons and real processes that are killed.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

mod clock;
mod hangs;
mod harness;
mod local;
mod metrics;
mod mistakes;
mod moves;
mod nodes;
mod owners;
mod readers;
mod roles;
mod strangers;
