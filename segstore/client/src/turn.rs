//! Waiting for one's turn to own segments.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::follow::{Ahead, Following};
use crate::name::HeldName;
use crate::options::OpenOptions;
use crate::session::Inner as Session;
use crate::time::after;

/// Before that is tried anew which failed since something did not answer: the first pause, which doubles, and the longest. Each attempt has a
/// term of its own.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How often it is said that it still fails.
const REMIND: Duration = Duration::from_secs(60);

/// The turn to own a segment.
pub(crate) struct Turn {
    pub(crate) held: HeldName,
    /// When it came.
    pub(crate) came: Instant,
    /// What was copied of the segment while others had it.
    pub(crate) ahead: Option<Ahead>,
}

/// Opens what `open` opens. Whoever stands by stands by anew, as long as there is time, when the turn came and the directory or replicas did not
/// answer: meanwhile it is the turn of whoever else stands by.
pub(crate) fn stand_by<T>(options: &OpenOptions, open: impl Fn(&OpenOptions) -> Result<T>) -> Result<T> {
    let until = options.wait_for_holder.map(|wait| after(Instant::now(), wait));
    let (mut options, mut pause, mut told) = (options.clone(), AGAIN.0, None::<Instant>);
    loop {
        let why = match open(&options) {
            Err(Error::Unreachable(why)) => why,
            done => return done,
        };
        if until.is_some_and(|until| until <= Instant::now() + pause) {
            return Err(Error::Unreachable(why));
        }
        if told.is_none_or(|told| told.elapsed() >= REMIND) {
            tracing::warn!("still standing by: {why}");
            told = Some(Instant::now());
        }
        std::thread::sleep(pause);
        pause = AGAIN.1.min(2 * pause);
        options.wait_for_holder = until.map(|until| until.saturating_duration_since(Instant::now()));
    }
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
