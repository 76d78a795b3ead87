//! The plainest forms of the same movements: a copy, a socket, a verb.

pub mod copy;
pub mod socket;
#[cfg(feature = "verbs")]
pub mod verbs;
