//! A segment's name while this process has it.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::session::Inner as Session;

/// A name that the session holds. It is let go with this, unless the session held it before: then whoever acquired it does that.
pub(crate) struct HeldName {
    session: Arc<Session>,
    name: String,
    is_own: bool,
}

impl HeldName {
    pub(crate) fn acquire(session: &Arc<Session>, name: &str, wait: Option<Duration>, force: bool) -> Result<Self> {
        let is_own = session.acquire(name, wait, force)?;
        Ok(Self { session: session.clone(), name: name.to_owned(), is_own })
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Lets it go, and says whether that is known to be done.
    pub(crate) fn release(mut self) -> Result<()> {
        let is_own = std::mem::take(&mut self.is_own);
        if is_own { self.session.release(&self.name) } else { Ok(()) }
    }
}

impl Drop for HeldName {
    fn drop(&mut self) {
        if self.is_own {
            self.session.release_soon(&self.name);
        }
    }
}
