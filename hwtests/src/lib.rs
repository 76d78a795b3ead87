//! What the tests on verbs devices share: guests that are switched on and off, and a state that proves itself.

pub mod lab;
pub mod state;
