//! Whether a program can be run at all.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use crate::exit::Failure;

/// The codes that shells have for it.
pub(super) const NOT_EXECUTABLE: u8 = 126;
pub(super) const NOT_FOUND: u8 = 127;

/// Looks for the program as starting it does.
pub(super) fn find(program: &OsStr) -> Result<(), Failure> {
    let name = program.display();
    let is_executable = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    if program.as_bytes().contains(&b'/') {
        let path = Path::new(program);
        return match path.try_exists() {
            Ok(true) if is_executable(path) => Ok(()),
            Ok(true) => Err(Failure::Program(NOT_EXECUTABLE, format!("{name} is no file that can be executed"))),
            Ok(false) => Err(Failure::Program(NOT_FOUND, format!("{name} is not there"))),
            Err(error) => Err(Failure::Program(NOT_EXECUTABLE, format!("{name}: {error}"))),
        };
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found: Vec<_> = std::env::split_paths(&folders).map(|folder| folder.join(program)).collect();
    if found.iter().any(|path| is_executable(path)) {
        Ok(())
    } else if let Some(path) = found.iter().find(|path| path.is_file()) {
        Err(Failure::Program(NOT_EXECUTABLE, format!("{} is no file that can be executed", path.display())))
    } else {
        Err(Failure::Program(NOT_FOUND, format!("{name} is in no folder of PATH")))
    }
}
