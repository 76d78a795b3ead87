//! One file for each command.

pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod get;
pub(crate) mod ls;
pub(crate) mod nodes;
pub(crate) mod perf;
pub(crate) mod put;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod shell;
pub(crate) mod status;

use std::path::PathBuf;

use segstore::{Result, Session};

/// What every command is told.
pub(crate) struct Context {
    pub(crate) socket: PathBuf,
    pub(crate) json: bool,
}

impl Context {
    /// A session with the daemon.
    pub(crate) fn session(&self) -> Result<Session> {
        Session::connect_to(&self.socket)
    }
}
