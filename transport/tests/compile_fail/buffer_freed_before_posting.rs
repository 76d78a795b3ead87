//! A slice borrows its region until it is posted; from then on the operation holds the region itself.
use segstore_transport::{Endpoint, Operation, Region};

fn post(endpoint: &mut Endpoint, region: Region) {
    let slice = region.slice(0, 8).unwrap();
    drop(region);
    endpoint.post(&[Operation::write(slice, 0, 0)], 1).unwrap();
}

fn main() {}
