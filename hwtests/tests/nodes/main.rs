//! Checkpoints, deaths and takeovers among three machines with an RDMA device each, which are guests of the lab.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

mod cables;
mod cluster;
mod deaths;
mod devices;
