//! Writes a file so that it is whole or as it was. What is no file (a device, a pipe) is written to, and stays what it is.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::unistd::linkat;

use crate::exit::Failure;

/// As many links as the kernel follows.
const LINKS: usize = 40;

/// Writes `bytes` to `file`; `-` is standard output.
pub(super) fn write(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let name = file.display();
    let saying = |error: std::io::Error| Failure::File(format!("{name}: {error}"));
    let not_opened = |error: std::io::Error| Failure::Usage(format!("{name}: {error}"));
    if file == Path::new("-") {
        return std::io::stdout().lock().write_all(bytes).map_err(saying);
    }
    let target = follow(file).map_err(not_opened)?;
    let mode = match fs::metadata(&target) {
        Ok(about) if !about.is_file() => {
            let mut opened = File::options().write(true).open(&target).map_err(not_opened)?;
            return opened.write_all(bytes).map_err(saying);
        }
        Ok(about) => Some(about.permissions()),
        Err(_) => None,
    };
    let part = Part::beside(&target).map_err(|error| {
        let folder = target.parent().unwrap_or(Path::new("")).display();
        Failure::Usage(format!("{name}: no file can be made in {folder}: {error}"))
    })?;
    part.replace(&target, bytes, mode).map_err(saying)
}

/// What a link names, though nothing may be there yet.
fn follow(file: &Path) -> std::io::Result<PathBuf> {
    let mut path = std::path::absolute(file)?;
    for _ in 0..LINKS {
        match fs::read_link(&path) {
            Ok(next) => path = path.parent().unwrap_or(Path::new("/")).join(next),
            Err(_) => return Ok(path),
        }
    }
    Err(Errno::ELOOP.into())
}

/// The new file while it is written. It has no name, so that nothing stays of it when this process ends; where the file system
/// cannot do that, it has one of its own.
struct Part {
    file: File,
    name: PathBuf,
    is_named: bool,
}

impl Part {
    fn beside(target: &Path) -> std::io::Result<Self> {
        let folder = target.parent().unwrap_or(Path::new("/"));
        // Not made of the target's name, which may be as long as a name can be.
        let name = folder.join(format!(".segctl-{}.part", std::process::id()));
        let unnamed = File::options().write(true).custom_flags(OFlag::O_TMPFILE.bits()).mode(0o666).open(folder);
        match unnamed {
            Ok(file) => Ok(Self { file, name, is_named: false }),
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::IsADirectory) => {
                Ok(Self { file: File::create_new(&name)?, name, is_named: true })
            }
            Err(error) => Err(error),
        }
    }

    fn replace(mut self, target: &Path, bytes: &[u8], mode: Option<Permissions>) -> std::io::Result<()> {
        mode.map_or(Ok(()), |mode| self.file.set_permissions(mode))?;
        self.file.write_all(bytes)?;
        self.file.sync_all()?;
        if !self.is_named {
            let unnamed = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
            // A link does not replace a file, a new name does.
            linkat(AT_FDCWD, &unnamed, AT_FDCWD, &self.name, AtFlags::AT_SYMLINK_FOLLOW)?;
            self.is_named = true;
        }
        fs::rename(&self.name, target)?;
        self.is_named = false;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.is_named {
            let _ = fs::remove_file(&self.name);
        }
    }
}
