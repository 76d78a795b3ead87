//! One error type: a kind that a caller can act on, what it breaks, and the provider's own code.

use std::fmt;
use std::sync::Arc;

/// The result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value given by the caller is wrong: correct it. Nothing happened.
    InvalidInput,
    /// The target does not grant this access: ask for other rights or another range.
    Denied,
    /// The target has revoked this endpoint: a newer owner may exist, so ask before connecting again.
    Revoked,
    /// The target's region stands on other memory now: connect again.
    Moved,
    /// The other side died or the way to it broke: choose another peer, or connect again later.
    PeerGone,
    /// Memory that was mapped is gone: its file was cut short, or its file system is full. What it held is lost.
    Lost,
    /// A time limit passed.
    TimedOut,
    /// This side gave the endpoint up with `abort`.
    Aborted,
    /// A message that no correct peer sends: the other side is broken, hostile, or of another version.
    Protocol,
    /// The other side speaks a version, or lives at a place, that this provider cannot work with.
    Incompatible,
    /// The provider or the memory cannot do this at all: see its capabilities.
    Unsupported,
    /// A limit of the machine or the device was reached: raise it, or use less.
    Exhausted,
    /// The operating system or the device said something else; the code says what.
    System,
}

/// What an error breaks, from little to much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Only this call: whatever it was called on works as before.
    Operation,
    /// The endpoint: everything later on it fails.
    Endpoint,
    /// The domain: everything opened from it fails.
    Domain,
}

/// An error: kind, scope, the provider's own code (0 when it has none) and a sentence for people.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    scope: Scope,
    code: i64,
    detail: Arc<str>,
}

impl Error {
    /// An error that breaks only the call.
    pub fn operation(kind: ErrorKind, detail: impl Into<String>) -> Error {
        Error::new(kind, Scope::Operation, detail)
    }

    /// An error that breaks the endpoint.
    pub fn endpoint(kind: ErrorKind, detail: impl Into<String>) -> Error {
        Error::new(kind, Scope::Endpoint, detail)
    }

    /// An error of any scope.
    pub fn new(kind: ErrorKind, scope: Scope, detail: impl Into<String>) -> Error {
        Error { kind, scope, code: 0, detail: detail.into().into() }
    }

    /// A wrong value: the text names it and says what would be right.
    pub fn invalid(detail: impl Into<String>) -> Error {
        Error::operation(ErrorKind::InvalidInput, detail)
    }

    /// What the operating system said while `doing`; running out of something has a kind of its own.
    pub fn system(doing: &str, error: impl Into<std::io::Error>) -> Error {
        use nix::libc::{EAGAIN, EDQUOT, EMFILE, ENFILE, ENOMEM, ENOSPC};
        let error = error.into();
        let code = error.raw_os_error();
        let kind = match code {
            Some(ENOMEM | EMFILE | ENFILE | ENOSPC | EDQUOT) => ErrorKind::Exhausted,
            Some(EAGAIN) => ErrorKind::TimedOut,
            _ => ErrorKind::System,
        };
        Error::operation(kind, format!("{doing}: {error}")).with_code(code.unwrap_or(0).into())
    }

    /// The same with the provider's own code. Unknown codes are carried, never interpreted.
    #[must_use]
    pub fn with_code(mut self, code: i64) -> Error {
        self.code = code;
        self
    }

    /// The same with another scope.
    #[must_use]
    pub fn with_scope(mut self, scope: Scope) -> Error {
        self.scope = scope;
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What it breaks.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// The provider's own code (for system errors, errno); 0 when there is none.
    pub fn code(&self) -> i64 {
        self.code
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({:?}, code {}): {}", self.kind, self.scope, self.code, self.detail)
    }
}

impl std::error::Error for Error {}
