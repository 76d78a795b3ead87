//! Exit codes: what a script can act on.

use std::process::ExitCode;

use segstore::Error;

pub(crate) const HELP: &str = "\
Exit codes: 0 done; 1 something that should not happen; 2 wrong usage; 10 not found; 11 owned by another; 12 fenced; \
13 too few replicas; 14 no good copy; 15 unreachable; 16 no room; 17 refused; 18 the name is taken. \
`run` ends with the code of its program, or 128 and the signal that killed it; with 12 when somebody else holds the name.";

/// Somebody else owns it by now.
pub(crate) const FENCED: u8 = 12;

/// Why a command ended without what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The library or the daemon said so.
    #[error(transparent)]
    Segstore(#[from] Error),
    /// A file of the user.
    #[error("{0}")]
    File(String),
    /// A value of the user.
    #[error("{0}")]
    Usage(String),
    /// A check of the machine that found problems.
    #[error("{0}")]
    Unwell(String),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Segstore(error) => match error {
                Error::Invalid(_) => 2,
                Error::NotFound(_) => 10,
                Error::Owned { .. } => 11,
                Error::Fenced { .. } => FENCED,
                Error::Pending { .. } => 13,
                Error::NoGoodCopy(_) => 14,
                Error::NoDaemon { .. } | Error::Unreachable(_) => 15,
                Error::NoRoom(_) => 16,
                Error::Refused(_) => 17,
                Error::Exists(_) => 18,
                _ => 1,
            },
            Self::File(_) | Self::Unwell(_) => 1,
            Self::Usage(_) => 2,
        }
    }
}

/// The process's end.
pub(crate) fn of(done: Result<ExitCode, Failure>) -> ExitCode {
    match done {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("segctl: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
