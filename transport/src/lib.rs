//! One-sided access to the memory of other processes and nodes: shared memory, TCP, RDMA verbs (with the feature
//! `verbs`), and a seeded simulation for tests. This crate knows nothing of what the bytes mean.
//!
//! # Nouns
//! A [`Provider`] opens a [`Domain`]. A domain registers [`Memory`] as [`Region`]s. The target *admits* a peer to some of
//! its regions and keeps a [`Peer`] handle; the initiator gets an [`Endpoint`]. Three opaque messages connect them,
//! over whatever channel the caller has:
//!
//! ```
//! use segstore_transport::{Grant, Memory, Operation, Provider, Rights, Wait, shm::Shm};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Target: a region that a peer may write.
//! let target = Shm::new().open()?;
//! let region = target.register(&Memory::anonymous(4096)?, Rights::ALL)?;
//!
//! // Initiator: hello; target: admit; initiator: complete.
//! let initiator = Shm::new().open()?;
//! let dialing = initiator.dial()?;
//! let (peer, reply) = target.admit(dialing.hello(), &[Grant { region: &region, rights: Rights::WRITE }])?;
//! let mut endpoint = dialing.complete(&reply)?;
//!
//! let local = initiator.register(&Memory::anonymous(4096)?, Rights::LOCAL)?;
//! local.memory().write_at(0, b"hello")?;
//! endpoint.post(&[Operation::write(local.slice(0, 5)?, 0, 100)], 1)?;
//! endpoint.wait(Wait::default(), None).expect("one batch is in flight").result?;
//!
//! let mut bytes = [0; 5];
//! region.memory().read_at(100, &mut bytes)?;
//! assert_eq!(&bytes, b"hello");
//! peer.revoke()?; // From here on nothing from that peer lands.
//! # Ok(()) }
//! ```
//!
//! # Promises
//! Every provider keeps them; one conformance suite runs over all of them. What a provider cannot do stands in its
//! [`Capabilities`]; `docs/providers.md` compares them.
//!
//! 1. **Order.** Operations on an endpoint take effect at the target in the order posted, and complete in that order.
//! 2. **Completion.** A batch completes once. A good completion means that the target's memory has the bytes, for every
//!    later one-sided read. The target's *processor* is promised to see them after a `Flush`, a notification that
//!    followed them, or `revoke`.
//! 3. **Back-pressure is not failure.** [`Post::WouldBlock`] means that nothing of the batch happened.
//! 4. **Errors.** Kind, scope and the provider's own code. After an endpoint's first error everything in flight and
//!    everything later on it fails with that error; of a failed batch any prefix, torn at any byte, may have landed.
//! 5. **Leases.** Memory of an operation in flight stays mapped and registered until the batch was reported; no safe
//!    code can free it.
//! 6. **Abort.** After [`Endpoint::abort`] has returned, nothing touches local memory for that endpoint.
//! 7. **Revoke.** After [`Peer::revoke`] has returned `Ok`, nothing from that peer lands, ever: not with stopped clocks,
//!    paused processes or late packets.
//! 8. **Hostile until checked.** Every length, offset and frame that a peer can send is checked before it is used.
//!
//! A process that maps files gets a handler for SIGBUS with its first [`Memory`]: somebody may cut a file short, and then
//! an operation fails (`Lost`) and the process lives. An application with a handler of its own installs it before.
//!
//! Nothing on the post and poll path allocates or takes a lock in steady state (`sim` and the `fault` wrapper, which
//! are for tests, do; encrypted TCP allocates, within bounds; an RDMA device's driver locks its own queues, and `verbs` locks a
//! peer's notifications).

#[cfg(not(target_pointer_width = "64"))]
compile_error!("offsets into memory are 64 bits wide here: build for a 64-bit target");

pub mod contract;
pub mod memory;
mod random;
mod setup;
pub mod shm;
pub mod sim;
mod sync;
pub mod tcp;
#[cfg(feature = "verbs")]
pub mod verbs;
pub mod wrap;

pub use contract::{
    Capabilities, Completion, Dialing, Domain, Endpoint, Error, ErrorKind, Grant, Granted, Keep, Key, Operation, Peer,
    PeerStatistics, Post, Provider, Region, Remote, Result, Revocation, RevokeKind, Rights, Scope, Server,
    ServerOptions, Slice, Wait, pin_thread,
};
pub use memory::{Memory, Witness};
