//! What a provider can do, as data.

/// How a target makes sure that nothing of a revoked peer lands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RevokeKind {
    /// The fabric or this process refuses the peer's access. The cost does not grow with the region.
    Access,
    /// Unless the peer's process is proven dead, the region gets fresh backing at the same address. The cost grows
    /// with the bytes worth keeping.
    FreshBacking,
    /// Only the peer's proven death helps: the memory (a device, a mapped file whose name others use) cannot be
    /// replaced. `revoke` fails while the peer lives.
    DeathOnly,
}

/// What a domain can do. Limits are what one call may ask for; the contract splits messages, never batches.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The provider's name.
    pub provider: &'static str,
    /// The most operations in a batch, after long ones were split.
    pub max_batch: usize,
    /// The longest single transfer in bytes; longer operations are split.
    pub max_message: usize,
    /// The most batches in flight on an endpoint.
    pub max_outstanding: usize,
    /// The most notifications in a batch.
    pub max_notifications: usize,
    /// The most regions that one peer may be granted.
    pub max_grants: usize,
    /// `compare_swap` works, and is atomic against every other access of this provider.
    pub atomics: bool,
    /// It is atomic against the target's processor too.
    pub processor_atomics: bool,
    /// Notifications work.
    pub notifications: bool,
    /// Bytes are placed in order, so that a header may follow its data in one batch.
    pub ordered_placement: bool,
    /// The target has to call `progress` for anything to land.
    pub needs_target_cpu: bool,
    /// Waiting can sleep until an event instead of looking again and again.
    pub event_waiting: bool,
    /// The best that `revoke` can do here; a region may have less (see `Region::revoke_kind`).
    pub revoke: RevokeKind,
}

impl Capabilities {
    /// The capabilities of a provider that can do everything at a cost that does not grow, without limits. A provider
    /// starts here and takes away.
    pub fn full(provider: &'static str) -> Capabilities {
        Capabilities {
            provider,
            max_batch: usize::MAX,
            max_message: usize::MAX,
            max_outstanding: 128,
            max_notifications: usize::MAX,
            max_grants: 64,
            atomics: true,
            processor_atomics: true,
            notifications: true,
            ordered_placement: true,
            needs_target_cpu: false,
            event_waiting: true,
            revoke: RevokeKind::Access,
        }
    }
}
