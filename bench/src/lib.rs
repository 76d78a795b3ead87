//! Benches stand in `benches/`; see `README.md` beside this crate for how to run them and what they gave.
