//! The sessions that hold something, on disk: a daemon that is started again knows them when they come back.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use segstore_core::layout::Ownership;
use serde::{Deserialize, Serialize};

use super::credentials::{Credentials, Process};
use super::session::{Session, Wants};

/// One session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) token: String,
    pub(super) number: u64,
    pub(super) program: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) pid: i32,
    pub(super) started: u64,
    pub(super) holding: Vec<String>,
    #[serde(default)]
    pub(super) claims: BTreeMap<String, Ownership>,
    /// Who wants what is held; an older daemon did not tell processes apart.
    #[serde(default)]
    wants: BTreeMap<String, Wants>,
    /// Whoever had connected, the first one at least.
    #[serde(default)]
    processes: BTreeSet<Process>,
}

impl Kept {
    pub(super) fn of(session: &Session) -> Self {
        let Credentials { uid, gid, groups, pid, started } = session.credentials.clone();
        Self {
            token: session.token.clone(),
            number: session.number,
            program: session.program.clone(),
            uid,
            gid,
            groups,
            pid,
            started,
            holding: session.holding(),
            claims: session.claims().into_iter().filter_map(|(name, claimed)| Some((name, claimed?))).collect(),
            wants: session.wants(),
            processes: session.processes(),
        }
    }

    /// The session as it was.
    pub(super) fn session(self) -> Arc<Session> {
        let credentials = self.credentials();
        let first = credentials.process();
        let session = Session::new(self.token, self.number, self.program, credentials);
        session.expect(self.processes.into_iter().chain([first]));
        for name in &self.holding {
            let wants = self.wants.get(name).cloned().unwrap_or_else(Wants::of_the_session);
            session.hold_still(name, wants, self.claims.get(name).copied());
        }
        session
    }

    fn credentials(&self) -> Credentials {
        let Self { uid, gid, ref groups, pid, started, .. } = *self;
        Credentials { uid, gid, groups: groups.clone(), pid, started }
    }
}

/// What a former life left.
pub(super) fn read(file: &Path) -> Vec<Kept> {
    match std::fs::read(file) {
        Ok(json) => serde_json::from_slice(&json)
            .inspect_err(|error| tracing::error!("{}: {error}; earlier sessions are not known", file.display()))
            .unwrap_or_default(),
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::error!("{}: {error}; earlier sessions are not known", file.display());
            }
            Vec::new()
        }
    }
}

/// Replaces the file. It holds secrets.
pub(super) fn write(file: &Path, sessions: &[Kept]) {
    let beside: PathBuf = file.with_extension("new");
    let json = serde_json::to_vec(sessions).unwrap_or_default();
    let options = || {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
    };
    let wrote = options().open(&beside).and_then(|mut new| new.write_all(&json));
    if let Err(error) = wrote.and_then(|()| std::fs::rename(&beside, file)) {
        tracing::error!("{}: {error}; after a restart, sessions will count as ended", file.display());
    }
}
