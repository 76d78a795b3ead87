//! Revoke: nothing lands afterwards, and nothing that completed is lost.

use segstore_transport::{
    Domain, Endpoint, ErrorKind, Grant, Keep, Memory, Operation, Peer, Region, Revocation, Rights,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::fixture::{Fixture, Pair, bytes, connect, fill, revokes, run};

/// After a revoke nothing lands; it can be repeated; the region serves others.
pub(crate) fn revoke_is_final<F: Fixture>() {
    let mut pair = Pair::<F>::new(4096);
    let written = fill(&pair.local, 10);
    run(&mut pair.endpoint, &[Operation::write(pair.local.all(), 0, 0)]).result.unwrap();
    assert!(pair.peer.is_alive());
    pair.peer.revoke().unwrap();
    pair.peer.revoke().unwrap();
    assert!(!pair.peer.is_alive());
    assert_eq!(bytes(pair.region.memory()), written, "what was completed is there");
    fill(&pair.local, 11);
    for _ in 0..10 {
        let error = run(&mut pair.endpoint, &[Operation::write(pair.local.all(), 0, 0)]).result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Revoked);
    }
    assert_eq!(bytes(pair.region.memory()), written);
    let (mut next, _peer) = pair.another();
    run(&mut next, &[Operation::write(pair.local.all(), 0, 0), Operation::Flush]).result.unwrap();
    assert_eq!(bytes(pair.region.memory()), bytes(pair.local.memory()));
}

/// A peer that is revoked, or whose handle is dropped, before it connects never can.
pub(crate) fn revoke_before_connecting<F: Fixture>() {
    let pair = Pair::<F>::new(4096);
    for dropping in [false, true] {
        let dialing = pair.initiator.dial().unwrap();
        let grants = [Grant { region: &pair.region, rights: Rights::ALL }];
        let (peer, reply) = pair.fixture.target().admit(dialing.hello(), &grants).unwrap();
        if dropping {
            drop(peer);
        } else {
            assert_eq!(peer.revoke().unwrap(), Revocation::NeverConnected);
        }
        assert_eq!(dialing.complete(&reply).unwrap_err().kind(), F::NEVER_LET_IN);
    }
}

/// Writes as fast as it goes, each word the number of its batch; gives the last number that completed.
pub(crate) fn stream(endpoint: &mut Endpoint, local: &Region) -> (u64, ErrorKind) {
    let (mut completed, mut number) = (0, 0);
    loop {
        number += 1;
        for word in 0..local.len() / 8 {
            local.memory().store_u64(8 * word, number, Ordering::Relaxed).unwrap();
        }
        match run(endpoint, &[Operation::write(local.all(), 0, 0)]).result {
            Ok(()) => completed = number,
            Err(error) => return (completed, error.kind()),
        }
    }
}

/// Thousands of times: a peer that writes without a pause is revoked. From that moment no byte changes, and what it
/// completed is there.
pub(crate) fn revoke_under_a_stream<F: Fixture>() {
    let Pair { region, initiator, fixture, peer, .. } = Pair::<F>::new(512);
    drop(peer);
    for round in 0..revokes::<F>() {
        region.memory().write_at(0, &[0; 512]).unwrap();
        let (mut endpoint, peer) = connect(&initiator, fixture.target(), &[(&region, Rights::ALL)]);
        let local = initiator.register(&Memory::anonymous(512).unwrap(), Rights::LOCAL).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| stream(&mut endpoint, &local));
            while region.memory().load_u64(0, Ordering::Acquire).unwrap() < round as u64 % 7 {
                std::thread::yield_now(); // The writer may have but this processor.
            }
            peer.revoke().unwrap();
            let after = bytes(region.memory());
            let (completed, error) = writer.join().unwrap();
            assert_eq!(error, ErrorKind::Revoked);
            assert_eq!(bytes(region.memory()), after, "round {round}: something landed after the revoke");
            for word in after.chunks(8) {
                let word = u64::from_ne_bytes(word.try_into().unwrap());
                assert!(word >= completed, "round {round}: batch {completed} completed, but {word} is there");
            }
        });
    }
}

/// Revokes at the same time wait for each other: when any has returned, nothing lands.
pub(crate) fn revoke_from_several_threads<F: Fixture>() {
    let Pair { region, initiator, fixture, peer, .. } = Pair::<F>::new(4096);
    drop(peer);
    for _ in 0..F::ROUNDS / 20 {
        let (mut endpoint, peer) = connect(&initiator, fixture.target(), &[(&region, Rights::ALL)]);
        let local = initiator.register(&Memory::anonymous(4096).unwrap(), Rights::LOCAL).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| stream(&mut endpoint, &local));
            let revoke = || {
                peer.revoke().unwrap();
                bytes(region.memory())
            };
            let revokers = [scope.spawn(revoke), scope.spawn(revoke), scope.spawn(revoke)];
            let seen = revokers.map(|thread| thread.join().unwrap());
            writer.join().unwrap();
            assert!(seen.iter().all(|seen| *seen == bytes(region.memory())));
        });
    }
}

/// Revoking one peer loses nothing that another completed, even if that one has to connect again.
pub(crate) fn completed_writes_survive_revoke<F: Fixture>() {
    let Pair { region, initiator, fixture, peer, .. } = Pair::<F>::new(4096);
    drop(peer);
    let (completed, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let local = initiator.register(&Memory::anonymous(8).unwrap(), Rights::LOCAL).unwrap();
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                let (mut endpoint, _peer) = connectable(&initiator, &fixture, &region);
                for _ in 0..1000 {
                    number += 1;
                    local.memory().store_u64(0, number, Ordering::Relaxed).unwrap();
                    match run(&mut endpoint, &[Operation::write(local.all(), 0, 1024)]).result {
                        Ok(()) => completed.store(number, Ordering::SeqCst),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Moved, "{error}");
                            break;
                        }
                    }
                }
            }
        });
        for round in 0..F::ROUNDS / 3 {
            let (endpoint, peer) = connectable(&initiator, &fixture, &region);
            let before = completed.load(Ordering::SeqCst);
            peer.revoke_keeping(Keep::Ranges(&[(0, 1024..1032), (0, 2000..2001)])).unwrap();
            let there = region.memory().load_u64(1024, Ordering::SeqCst).unwrap();
            assert!(there >= before, "round {round}: {before} completed, but {there} is there");
            drop(endpoint);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Connects, also while the region keeps moving under other revokes.
fn connectable<F: Fixture>(initiator: &Domain, fixture: &F, region: &Region) -> (Endpoint, Peer) {
    loop {
        let dialing = initiator.dial().unwrap();
        let grants = [Grant { region, rights: Rights::WRITE }];
        let (peer, reply) = fixture.target().admit(dialing.hello(), &grants).unwrap();
        match dialing.complete(&reply) {
            Ok(endpoint) => return (endpoint, peer),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Moved),
        }
    }
}
