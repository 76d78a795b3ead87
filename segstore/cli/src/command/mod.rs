//! One file for each command.

pub(crate) mod dev;
pub(crate) mod directory;
pub(crate) mod doctor;
pub(crate) mod drain;
pub(crate) mod events;
pub(crate) mod get;
pub(crate) mod ls;
pub(crate) mod move_to;
pub(crate) mod nodes;
pub(crate) mod perf;
pub(crate) mod plan;
pub(crate) mod put;
pub(crate) mod replicas;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod shell;
pub(crate) mod status;

use std::path::PathBuf;

use segstore::{DEFAULT_SOCKET, Result, SESSION_VARIABLE, SOCKET_VARIABLE, Session};

/// What every command is told.
pub(crate) struct Context {
    pub(crate) socket: PathBuf,
    pub(crate) json: bool,
    /// Of the session that `run` holds a segment with, in what it runs.
    joins: Option<String>,
}

impl Context {
    pub(crate) fn new(socket: Option<PathBuf>, json: bool) -> Self {
        let of_environment = std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let socket = socket.or_else(|| of_environment.clone()).unwrap_or_else(|| DEFAULT_SOCKET.into());
        // The session is one of the daemon that the environment names.
        let joins = std::env::var(SESSION_VARIABLE).ok().filter(|token| !token.is_empty());
        let joins = joins.filter(|_| of_environment.as_ref() == Some(&socket));
        Self { socket, json, joins }
    }

    /// A session with the daemon: in what `run` runs, that one's, which holds the name.
    pub(crate) fn session(&self) -> Result<Session> {
        match &self.joins {
            Some(token) => Session::join_at(&self.socket, token),
            None => self.own_session(),
        }
    }

    /// A session of this process alone.
    pub(crate) fn own_session(&self) -> Result<Session> {
        Session::connect_to(&self.socket)
    }

    /// Whether the session is that of a `run` around this process.
    pub(crate) fn is_inside_run(&self) -> bool {
        self.joins.is_some()
    }
}

/// What a segment's owner warns of, if there is one that answers; or what a node says that looks after it.
fn warnings(session: &Session, name: &str) -> Vec<String> {
    let Ok(status) = session.status(name) else { return Vec::new() };
    status.owner.map_or_else(|| status.care.into_iter().collect(), |owner| owner.warnings)
}
