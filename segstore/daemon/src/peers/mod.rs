//! What daemons ask of each other.
pub mod message;
