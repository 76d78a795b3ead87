//! The promises, on real daemons and real processes that are killed.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

mod clock;
#[cfg(feature = "etcd")]
mod configured;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "etcd")]
#[path = "../common/etcd_access.rs"]
mod etcd_access;
#[cfg(feature = "etcd")]
#[path = "../common/etcd_server.rs"]
mod etcd_server;
mod following;
mod hangs;
mod harness;
mod local;
mod metrics;
mod mistakes;
mod moves;
mod names;
mod nodes;
mod owners;
mod parting;
mod placing;
mod planned;
#[path = "../common/ports.rs"]
mod ports;
#[cfg(feature = "etcd")]
#[path = "../common/program.rs"]
mod program;
mod readers;
mod repairs;
mod roles;
mod sessions;
mod slow;
mod strangers;
mod unowned;
