//! A reply makes one endpoint.
use segstore_transport::Dialing;

fn complete(dialing: Dialing, reply: &[u8]) {
    let _first = dialing.complete(reply);
    let _second = dialing.complete(reply);
}

fn main() {}
