//! Memory that a peer may write is never a slice.
use segstore_transport::Memory;

fn look(memory: &Memory) -> &[u8] {
    memory.as_ref()
}

fn main() {}
