//! Named segments of memory that survive the node they live on.
//!
//! An application keeps its state in a [`Segment`] and calls [`Segment::checkpoint`]. Before that call returns, the changed
//! bytes stand in the memory of other nodes. When the node dies, the application is started elsewhere, opens the segment by
//! name, and has the last checkpoint in its own memory, verified. An old owner that was only slow is kept out.
//!
//! ```no_run
//! use segstore::{CreateOptions, OpenOptions, Session};
//!
//! # fn main() -> segstore::Result<()> {
//! let session = Session::connect()?;
//! let make = CreateOptions::new(64 << 20).replicas(2);
//! let mut segment = session.open_or_create("orders/eu", &make, &OpenOptions::new())?;
//! if segment.is_empty() {
//!     segment.set_len(4096)?;
//! }
//! segment.write(0, b"a new order")?;
//! let checkpoint = segment.checkpoint()?;
//! println!("epoch {} is in the memory of {} other nodes", checkpoint.epoch, checkpoint.elsewhere);
//! # Ok(()) }
//! ```
//!
//! There is no async runtime and no thread on the way of a checkpoint: the calling thread posts one-sided writes to each replica
//! and polls for their completion.
#![deny(unsafe_code)]

mod causes;
mod compare;
pub mod control;
mod domains;
mod engine;
mod error;
mod fabric;
mod follow;
mod group;
mod hold;
mod load;
mod lock;
mod moves;
mod name;
mod options;
mod reader;
#[cfg(feature = "redb")]
pub mod redb;
mod releases;
mod segment;
mod session;
mod stats;
mod takeover;
mod ticket;
mod time;
mod turn;
mod way;
mod working;

pub use control::message::{
    Event, HeldName, Holder, Judged, Left, NodeInfo, OwnerState, Place, ReplicaInfo, SegmentInfo, Standby, Status,
};
pub use error::{Error, Result};
pub use fabric::Fabric;
pub use hold::Hold;
pub use moves::{Move, Moves};
pub use options::{BelowMinimum, Condition, CreateOptions, LoadOptions, OpenOptions, Tracking};
pub use reader::Image;
pub use segment::{Checkpoint, Segment};
pub use segstore_core::id::{Epoch, Term};
pub use segstore_core::owner::Outcome;
pub use segstore_transport::Wait;
pub use session::{DEFAULT_SOCKET, Lease, SESSION_VARIABLE, SOCKET_VARIABLE, Session};
pub use takeover::Times;
pub use ticket::Ticket;

/// What the README shows compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
