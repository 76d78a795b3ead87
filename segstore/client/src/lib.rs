//! Named segments of memory that survive the node they live on.
pub mod control;
