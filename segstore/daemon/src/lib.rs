//! The daemon of a node: it arranges names, places, fences and repair, and hosts replica memory. It decides and delays no commit.
#![forbid(unsafe_code)]

pub mod cluster;
pub mod config;
pub mod directory;
pub mod identity;
pub mod lease;
pub mod metrics;
pub mod node;
pub mod peers;
pub mod replicas;
pub mod sessions;
