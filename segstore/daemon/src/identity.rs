//! Who this node is, and which machine it is on.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use segstore::control::message::{Fault, FaultKind};
use segstore_core::id::NodeId;

/// The node's number: made once, kept in the data directory.
///
/// # Errors
/// The file cannot be read or written, or holds something else.
pub fn node_id(data_dir: &Path) -> Result<NodeId, String> {
    let file = data_dir.join("node-id");
    let saying = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    match std::fs::read_to_string(&file) {
        Ok(text) => text.trim().parse().map_err(|error| saying(&error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let node = NodeId(random().map_err(|error| saying(&error))?);
            replace(&file, &format!("{node}\n")).map_err(|error| saying(&error))?;
            Ok(node)
        }
        Err(error) => Err(saying(&error)),
    }
}

/// Replaces a file: whatever happens, the old or the new text is in it, and after this the new one.
///
/// # Errors
/// What the system said.
pub(crate) fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let beside = file.with_extension("new");
    let mut new = File::create(&beside)?;
    new.write_all(text.as_bytes())?;
    new.sync_all()?;
    std::fs::rename(&beside, file)?;
    file.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// What tells one boot of one machine from every other: processes with the same can share memory.
///
/// # Errors
/// The kernel does not say.
pub fn host() -> Result<String, String> {
    let file = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    Ok(text.trim().to_owned())
}

/// The system has no random bits.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bits: {0}")]
pub struct NoRandom(getrandom::Error);

impl From<NoRandom> for Fault {
    fn from(error: NoRandom) -> Self {
        Self::new(FaultKind::Internal, error.to_string())
    }
}

/// 128 random bits.
///
/// # Errors
/// The system gives none.
pub fn random() -> Result<u128, NoRandom> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(NoRandom)?;
    Ok(u128::from_ne_bytes(bytes))
}

/// 64 random bits, not all of them 0.
///
/// # Errors
/// The system gives none.
pub fn random_number() -> Result<u64, NoRandom> {
    random().map(|bits| u64::try_from(bits >> 64).unwrap_or_default().max(1))
}

/// Milliseconds since 1970.
#[must_use]
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
