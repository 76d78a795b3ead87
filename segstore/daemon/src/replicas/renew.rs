//! A former replica as the beginning of a new one: what stands in it need not be copied again.
//!
//! The new one has a name of its own. A request that names the former one, to forget it or to add it, may still be on its way, and is not
//! about this one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use segstore_core::forget::Forgettable;
use segstore_core::id::{Incarnation, Stamp};
use segstore_core::layout::{Ownership, ReplicaHead};
use segstore_core::repair::Repair;
use segstore_core::replica::{Request, Turn};
use segstore_core::slot::SlotView;

use super::error::ReplicaError;
use super::hosted::Hosted;
use super::level::level;
use super::{Head, Replicas, Source};
use crate::identity::random;

impl Replicas {
    /// Makes a replica out of one of those that it is to replace, if one holds anything that the source's image descends from. Its slots
    /// are blank, and the repair knows what stands in them.
    ///
    /// # Errors
    /// Another owner, or another request of this one, has the former replica now.
    pub(super) fn renew(
        &self,
        repair: &mut Repair,
        source: &Source,
        replaced: &Forgettable,
    ) -> Result<Option<(Arc<Hosted>, Turn)>, ReplicaError> {
        // Whoever is to forget all of this segment hears of what is not listed for a moment.
        let _making = self.making.begin(source.segment);
        let is_of_use = |former: &Arc<Hosted>| {
            let is_alike = replaced.members.contains(&former.member) && former.geometry == source.geometry;
            is_alike && !former.is_costly_to_fence()
        };
        let formers = self.of_segment(source.segment).into_iter().filter(is_of_use);
        let newest = formers.max_by_key(|former| former.heads().ok().and_then(|heads| held(repair, former, &heads)));
        let Some(former) = newest else { return Ok(None) };
        match self.renew_from(&former, repair, replaced.by) {
            Err(error) if !matches!(error, ReplicaError::Ended | ReplicaError::Refused(_)) => {
                tracing::warn!(
                    segment = %source.segment, replica = %former.member.incarnation,
                    "nothing can be made of a former replica, and all of it is copied again: {error}"
                );
                Ok(None)
            }
            renewed => renewed,
        }
    }

    fn renew_from(
        &self,
        former: &Hosted,
        repair: &mut Repair,
        by: Ownership,
    ) -> Result<Option<(Arc<Hosted>, Turn)>, ReplicaError> {
        if held(repair, former, &former.heads()?).is_none() {
            return Ok(None);
        }
        let (segment, incarnation) = (former.segment, former.member.incarnation);
        // Whoever is admitted after this ends the turn.
        let (heads, turn) = former.admit(&Request { segment, incarnation, asker: by }, &self.options.domains)?;
        level(former, &repair.usable(former.views(&heads)), turn)?;
        let levelled = repair.usable(former.views(&former.heads()?));
        let (node, geometry, remembered) = (self.options.node, former.geometry, by);
        let head = ReplicaHead { segment, incarnation: Incarnation(random()?), node, geometry, remembered };
        let replica = Arc::new(Hosted::new(&head, former.hand_over(turn, &head)?));
        let turn = replica.turn();
        let mut hosted = self.lock();
        if hosted.remove(&(segment, incarnation)).is_none() {
            // Somebody has forgotten the former one at this moment, and given its memory back.
            self.used.fetch_add(former.bytes(), Ordering::Relaxed);
        }
        hosted.insert((segment, head.incarnation), replica.clone());
        repair.onto(&levelled);
        Ok(Some((replica, turn)))
    }
}

/// The newest image of a former replica that the source's descends from.
fn held(repair: &Repair, former: &Hosted, heads: &[Head]) -> Option<Stamp> {
    repair.usable(former.views(heads)).iter().filter_map(SlotView::image).max()
}
