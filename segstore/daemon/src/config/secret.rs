//! Files that nobody else may read.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The whole of such a file.
///
/// # Errors
/// It cannot be read, or others may read it. The file is not named.
pub fn read_secret(path: &Path) -> Result<Vec<u8>, String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    let mode = std::fs::metadata(path).map_err(|error| error.to_string())?.permissions().mode();
    if mode & 0o077 == 0 {
        Ok(text)
    } else {
        Err(format!("others may read it (mode {:o}): chmod 600 it", mode & 0o777))
    }
}
