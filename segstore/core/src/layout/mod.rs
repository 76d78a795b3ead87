//! Every byte of a replica. `docs/segment-format.md` draws it.
//!
//! ```text
//! replica  | head | slot 0 | slot 1 | ...
//! slot     | mark | header and lineage | block table | data |
//! ```
//!
//! All integers are little-endian, all places are offsets. What stands here is written by other machines and survives crashes:
//! every structure carries a checksum, and what does not match it is treated as never written.

pub mod checksum;
pub mod geometry;
pub mod header;
pub mod mark;
pub mod replica_head;
pub mod table;

pub use checksum::Key;
pub use geometry::{Geometry, GeometryError};
pub use header::SlotHeader;
pub use mark::Mark;
pub use replica_head::{Ownership, ReplicaHead};
pub use table::{BlockIndex, Entry};

/// The version of everything in this module. A replica of another version is refused, never reinterpreted.
pub const VERSION: u32 = 1;
