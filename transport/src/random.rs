//! What nobody can guess.

use crate::{Error, Result};

/// Random bytes from the kernel.
pub(crate) fn random() -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        // SAFETY: the pointer and the length describe the rest of `bytes`.
        let got = unsafe { nix::libc::getrandom(bytes[filled..].as_mut_ptr().cast(), bytes.len() - filled, 0) };
        match nix::errno::Errno::result(got) {
            Ok(got) => filled += got.unsigned_abs(),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(Error::system("getting random bytes", error)),
        }
    }
    Ok(bytes)
}
