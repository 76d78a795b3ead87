//! The control channel between a client and its node's daemon: a Unix socket, frames of JSON, requests both ways.
//!
//! Nothing of the data path passes here. The daemon knows its peer by the socket's credentials; a *session* is one or more
//! connections, and ends when the last one closes.

pub mod channel;
pub mod frame;
pub mod message;
pub mod rdma;
