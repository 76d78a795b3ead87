//! The daemon of a node: it arranges names, places, fences and repair, and hosts replica memory. It decides and delays no commit.
#![forbid(unsafe_code)]

pub mod cluster;
pub mod directory;
pub mod peers;
pub mod replicas;
