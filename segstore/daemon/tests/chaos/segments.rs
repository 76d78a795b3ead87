//! The segments of a run: kept in different ways.

use segstore::{BelowMinimum, CreateOptions};

/// How many nodes there are.
pub(crate) const NODES: usize = 5;
/// On how many of them an application stands by for each segment.
const CANDIDATES: usize = 3;

/// One segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) capacity: usize,
    pub(crate) replicas: u32,
    minimum: (u32, BelowMinimum),
    block_size: u32,
    slots: u32,
    local: bool,
    /// Nobody stands by for it: somebody comes, changes it, and goes.
    pub(crate) rests: bool,
}

const KIB: usize = 1024;

/// All but one have two replicas.
pub(crate) const SEGMENTS: [Spec; 5] = [
    Spec {
        name: "orders",
        capacity: 8192 * KIB,
        replicas: 2,
        minimum: (1, BelowMinimum::Continue),
        block_size: 4096,
        slots: 2,
        local: false,
        rests: false,
    },
    Spec {
        name: "calls",
        capacity: 256 * KIB,
        replicas: 2,
        minimum: (2, BelowMinimum::Stop),
        block_size: 1024,
        slots: 2,
        local: false,
        rests: false,
    },
    Spec {
        name: "world",
        capacity: 4096 * KIB,
        replicas: 2,
        minimum: (1, BelowMinimum::Stop),
        block_size: 16384,
        slots: 3,
        local: true,
        rests: false,
    },
    Spec {
        name: "quotes",
        capacity: 1024 * KIB,
        replicas: 1,
        minimum: (1, BelowMinimum::Continue),
        block_size: 4096,
        slots: 2,
        local: true,
        rests: false,
    },
    Spec {
        name: "archive",
        capacity: 2048 * KIB,
        replicas: 2,
        minimum: (1, BelowMinimum::Continue),
        block_size: 4096,
        slots: 2,
        local: false,
        rests: true,
    },
];

impl Spec {
    pub(crate) fn named(name: &str) -> &'static Self {
        SEGMENTS.iter().find(|spec| spec.name == name).unwrap()
    }

    pub(crate) fn options(&self) -> CreateOptions {
        CreateOptions::new(self.capacity as u64)
            .replicas(self.replicas)
            .minimum(self.minimum.0, self.minimum.1)
            .block_size(self.block_size)
            .slots(self.slots)
            .local(self.local)
    }

    /// The nodes where an application stands by, or comes.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = usize> {
        let own = SEGMENTS.iter().position(|spec| spec == self).unwrap();
        (0..CANDIDATES).map(move |i| (own + 2 * i) % NODES)
    }
}
