//! The target's side.

use std::sync::Arc;

use super::world::{Link, World};
use crate::contract::driver::PeerDriver;
use crate::{Keep, PeerStatistics, Result, Revocation};

pub(super) struct SimPeer {
    world: Arc<World>,
    link: u64,
}

impl SimPeer {
    pub(super) fn new(world: Arc<World>, link: u64) -> SimPeer {
        SimPeer { world, link }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Link) -> T) -> Option<T> {
        self.world.with(|state| state.link(self.link).map(act))
    }
}

impl PeerDriver for SimPeer {
    fn revoke(&self, _keep: Keep<'_>) -> Result<Revocation> {
        // Requests are applied under the same lock: none is half-way when this returns, and later ones are refused.
        let revocation = self.with(|link| {
            let never = !link.connected && !link.revoked;
            link.revoked = true;
            link.grants.clear();
            if never { Revocation::NeverConnected } else { Revocation::AccessRemoved }
        });
        Ok(revocation.unwrap_or(Revocation::AccessRemoved))
    }

    fn is_alive(&self) -> bool {
        let initiator = self.with(|link| (!link.revoked && !link.closed).then_some(link.initiator)).flatten();
        initiator.is_some_and(|node| !self.world.with(|state| state.is_dead(node)))
    }

    fn poll_notification(&self) -> Option<u64> {
        self.with(|link| {
            let value = link.notifications.pop_front();
            link.taken += u64::from(value.is_some());
            value
        })
        .flatten()
    }

    fn statistics(&self) -> PeerStatistics {
        let read = |link: &mut Link| PeerStatistics {
            notifications: link.taken,
            operations: Some(link.operations),
            bytes: Some(link.bytes),
        };
        self.with(read).unwrap_or_default()
    }
}
