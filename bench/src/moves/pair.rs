//! An initiator and a target in one process, which share nothing but what the provider gives them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use segstore_transport::{Domain, Endpoint, Grant, Memory, Peer, Region, Rights};

use crate::Result;

/// A connected pair.
pub(super) struct Pair {
    pub(super) endpoint: Endpoint,
    pub(super) local: Region,
    pub(super) target: Domain,
    pub(super) peer: Arc<Peer>,
}

impl Pair {
    /// Connects to a region of `len` bytes; every page of both sides is there.
    pub(super) fn connect(target: &Domain, initiator: &Domain, len: usize) -> Result<Self> {
        let filled = || -> Result<Memory> {
            let memory = Memory::anonymous(len)?;
            memory.write_at(0, &vec![1; len])?;
            Ok(memory)
        };
        let region = target.register(&filled()?, Rights::ALL)?;
        let dialing = initiator.dial()?;
        let (peer, reply) = target.admit(dialing.hello(), &[Grant { region: &region, rights: Rights::ALL }])?;
        let connected = AtomicBool::new(false);
        let endpoint = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !connected.load(Ordering::Acquire) {
                    let _ = target.progress();
                    std::thread::yield_now();
                }
            });
            let endpoint = dialing.complete(&reply);
            connected.store(true, Ordering::Release);
            endpoint
        })?;
        let local = initiator.register(&filled()?, Rights::LOCAL)?;
        Ok(Self { endpoint, local, target: target.clone(), peer: Arc::new(peer) })
    }
}
