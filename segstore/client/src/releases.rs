//! Names that are let go while nobody may hear of it: a daemon that is started again knows the session, and what it held.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::control::channel::Asked;
use crate::control::message::{Answer, Fault, FaultKind, Request};
use crate::lock::lock;

/// What became of the release of a name.
enum Release {
    /// The daemon was told, and has not answered so far.
    Told(Asked),
    /// It may not have heard of it.
    Unheard,
}

/// The releases of a session that are not known to be done.
#[derive(Default)]
pub(crate) struct Releases(Mutex<HashMap<String, Release>>);

impl Releases {
    /// Lets the name go by what `tell` sends, if the daemon is there; else as soon as it is.
    pub(crate) fn begin(&self, name: &str, tell: impl FnOnce(Request) -> Option<Asked>) {
        // Told under the lock: a daemon that comes back meanwhile is told of what is unheard after this.
        let mut releases = lock(&self.0);
        releases.retain(|_, release| !is_done(release));
        let told = tell(request(name)).map_or(Release::Unheard, Release::Told);
        releases.insert(name.to_owned(), told);
    }

    /// The name is wanted again: after a release that is on its way, at most for `limit`. Whether the session may hold it still, although
    /// nobody wants it.
    pub(crate) fn end(&self, name: &str, limit: Duration) -> bool {
        let release = lock(&self.0).remove(name);
        match release {
            Some(Release::Told(asked)) => is_unheard(&asked.wait(Some(limit))),
            Some(Release::Unheard) => true,
            None => false,
        }
    }

    /// The daemon answers again, and is told what it may not have heard.
    pub(crate) fn tell_again(&self, tell: impl Fn(Request) -> Asked) {
        let mut releases = lock(&self.0);
        releases.retain(|_, release| !is_done(release));
        for (name, release) in releases.iter_mut().filter(|(_, release)| matches!(release, Release::Unheard)) {
            *release = Release::Told(tell(request(name)));
        }
    }
}

fn request(name: &str) -> Request {
    Request::Release { name: name.to_owned() }
}

/// Looks at the answer, if there is one.
fn is_done(release: &mut Release) -> bool {
    let Release::Told(asked) = release else { return false };
    match asked.answer() {
        Some(answer) if is_unheard(&answer) => {
            *release = Release::Unheard;
            false
        }
        Some(_) => true,
        None => false,
    }
}

fn is_unheard(answer: &Result<Answer, Fault>) -> bool {
    matches!(answer, Err(Fault { kind: FaultKind::Unreachable | FaultKind::NoAnswer, .. }))
}
