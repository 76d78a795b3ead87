//! An endpoint belongs to one thread at a time.
use segstore_transport::{Endpoint, Operation};

fn share(endpoint: &Endpoint) {
    std::thread::scope(|scope| {
        scope.spawn(|| endpoint.post(&[Operation::Flush], 1));
        scope.spawn(|| endpoint.post(&[Operation::Flush], 2));
    });
}

fn main() {}
