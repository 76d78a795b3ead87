//! Leases, errors, aborts.

use segstore_transport::{Completion, ErrorKind, Grant, Memory, Operation, Post, Rights, Scope};
use std::time::{Duration, Instant};

use crate::fixture::{Fixture, Pair, bytes, connect, fill, run, wait};

/// What is in flight keeps its memory: every handle may go.
pub(crate) fn leases<F: Fixture>() {
    let mut pair = Pair::<F>::new(1 << 20);
    for seed in 0..20 {
        let local = pair.initiator.register(&Memory::anonymous(1 << 20).unwrap(), Rights::LOCAL).unwrap();
        let written = fill(&local, seed);
        pair.endpoint.post(&[Operation::write(local.all(), 0, 0), Operation::Flush], seed).unwrap();
        pair.endpoint.post(&[Operation::read(local.all(), 0, 0)], seed).unwrap();
        drop(local);
        assert_eq!(wait(&mut pair.endpoint), Some(Completion { id: seed, result: Ok(()) }));
        assert_eq!(bytes(pair.region.memory()), written);
        assert_eq!(wait(&mut pair.endpoint), Some(Completion { id: seed, result: Ok(()) }));
    }
}

/// After the first error everything on that endpoint fails with it; other endpoints go on.
pub(crate) fn errors_latch<F: Fixture>() {
    let mut pair = Pair::<F>::new(4096);
    let other = pair.fixture.target().register(&Memory::anonymous(64).unwrap(), Rights::ALL).unwrap();
    let (mut unharmed, _peer) = connect(&pair.initiator, pair.fixture.target(), &[(&other, Rights::ALL)]);
    let slice = pair.local.slice(0, 64).unwrap();
    run(&mut pair.endpoint, &[Operation::write(slice, 0, 0)]).result.unwrap();
    pair.peer.revoke().unwrap();
    let first = run(&mut pair.endpoint, &[Operation::write(slice, 0, 0)]).result.unwrap_err();
    assert_eq!((first.kind(), first.scope()), (ErrorKind::Revoked, Scope::Endpoint));
    assert_eq!(pair.endpoint.failure(), Some(&first));
    for operation in [Operation::write(slice, 0, 0), Operation::read(slice, 0, 0), Operation::Flush] {
        assert_eq!(pair.endpoint.post(&[operation], 0), Err(Post::Failed(first.clone())));
    }
    pair.endpoint.abort();
    assert_eq!(pair.endpoint.failure(), Some(&first), "the first error stays");
    run(&mut unharmed, &[Operation::write(slice, 0, 0)]).result.unwrap();
}

/// After an abort nothing touches local memory, and what was in flight is reported, in order.
pub(crate) fn abort<F: Fixture>() {
    let mut pair = Pair::<F>::new(1 << 16);
    fill(&pair.region, 8);
    let mut posted = 0;
    while posted < 8 && pair.endpoint.post(&[Operation::read(pair.local.all(), 0, 0)], posted).is_ok() {
        posted += 1;
    }
    pair.endpoint.abort();
    let marks = fill(&pair.local, 9);
    for id in 0..posted {
        let done = pair.endpoint.poll().unwrap();
        assert_eq!((done.id, done.result.unwrap_err().kind()), (id, ErrorKind::Aborted));
    }
    assert_eq!(pair.endpoint.poll(), None);
    // Let the network bring what is under way.
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(bytes(pair.local.memory()), marks);
    assert!(matches!(pair.endpoint.post(&[Operation::Flush], 0), Err(Post::Failed(_))));
}

/// Dropping an endpoint with operations in flight is an abort.
pub(crate) fn drop_gives_up<F: Fixture>() {
    let mut pair = Pair::<F>::new(1 << 16);
    fill(&pair.region, 8);
    pair.endpoint.post(&[Operation::read(pair.local.all(), 0, 0)], 0).unwrap();
    drop(pair.endpoint);
    let marks = fill(&pair.local, 9);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(bytes(pair.local.memory()), marks);
    while pair.peer.is_alive() {
        std::thread::yield_now(); // The target learns of it.
    }
}

/// Who was let in and never connected does not count as alive for ever, and comes too late afterwards.
pub(crate) fn never_connects<F: Fixture>() {
    let fixture = F::new();
    let region = fixture.target().register(&Memory::anonymous(64).unwrap(), Rights::ALL).unwrap();
    let grants = [Grant { region: &region, rights: Rights::ALL }];
    let dialing = fixture.initiator().dial().unwrap();
    let (peer, reply) = fixture.target().admit(dialing.hello(), &grants).unwrap();
    let admitted = Instant::now();
    while peer.is_alive() {
        assert!(admitted.elapsed() < Duration::from_secs(12), "it may still connect");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(admitted.elapsed() > Duration::from_secs(9), "a caller may take its time to bring the reply");
    assert_eq!(dialing.complete(&reply).unwrap_err().scope(), Scope::Operation);
    peer.revoke().unwrap();
}
