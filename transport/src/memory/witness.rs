//! Whether a copy of memory that a peer may still be writing is whole.
//!
//! Nobody can stop a peer that has its stores before it. But one that first stores a witness, and then what it speaks of, is found out:
//! whatever of it is in a copy, its witness is in the original when the copy is over.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use super::backing::{Backing, gone};
use crate::sync::{Ordering, fence};
use crate::{Error, Result};

/// Bytes that a peer changes before it changes what they speak of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Where they are in the memory.
    pub offset: usize,
    /// What stands there after a move during which they changed: what they speak of may be torn.
    pub torn: Vec<u8>,
}

impl Backing {
    /// Looks at the witnesses after the copy, in the original and in the copy, and puts down in the copy which of them changed.
    pub(super) fn judge(&self, copy: &OwnedFd) -> Result<()> {
        if self.witnesses.is_empty() {
            return Ok(());
        }
        // Every byte was copied before the first witness is looked at.
        fence(Ordering::SeqCst);
        let saying = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => gone(self.witnesses.iter().map(Witness::end).max().unwrap_or(0)),
            _ => Error::system("looking for what was written while memory was moved", error),
        };
        let open = |fd: &OwnedFd| fd.try_clone().map(File::from);
        let (original, copy) = (open(&self.fd).map_err(saying)?, open(copy).map_err(saying)?);
        for Witness { offset, torn } in &self.witnesses {
            let (mut now, mut copied) = (vec![0; torn.len()], vec![0; torn.len()]);
            original.read_exact_at(&mut now, self.offset + *offset as u64).map_err(saying)?;
            copy.read_exact_at(&mut copied, *offset as u64).map_err(saying)?;
            if now != copied {
                copy.write_all_at(torn, *offset as u64).map_err(saying)?;
            }
        }
        Ok(())
    }
}

impl Witness {
    fn end(&self) -> usize {
        self.offset + self.torn.len()
    }
}
