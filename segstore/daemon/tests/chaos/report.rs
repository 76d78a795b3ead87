//! What processes tell the run, one line each, before they go on.

use std::io::Write;

use nix::time::{ClockId, clock_gettime};
use segstore::Error;
use serde::{Deserialize, Serialize};

use crate::state::{History, Writer};

/// Nanoseconds of the clock that every process of this machine sees alike.
pub(crate) type Moment = u64;

pub(crate) fn now() -> Moment {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    u64::try_from(now.tv_sec()).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap()
}

/// One line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) segment: String,
    pub(crate) news: News,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum News {
    /// The process owns the segment: what it has loaded, and as whom it goes on.
    Took(Seen, Writer),
    /// A checkpoint was acknowledged.
    Acknowledged { n: u64, epoch: u64, term: u64, began: Moment, at: Moment },
    /// A checkpoint was not acknowledged in its time.
    Pending { n: u64 },
    /// The ownership is over: somebody else has the segment.
    Fenced { term: u64 },
    /// The ownership was given up, because somebody had asked for it or by itself.
    Released { term: u64, is_asked: bool },
    /// Somebody who does not own the segment has loaded it.
    Read { seen: Seen, is_acknowledged: bool },
    /// What was loaded is not what anybody wrote.
    Torn(String),
    /// Something was refused.
    Failed { what: Failing, why: String },
}

/// A state that was loaded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) history: History,
    pub(crate) epoch: u64,
    /// When it was asked for, and had.
    pub(crate) began: Moment,
    pub(crate) at: Moment,
}

/// What an error says, as far as the run cares.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) enum Failing {
    /// Something does not answer, or the caller came too late: to be expected.
    Reach,
    /// No good copy is in reach: to be expected as long as some are out of reach.
    Copies,
    /// Never to be expected.
    Never,
}

pub(crate) fn say(segment: &str, news: News) {
    let mut line = serde_json::to_vec(&Report { segment: segment.to_owned(), news }).unwrap();
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line).unwrap();
    out.flush().unwrap();
}

pub(crate) fn failed(error: &Error) -> News {
    let what = match error {
        Error::NoGoodCopy(_) => Failing::Copies,
        Error::NoDaemon { .. } | Error::Owned { .. } | Error::Fenced { .. } | Error::Pending { .. } => Failing::Reach,
        Error::Unreachable(_) | Error::Refused(_) => Failing::Reach,
        _ => Failing::Never,
    };
    News::Failed { what, why: error.to_string() }
}
