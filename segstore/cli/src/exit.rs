//! Exit codes: what a script can act on.

use std::process::ExitCode;

use segstore::Error;

pub(crate) const HELP: &str = "\
Exit codes: 0 done; 1 something else, such as problems that `doctor` has found; 2 wrong usage, or a file that cannot be opened or is longer than its segment's capacity; 10 not found; \
11 owned by another; 12 fenced; 13 too few replicas; 14 no good copy; 15 unreachable; 16 no room; 17 refused. When its time is over `put` ends with 13, `move` with 15, `replicas` with 16, \
`drain` with 16 while replicas are left and with 17 while applications are. \
`run` ends with the code of its program, or 128 and the signal that killed it; with 126 when the program cannot be executed, \
with 127 when it is not found, with 12 when somebody else may hold the name: another session took it, or the node's lease was not \
confirmed for too long.";

/// Somebody else owns it by now.
pub(crate) const FENCED: u8 = 12;
const REFUSED: u8 = 17;

/// Why a command ended without what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The library or the daemon said so.
    #[error(transparent)]
    Segstore(#[from] Error),
    /// A file of the user.
    #[error("{0}")]
    File(String),
    /// A value of the user, or a file that was named and cannot be opened.
    #[error("{0}")]
    Usage(String),
    /// What the system does not let this user do.
    #[error("{0}")]
    Refused(String),
    /// A program that cannot be run, with the code that shells have for it.
    #[error("{1}")]
    Program(u8, String),
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
                Error::Refused(_) => REFUSED,
                _ => 1,
            },
            Self::File(_) | Self::Unwell(_) => 1,
            Self::Usage(_) => 2,
            Self::Refused(_) => REFUSED,
            Self::Program(code, _) => *code,
        }
    }
}

/// The process's end; why, on standard error.
pub(crate) fn of(as_json: bool, done: Result<ExitCode, Failure>) -> ExitCode {
    match done {
        Ok(code) => code,
        Err(failure) => {
            let code = failure.code();
            if as_json {
                eprintln!("{}", serde_json::json!({ "error": failure.to_string(), "code": code }));
            } else {
                eprintln!("segctl: {failure}");
            }
            ExitCode::from(code)
        }
    }
}
