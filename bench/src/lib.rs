//! Measuring in pairs: what this project does, and the plainest form of the same movement, in turn and in one run.
//!
//! The distance of a machine's cores may change within minutes, so two figures mean something together only if they were taken together:
//! each [`Row`] alternates its ways many times and carries the cache-line round trip of the same moments. [`moves`] are the
//! transport's own, [`checkpoints`], [`loads`] and [`repairs`] those of an application against real daemons. Two cores are taken: the
//! first for who measures, the second for the other side.

pub mod checkpoints;
pub mod fabric;
pub mod loads;
pub mod memory;
pub mod moves;
mod percentiles;
pub mod processor;
pub mod raw;
pub mod repairs;
mod second;
pub mod stream;
mod turns;

pub use moves::Over;
pub use percentiles::{Percentiles, median};
pub use second::{Role, Second};
pub use turns::{Bench, Row, Taken, Way};

/// What went wrong, for people.
pub type Failure = Box<dyn std::error::Error>;
/// A result of measuring.
pub type Result<T> = std::result::Result<T, Failure>;
