//! Addresses on this machine that a cluster keeps: chosen once, so that it is found at them again after a restart.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::TcpListener;
use std::path::Path;

use crate::exit::Failure;

/// Below those that the system gives to whoever connects somewhere: one of these is still free when the daemon comes for it.
const FIRST: u64 = 20_000;
const COUNT: u64 = 12_000;

/// Where the first node listens for the others.
pub(super) fn directory(dir: &Path) -> Result<String, Failure> {
    chosen(&dir.join("directory-address"))
}

/// The address that stands in `file`; if there is none, a free one, which is written there.
pub(super) fn chosen(file: &Path) -> Result<String, Failure> {
    if let Some(address) = read(file) {
        return Ok(address);
    }
    let mut hasher = DefaultHasher::new();
    // Another process may be choosing for a cluster of its own.
    (file, std::process::id()).hash(&mut hasher);
    let first = hasher.finish() % COUNT;
    let free = (0..COUNT).map(|step| format!("127.0.0.1:{}", FIRST + (first + step) % COUNT));
    let free = free.into_iter().find(|address| TcpListener::bind(address).is_ok());
    let free = free.ok_or_else(|| Failure::File("no free port on 127.0.0.1".to_owned()))?;
    std::fs::write(file, &free).map_err(|error| Failure::File(format!("{}: {error}", file.display())))?;
    Ok(free)
}

/// The address that stands in `file`.
pub(super) fn read(file: &Path) -> Option<String> {
    std::fs::read_to_string(file).ok().map(|address| address.trim().to_owned())
}
