//! A seeded simulation of a network, for tests: in this process, moved by [`Sim::step`] and nothing else.
//!
//! Frames are encoded and decoded as a real stream's would be, and arrive in order, once, or not at all. Everything that
//! happens follows from the seed and the calls.

mod dial;
mod domain;
mod endpoint;
mod peer;
mod region;
pub mod wire;
mod world;

use std::sync::Arc;

use crate::{Domain, Provider, Result};
use world::World;

/// What the network does by itself, by chance from the seed.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The most steps that a frame travels; at least one.
    pub delay: u64,
    /// Of 1000 frames, how many are lost, with everything behind them on that connection.
    pub drops: u64,
    /// Of 1000 writes, how many are cut off at some byte, with everything behind them on that connection.
    pub tears: u64,
    /// The steps after which an initiator that hears nothing gives up.
    pub patience: u64,
}

impl Default for Weather {
    /// Fair: one step for a frame, nothing is lost.
    fn default() -> Weather {
        Weather { delay: 1, drops: 0, tears: 0, patience: 1000 }
    }
}

/// A network of [`Node`]s. Cheap to clone.
#[derive(Clone)]
pub struct Sim {
    world: Arc<World>,
}

/// One process of the simulation: a provider whose domains die with it.
#[derive(Clone)]
pub struct Node {
    world: Arc<World>,
    number: u64,
}

impl Sim {
    /// A network whose chances follow from `seed`.
    pub fn new(seed: u64, weather: Weather) -> Sim {
        Sim { world: Arc::new(World::new(seed, weather)) }
    }

    /// A new node.
    pub fn node(&self) -> Node {
        let number = self.world.with(world::State::add_node);
        Node { world: self.world.clone(), number }
    }

    /// One step of time: frames that are due arrive. They take effect when the target's domain makes `progress`; the
    /// initiator hears of it when it polls. Gives how many arrived.
    pub fn step(&self) -> usize {
        self.world.with(world::State::step)
    }

    /// Frames between the two nodes stand still until [`Sim::heal`].
    pub fn partition(&self, one: &Node, other: &Node) {
        self.world.with(|state| state.partition(one.number, other.number));
    }

    /// All partitions end. What stood still goes on, also what somebody gave up meanwhile.
    pub fn heal(&self) {
        self.world.with(world::State::heal);
    }

    /// The node dies. Any beginning of what it has sent still arrives.
    pub fn kill(&self, node: &Node) {
        self.world.with(|state| state.kill(node.number));
    }

    /// The next frame that is sent is lost, and everything behind it on its connection.
    pub fn drop_next(&self) {
        self.world.with(|state| state.fault_next(world::Fault::Drop));
    }

    /// The next write that is sent is cut off after `bytes`, and everything behind it on its connection is lost.
    pub fn tear_next(&self, bytes: usize) {
        self.world.with(|state| state.fault_next(world::Fault::Tear(bytes)));
    }

    /// Puts arbitrary bytes in the place of the next frame that is sent: a hostile peer.
    pub fn forge_next(&self, frame: Vec<u8>) {
        self.world.with(|state| state.fault_next(world::Fault::Forge(frame)));
    }
}

impl Provider for Node {
    fn name(&self) -> &'static str {
        NAME
    }

    fn open(&self) -> Result<Domain> {
        Ok(Domain::new(domain::SimDomain::new(self.world.clone(), self.number)))
    }
}

const NAME: &str = "sim";
