//! Addresses on this machine for servers that are told where to listen.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that the system gives to whoever connects somewhere or asks for any: one of those may be taken by the time the server
/// comes for it, or comes for it again.
const FIRST: u16 = 10_000;
const COUNT: u16 = 10_000;

/// How many were given, by this process.
static GIVEN: AtomicU16 = AtomicU16::new(0);

/// An address at which nobody listens, and which nobody else in this process is given.
pub(crate) fn unused() -> String {
    let own = u16::try_from(std::process::id() * 97 % u32::from(COUNT)).unwrap();
    let mut ports = std::iter::repeat_with(|| FIRST + (own + GIVEN.fetch_add(1, Ordering::Relaxed)) % COUNT);
    ports
        .by_ref()
        .take(COUNT.into())
        .map(|port| format!("127.0.0.1:{port}"))
        .find(|at| TcpListener::bind(at).is_ok())
        .unwrap()
}
