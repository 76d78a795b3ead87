//! The plainest forms of the same movements: a copy, a socket.

pub mod copy;
pub mod socket;
