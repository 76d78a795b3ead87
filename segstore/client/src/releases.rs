//! Names that are let go while nobody may hear of it: a daemon that is started again knows the session, and what it held.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::control::channel::Asked;
use crate::control::message::{Fault, FaultKind, Request};
use crate::lock::lock;

/// What is let go: a name, and whether this process or the session wanted it.
type Want = (String, bool);

/// What became of the release of a name.
enum Release {
    /// The daemon was told, and has not answered so far.
    Told(Asked),
    /// It may not have heard of it.
    Unheard,
}

/// The releases of a session that are not known to be done.
#[derive(Default)]
pub(crate) struct Releases(Mutex<HashMap<Want, Release>>);

impl Releases {
    /// Lets the name go by what `tell` sends, if the daemon is there; else as soon as it is.
    pub(crate) fn begin(&self, name: &str, own: bool, tell: impl Fn(Request) -> Option<Asked>) {
        // Told under the lock: a daemon that comes back meanwhile is told of what is unheard after this.
        let mut releases = lock(&self.0);
        releases.insert((name.to_owned(), own), Release::Unheard);
        tell_unheard(&mut releases, tell);
    }

    /// Waits for a release that is on its way, at most for `limit`; from here on it is not told again.
    ///
    /// # Errors
    /// The session may hold the name still, although nobody wants it.
    pub(crate) fn end(&self, name: &str, own: bool, limit: Duration) -> Result<(), Fault> {
        let release = lock(&self.0).remove(&(name.to_owned(), own));
        match release {
            Some(Release::Told(asked)) => match asked.wait(Some(limit)) {
                Err(fault) if is_unheard(&fault) => Err(fault),
                _ => Ok(()),
            },
            Some(Release::Unheard) => {
                Err(Fault::new(FaultKind::Unreachable, "the node's daemon is away, and hears of it when it is back"))
            }
            None => Ok(()),
        }
    }

    /// The daemon answers again, and is told what it may not have heard.
    pub(crate) fn tell_again(&self, tell: impl Fn(Request) -> Asked) {
        tell_unheard(&mut lock(&self.0), |request| Some(tell(request)));
    }
}

fn tell_unheard(releases: &mut HashMap<Want, Release>, tell: impl Fn(Request) -> Option<Asked>) {
    releases.retain(|_, release| !is_done(release));
    for (want, release) in releases.iter_mut().filter(|(_, release)| matches!(release, Release::Unheard)) {
        *release = tell(request(want)).map_or(Release::Unheard, Release::Told);
    }
}

fn request((name, own): &Want) -> Request {
    Request::Release { name: name.clone(), own: *own }
}

/// Looks at the answer, if there is one.
fn is_done(release: &mut Release) -> bool {
    let Release::Told(asked) = release else { return false };
    match asked.answer() {
        Some(Err(fault)) if is_unheard(&fault) => {
            *release = Release::Unheard;
            false
        }
        Some(_) => true,
        None => false,
    }
}

fn is_unheard(fault: &Fault) -> bool {
    matches!(fault.kind, FaultKind::Unreachable | FaultKind::NoAnswer | FaultKind::NoRoom)
}
