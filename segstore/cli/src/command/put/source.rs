//! The file that is put.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::SMALLEST;
use crate::exit::Failure;
use crate::output::units;

pub(super) struct Source {
    /// For people.
    name: String,
    file: File,
}

impl Source {
    /// Opens it; `-` is standard input.
    pub(super) fn open(file: &Path) -> Result<Self, Failure> {
        let is_input = file == Path::new("-");
        let name = if is_input { "standard input".to_owned() } else { file.display().to_string() };
        let saying = |error: std::io::Error| Failure::Usage(format!("{name}: {error}"));
        let opened = match is_input {
            true => std::io::stdin().as_fd().try_clone_to_owned().map(File::from),
            false => File::open(file),
        };
        let opened = opened.map_err(saying)?;
        if opened.metadata().map_err(saying)?.is_dir() {
            return Err(Failure::Usage(format!("{name}: a segment holds one file, and this is a directory")));
        }
        Ok(Self { name, file: opened })
    }

    /// Reads all of it, if it fits into the segment.
    pub(super) fn read(mut self, capacity: Option<u64>, segment: &str, is_there: bool) -> Result<Vec<u8>, Failure> {
        let saying = |error: std::io::Error| Failure::File(format!("{}: {error}", self.name));
        let about = self.file.metadata().map_err(saying)?;
        let kind = about.file_type();
        // A device need not have an end.
        let is_device = (kind.is_char_device() && !self.file.is_terminal()) || kind.is_block_device();
        let limit = capacity.or(is_device.then_some(SMALLEST)).unwrap_or(u64::MAX);
        let mut content = Vec::new();
        if about.len() <= limit {
            (&mut self.file).take(limit.saturating_add(1)).read_to_end(&mut content).map_err(saying)?;
        }
        let has = about.len().max(content.len() as u64);
        if has <= limit {
            return Ok(content);
        }
        let (name, has, room) = (&self.name, units::size(has), units::size(limit));
        Err(Failure::Usage(match (is_there, capacity) {
            (true, _) => format!(
                "{name} has {has} or more, but segment {segment} can grow to {room} only: put it under another name with \
                 --capacity, or remove this one first"
            ),
            (false, Some(_)) => format!("{name} has more than --capacity {room}: say how much it may have"),
            (false, None) => {
                format!("{name} is a device, and gives more than {room}: say with --capacity how much it may")
            }
        }))
    }
}
