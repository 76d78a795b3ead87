//! Back-pressure, notifications and waiting.

use segstore_transport::{Completion, ErrorKind, Operation, Post, Server, ServerOptions, Wait};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::fixture::{Fixture, Pair, bytes, fill, run, wait};

/// A full endpoint says so, nothing of that batch happens, and what was posted completes in order.
pub(crate) fn back_pressure<F: Fixture>() {
    let mut pair = Pair::<F>::new(1 << 16);
    fill(&pair.local, 4);
    let mut posted = 0;
    let blocked = loop {
        let batch = [Operation::write(pair.local.slice(posted, 1).unwrap(), 0, posted as u64)];
        match pair.endpoint.post(&batch, posted as u64) {
            Ok(()) => posted += 1,
            Err(blocked) => break blocked,
        }
        assert!(posted <= pair.initiator.capabilities().max_outstanding, "an endpoint takes no more than it says");
    };
    assert_eq!(blocked, Post::WouldBlock);
    for id in 0..posted as u64 {
        assert_eq!(wait(&mut pair.endpoint), Some(Completion { id, result: Ok(()) }));
    }
    assert_eq!(wait(&mut pair.endpoint), None, "nothing is in flight");
    run(&mut pair.endpoint, &[Operation::Flush]).result.unwrap();
    let now = bytes(pair.region.memory());
    assert_eq!(now[..posted], bytes(pair.local.memory())[..posted]);
    assert!(now[posted..].iter().all(|&byte| byte == 0), "nothing of the blocked batch happened");
}

/// Notifications come once, in order, and after their bytes.
pub(crate) fn notifications<F: Fixture>() {
    let Pair { mut endpoint, peer, local, region, fixture: _fixture, .. } = Pair::<F>::new(4096);
    let rounds = F::ROUNDS as u64;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=rounds {
                assert_eq!(peer.wait_notification(Wait::default(), None), Some(number));
                let seen = region.memory().load_u64(64, Ordering::Acquire).unwrap();
                assert!(seen >= number, "notification {number} came before its bytes ({seen})");
            }
        });
        for number in 1..=rounds {
            local.memory().store_u64(0, number, Ordering::Relaxed).unwrap();
            run(&mut endpoint, &[Operation::write_notify(local.slice(0, 8).unwrap(), 0, 64, number)]).result.unwrap();
        }
    });
    assert_eq!(peer.poll_notification(), None);
    assert_eq!(peer.statistics().notifications, rounds);
}

/// A target that takes no notifications slows its peer down and loses none.
pub(crate) fn notification_back_pressure<F: Fixture>() {
    let mut pair = Pair::<F>::new(4096);
    let batch = |value| [Operation::write_notify(pair.local.slice(0, 0).unwrap(), 0, 0, value)];
    let mut sent = 0;
    while sent < 3000 {
        match pair.endpoint.post(&batch(sent), sent) {
            Ok(()) => sent += 1,
            Err(Post::WouldBlock) if pair.endpoint.in_flight() > 0 => {
                wait(&mut pair.endpoint).unwrap().result.unwrap();
            }
            Err(Post::WouldBlock) => break,
            Err(Post::Failed(error)) => panic!("{error:?}"),
        }
    }
    while let Some(done) = wait(&mut pair.endpoint) {
        done.result.unwrap();
    }
    for value in 0..sent {
        assert_eq!(pair.peer.wait_notification(Wait::default(), None), Some(value));
    }
    run(&mut pair.endpoint, &batch(sent)).result.unwrap();
    assert_eq!(pair.peer.wait_notification(Wait::default(), None), Some(sent));
}

/// Every way of waiting finds what comes.
pub(crate) fn wait_modes<F: Fixture>() {
    let Pair { mut endpoint, peer, local, fixture: _fixture, .. } = Pair::<F>::new(4096);
    for mode in [Wait::Busy, Wait::Event, Wait::Adaptive { spin: Duration::from_micros(1) }, Wait::default()] {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for value in 0..20 {
                    assert_eq!(peer.wait_notification(mode, None), Some(value));
                }
            });
            for value in 0..20 {
                std::thread::sleep(Duration::from_micros(200));
                endpoint.post(&[Operation::write_notify(local.slice(0, 8).unwrap(), 0, 0, value)], value).unwrap();
                assert_eq!(endpoint.wait(mode, None), Some(Completion { id: value, result: Ok(()) }));
            }
        });
    }
}

/// A wait with a deadline ends, and not before it.
pub(crate) fn deadline<F: Fixture>() {
    let mut pair = Pair::<F>::new(64);
    for mode in [Wait::Busy, Wait::Event, Wait::default()] {
        let end = Instant::now() + Duration::from_millis(15);
        assert_eq!(pair.peer.wait_notification(mode, Some(end)), None);
        assert!(Instant::now() >= end);
        assert_eq!(pair.endpoint.wait(mode, Some(end)), None, "nothing is in flight, so there is nothing to wait for");
    }
}

/// The target's threads can be pinned, and say what is wrong when they cannot.
pub(crate) fn server_threads<F: Fixture>() {
    let pair = Pair::<F>::new(64);
    let options = |cpus| ServerOptions { name: "test".into(), cpus, wait: Wait::Event };
    let server = Server::start(pair.fixture.target(), &options(vec![0, 0])).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    server.stop().unwrap();
    let server = Server::start(pair.fixture.target(), &options(vec![1023])).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(server.stop().unwrap_err().kind(), ErrorKind::InvalidInput);
}
