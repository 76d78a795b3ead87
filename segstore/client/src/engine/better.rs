//! When to look whether a replica that is reached over a second choice, as by TCP after the RDMA device went, is reached over a
//! better one again.
//!
//! A fabric may let a small message through and no checkpoint, so each look comes later than the last one: what it costs must not
//! come for ever.

use std::time::{Duration, Instant};

use segstore_core::id::Member;

/// From a link over a second choice to the first look; it doubles up to the longest.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(300);

/// The replicas that are looked for, each with its next moment and the pause before it.
#[derive(Default)]
pub(super) struct Better(Vec<(Member, Instant, Duration)>);

impl Better {
    /// Whether to look now, for a replica that is reached over a second choice.
    pub(super) fn is_due(&mut self, member: Member, now: Instant) -> bool {
        let Some((_, next, pause)) = self.0.iter_mut().find(|(known, ..)| *known == member) else {
            self.0.push((member, now + FIRST, FIRST));
            return false;
        };
        let is_due = now >= *next;
        if is_due {
            // Long unasked for: it was reached over its best way meanwhile, or nobody has lost anything by a pause.
            *pause = if now > *next + 2 * LONGEST { FIRST } else { (*pause * 2).min(LONGEST) };
            *next = now + *pause;
        }
        is_due
    }

    /// It is no replica any more.
    pub(super) fn forget(&mut self, member: Member) {
        self.0.retain(|(known, ..)| *known != member);
    }
}

#[cfg(test)]
mod tests {
    use segstore_core::id::{Incarnation, NodeId};

    use super::*;

    #[test]
    fn looks_come_later_and_later() {
        let member = Member { node: NodeId(1), incarnation: Incarnation(1) };
        let (mut better, began) = (Better::default(), Instant::now());
        let due = (0..3600).filter(|second| better.is_due(member, began + Duration::from_secs(*second)));
        assert_eq!(due.take(8).collect::<Vec<_>>(), [5, 15, 35, 75, 155, 315, 615, 915]);
        let due = (7200..7230).filter(|second| better.is_due(member, began + Duration::from_secs(*second)));
        assert_eq!(due.collect::<Vec<_>>(), [7200, 7205, 7215], "it starts anew after a long time over the best way");
    }
}
