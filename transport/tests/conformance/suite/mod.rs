//! The promises, over any provider.

mod data;
mod ends;
mod flow;
mod input;
mod revoke;

pub(crate) use data::*;
pub(crate) use ends::*;
pub(crate) use flow::*;
pub(crate) use input::*;
pub(crate) use revoke::*;
