//! A second process that writes, and is stopped or killed: what every provider with other processes must show alike.

use std::sync::atomic::Ordering;

use nix::sys::signal::Signal;
use segstore_transport::{Domain, ErrorKind, Grant, Memory, Peer, Region, Revocation, Rights};

use crate::fixture::bytes;
use crate::process::Second;

/// Memory that peers may be admitted to.
pub(crate) fn region(domain: &Domain, len: usize) -> Region {
    domain.register(&Memory::anonymous(len).unwrap(), Rights::ALL).unwrap()
}

/// Admits the second process, which writes the region from then on.
pub(crate) fn admit_second(target: &Domain, region: &Region, second: &mut Second) -> Peer {
    let hello = second.receive();
    let (peer, reply) = target.admit(&hello, &[Grant { region, rights: Rights::WRITE }]).unwrap();
    second.send(&reply);
    peer
}

/// Waits until the first word is that number, or beyond.
pub(crate) fn wait_for(region: &Region, number: u64) {
    while region.memory().load_u64(0, Ordering::Acquire).unwrap() < number {
        std::thread::yield_now();
    }
}

pub(crate) fn assert_all_at_least(bytes: &[u8], completed: u64) {
    for word in bytes.chunks(8) {
        assert!(u64::from_ne_bytes(word.try_into().unwrap()) >= completed, "a completed write is lost");
    }
}

/// A writer that is stopped in the middle and wakes after the revoke, which ends as it should, changes nothing and is told.
pub(crate) fn is_stopped(target: &Domain, role: &str, rounds: u64, revoked: Revocation) {
    const LEN: usize = 1 << 16;
    let (region, mut second) = (region(target, LEN), Second::start(role));
    for round in 0..rounds {
        region.memory().write_at(0, &vec![0; LEN]).unwrap();
        let peer = admit_second(target, &region, &mut second);
        wait_for(&region, 1 + round % 5);
        second.stop();
        assert_eq!(peer.revoke().unwrap(), revoked);
        let after = bytes(region.memory());
        second.signal(Signal::SIGCONT);
        let completed = second.receive_u64();
        assert_eq!(second.receive(), b"Revoked");
        assert_eq!(bytes(region.memory()), after, "round {round}: something landed after the revoke");
        assert_all_at_least(&after, completed);
    }
}

/// A killed writer is noticed, and its peer's handle knows that it is gone.
pub(crate) fn is_killed(target: &Domain, role: &str, rounds: u64) {
    let region = region(target, 4096);
    for _ in 0..rounds {
        region.memory().write_at(0, &[0; 4096]).unwrap();
        let mut second = Second::start(role);
        let peer = admit_second(target, &region, &mut second);
        wait_for(&region, 3);
        assert!(peer.is_alive());
        second.signal(Signal::SIGKILL);
        while peer.is_alive() {
            std::thread::yield_now();
        }
        assert_eq!(peer.failure().unwrap().kind(), ErrorKind::PeerGone);
        peer.revoke().unwrap();
    }
}
