//! Nothing on the post, poll and progress path allocates in steady state.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

mod counting;

use counting::allocations;
use segstore_transport::shm::Shm;
use segstore_transport::tcp::Tcp;
use segstore_transport::wrap::count::Counters;
use segstore_transport::{
    Domain, Endpoint, Grant, Memory, Operation, Peer, Provider, Region, Rights, Server, ServerOptions,
};

/// The same batches over any provider: writes, a notification, a compare and swap, a read, a flush.
struct Setting {
    target: Domain,
    initiator: Domain,
    local: Region,
    other: Region,
    endpoint: Endpoint,
    peer: Peer,
}

impl Setting {
    /// A server thread serves while the two connect.
    fn new(target: Domain, initiator: &Domain) -> Setting {
        let initiator = Counters::new().around(initiator);
        let region = target.register(&Memory::anonymous(1 << 20).unwrap(), Rights::ALL).unwrap();
        let local = initiator.register(&Memory::anonymous(1 << 20).unwrap(), Rights::LOCAL).unwrap();
        let other = initiator.register(&Memory::anonymous(64).unwrap(), Rights::LOCAL).unwrap();
        let server = Server::start(&target, &ServerOptions::default()).unwrap();
        let dialing = initiator.dial().unwrap();
        let (peer, reply) = target.admit(dialing.hello(), &[Grant { region: &region, rights: Rights::ALL }]).unwrap();
        let endpoint = dialing.complete(&reply).unwrap();
        server.stop().unwrap();
        Setting { target, initiator, local, other, endpoint, peer }
    }

    /// Posts, does the target's part on the same thread, so that its allocations count too, and polls.
    fn rounds(&mut self, count: u64) {
        let batch = [
            Operation::write(self.local.all(), 0, 0),
            Operation::write_notify(self.other.all(), 0, 64, 5),
            Operation::compare_swap(self.other.slice(8, 8).unwrap(), 0, 0, 1, 2),
            Operation::read(self.local.slice(0, 100_000).unwrap(), 0, 0),
            Operation::Flush,
        ];
        for id in 0..count {
            self.endpoint.post(&batch, id).unwrap();
            self.endpoint.post(&batch[..1], id).unwrap();
            for _ in 0..2 {
                let done = loop {
                    self.target.progress().unwrap();
                    if let Some(done) = self.endpoint.poll() {
                        break done;
                    }
                };
                done.result.unwrap();
            }
            assert_eq!(self.peer.poll_notification(), Some(5));
        }
    }

    fn allocates_nothing(mut self) {
        self.rounds(10);
        let before = allocations();
        self.rounds(100);
        assert_eq!(allocations(), before, "{}", self.initiator.capabilities().provider);
    }
}

#[test]
fn shm_allocates_nothing() {
    Setting::new(Shm::new().open().unwrap(), &Shm::new().open().unwrap()).allocates_nothing();
}

/// Between the two devices that the conformance suite uses.
#[cfg(feature = "verbs")]
#[test]
fn verbs_allocates_nothing_at_either_side() {
    let device = |variable, default: &str| std::env::var(variable).unwrap_or_else(|_| default.into());
    let open = |name| segstore_transport::verbs::Verbs::new().device(name).open().unwrap();
    let (target, initiator) = (open(device("SEGSTORE_DEVICE", "rxa")), open(device("SEGSTORE_PEER", "rxb")));
    Setting::new(target, &initiator).allocates_nothing();
}

#[test]
fn tcp_allocates_nothing_at_either_side() {
    let target = Tcp::listening_on(([127, 0, 0, 1], 0)).open().unwrap();
    Setting::new(target, &Tcp::dialing_only().open().unwrap()).allocates_nothing();
}
