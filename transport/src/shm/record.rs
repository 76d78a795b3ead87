//! What is written down about a peer that may change memory, for a later life of the target: who it is, and which files
//! it can write. A line of text for each, so that a person can read it.

use std::os::fd::AsFd;

use super::process::Identity;
use crate::{Error, Result};

const FIRST_LINE: &str = "segstore shm peer 1";

/// A file, however it is called and whoever maps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(file: &impl AsFd) -> Result<FileId> {
        let about = nix::sys::stat::fstat(file).map_err(|error| Error::system("looking at a mapped file", error))?;
        Ok(FileId { device: about.st_dev, inode: about.st_ino })
    }
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Its process, where that is known: else it is never proven dead.
    pub(super) process: Option<Identity>,
    /// What it can still write.
    pub(super) files: Vec<FileId>,
}

impl Record {
    /// Whether its process is proven dead.
    pub(super) fn is_dead(&self) -> bool {
        self.process.as_ref().is_some_and(Identity::is_dead)
    }

    pub(super) fn encode(&self) -> String {
        let process = self.process.as_ref().map(|process| {
            let Identity { number, started, namespaces: [pids, times] } = process;
            format!("process {number} {started} {pids} {times}\n")
        });
        let files = self.files.iter().map(|FileId { device, inode }| format!("file {device} {inode}\n"));
        format!("{FIRST_LINE}\n{}{}", process.unwrap_or_default(), files.collect::<String>())
    }

    /// `None` for anything but a record of this version.
    pub(super) fn parse(text: &str) -> Option<Record> {
        let mut lines = text.lines();
        let mut record = Record { process: None, files: Vec::new() };
        if lines.next() != Some(FIRST_LINE) || !text.ends_with('\n') {
            return None;
        }
        for line in lines {
            match *line.split(' ').collect::<Vec<_>>() {
                ["process", number, started, pids, times] if record.process.is_none() => {
                    let namespaces = [pids.parse().ok()?, times.parse().ok()?];
                    let (number, started) = (number.parse().ok()?, started.parse().ok()?);
                    record.process = Some(Identity { number, started, namespaces });
                }
                ["file", device, inode] => {
                    record.files.push(FileId { device: device.parse().ok()?, inode: inode.parse().ok()? });
                }
                _ => return None,
            }
        }
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_text() {
        let process = Some(Identity { number: 7, started: 8, namespaces: [9, 10] });
        let files = vec![FileId { device: 1, inode: 2 }, FileId { device: 1, inode: 3 }];
        let record = Record { process, files };
        assert_eq!(record.encode(), "segstore shm peer 1\nprocess 7 8 9 10\nfile 1 2\nfile 1 3\n");
        assert_eq!(Record::parse(&record.encode()), Some(record));
        for wrong in ["", "segstore shm peer 2\n", "segstore shm peer 1", "segstore shm peer 1\nfile 1\n"] {
            assert_eq!(Record::parse(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_record_or_none(text in "(segstore shm peer 1\n)?((process|file)( [0-9]{0,21}){0,5}\n?){0,4}") {
            if let Some(record) = Record::parse(&text) {
                prop_assert_eq!(Record::parse(&record.encode()), Some(record));
            }
        }
    }
}
