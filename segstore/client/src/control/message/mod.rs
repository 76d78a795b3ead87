//! What client and daemon say to each other.
//!
//! A newer side may add fields and variants; an older one ignores fields that it does not know, and answers a request or a demand that
//! it does not know with [`FaultKind::Unsupported`]. So every added field needs a default.

mod bytes;
mod demand;
mod fault;
mod node;
mod owner;
mod placing;
mod replica;
mod request;
mod segment;

pub use bytes::Bytes;
pub use demand::{Demand, Report};
pub use fault::{Fault, FaultKind};
pub use node::{Left, NodeInfo};
pub use owner::{Held, HeldName, Histogram, Holder, LinkState, OwnerState, Standby};
pub use placing::{Condition, Judged, Labelled, OWN_LABELS, Placing, SPREAD, Verdict, is_label};
pub use replica::{Place, ReplicaInfo};
pub use request::{Answer, Request};
pub use segment::{Access, BelowMinimum, Event, Keeping, SegmentInfo, Shape, Status};

/// The version of this protocol. A daemon serves this one and the one before.
pub const PROTOCOL: u32 = 1;
