//! `segctl directory`: the daemon's own program moves it, with the daemon's configuration.

use std::process::ExitCode;

use crate::arguments::{Directory, Transfer};
use crate::dev::daemon;
use crate::exit::Failure;

/// Ends as that program does, which says itself what is wrong.
pub(crate) fn run(what: &Directory) -> Result<ExitCode, Failure> {
    let (flag, Transfer { file, config }) = match what {
        Directory::Export(transfer) => ("--export-directory", transfer),
        Directory::Import(transfer) => ("--import-directory", transfer),
    };
    let done = daemon()?.arg("--config").arg(config).arg(flag).arg(file).status();
    let done = done.map_err(|error| Failure::File(format!("starting segstored: {error}")))?;
    Ok(ExitCode::from(done.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
