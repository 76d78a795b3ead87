//! Waiting for one's turn to own segments.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::follow::{Ahead, Following};
use crate::name::HeldName;
use crate::options::OpenOptions;
use crate::session::Inner as Session;
use crate::time::after;

/// The turn to own a segment.
pub(crate) struct Turn {
    pub(crate) held: HeldName,
    /// When it came.
    pub(crate) came: Instant,
    /// What was copied of the segment while others had it.
    pub(crate) ahead: Option<Ahead>,
}

/// Holds these names, in this order, at the latest when the time is over that the options give. While others have them their segments are
/// followed, if that is asked for.
pub(crate) fn wait_for(session: &Arc<Session>, names: &[&str], options: &OpenOptions) -> Result<Vec<Turn>> {
    let until = options.wait_for_holder.map(|wait| after(Instant::now(), wait));
    let (mut following, mut held) = (None, Vec::with_capacity(names.len()));
    for name in names {
        let may_wait = until.is_none_or(|until| until > Instant::now());
        if options.follow && following.is_none() && may_wait {
            match HeldName::acquire(session, name, Some(Duration::ZERO), options.force) {
                Err(Error::Owned { .. } | Error::Unreachable(_)) => following = Some(Following::start(session, names)?),
                taken => {
                    held.push(taken?);
                    continue;
                }
            }
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        held.push(HeldName::acquire(session, name, left, options.force)?);
    }
    let came = Instant::now();
    let mut copied = following.map(Following::stop).unwrap_or_default();
    Ok(held.into_iter().zip(names).map(|(held, &name)| Turn { held, came, ahead: copied.remove(name) }).collect())
}
