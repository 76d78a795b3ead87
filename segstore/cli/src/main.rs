//! `segctl`: what operators type.
#![forbid(unsafe_code)]

fn main() {}
