//! What happens to an engine from outside.

use std::time::Duration;

use segstore_core::id::{Member, Stamp};
use segstore_core::layout::Ownership;
use segstore_core::record::{RecordVersion, Versioned};
use segstore_core::replica::Refused;
use segstore_core::slot::SlotView;

use super::link::Link;
use super::wanted::Wanted;
use crate::control::channel::Reporter;
use crate::control::message::Place;
use crate::way::Way;

/// One event. Those that carry a reporter are demands of the daemon.
pub(crate) enum Event {
    /// A replica was reached.
    Connected(Box<Link>),
    /// It may be reached over something better than this.
    Better(Member, Way),
    /// It could not be, for as long as one waits; or will not be.
    Unreached(Member, String),
    /// It refused.
    Refused(Member, Refused),
    /// The record was changed.
    Swapped(RecordVersion),
    /// It was not: it is this.
    Conflicted(Versioned),
    /// There was no answer.
    SwapUnknown,
    /// There is no record any more.
    Unlinked,
    /// The record, and how the segment is to be kept, as the read of this number found it.
    RecordRead(Versioned, Wanted, u64),
    /// It was not changed, since the directory does not take anything now.
    NotSwapped,
    /// What a replica holds: the newest image; or why it could not be seen.
    Seen { member: Member, look: u64, newest: Result<Option<Stamp>, String> },
    /// It may be tried again to let go of replicas.
    Rested,
    /// The copy on this node, and a link to it.
    LocalFound { place: Place, link: Box<Link>, slots: Vec<SlotView> },
    /// There is none, and none can be made now.
    NoLocal,
    /// A replica was filled.
    Repaired { by: Ownership, place: Place, slots: u32, base: Stamp, closed: Option<u32> },
    /// A replica was made in which nothing stands, for this ownership.
    Made { by: Ownership, place: Place, slots: u32 },
    /// It was not, and why that was, if it is known anew.
    NotRepaired(Option<String>),
    /// A replica was filled so long ago that it should be in sync by now.
    ShouldBeInSync(Member),
    /// The node's daemon answers again: it may be another process than before.
    DaemonIsBack,
    /// Hold the newest acknowledged image.
    Hold { time: Duration, without: Vec<Member>, reporter: Reporter },
    /// End a hold.
    EndHold { number: u64, reporter: Reporter },
    /// How the segment is to be kept, or where, is another matter now.
    Changed(Reporter),
    /// Say how the segment is.
    State(Reporter),
}
