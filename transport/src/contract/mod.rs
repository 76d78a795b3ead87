//! What every provider promises: the public types, derived once over the small traits in [`driver`].

mod capabilities;
mod completion;
mod domain;
pub mod driver;
mod endpoint;
mod error;
mod key;
mod operation;
mod peer;
mod region;
mod server;
mod wait;

pub use capabilities::{Capabilities, RevokeKind};
pub use completion::{Completion, Post};
pub use domain::{Dialing, Domain, Provider};
pub use endpoint::Endpoint;
pub use error::{Error, ErrorKind, Result, Scope};
pub use key::{Granted, Key, Rights};
pub use operation::{Operation, Remote};
pub use peer::{Keep, Peer, PeerStatistics, Revocation};
pub use region::{Grant, Region, Slice};
pub use server::{Server, ServerOptions};
pub use wait::{Wait, pin_thread};
