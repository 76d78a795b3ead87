//! The checkpoint protocol, pure.
#![forbid(unsafe_code)]
