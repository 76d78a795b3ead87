//! The promises, over any provider.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use segstore_transport::{
    Completion, Endpoint, ErrorKind, Grant, Keep, Memory, Operation, Post, Region, Rights, Scope, Server,
    ServerOptions, Wait,
};

use crate::fixture::{Fixture, Pair, bytes, connect, fill, run, skip, wait};

/// A flag written after its data is never seen before its data.
pub(crate) fn order<F: Fixture>() {
    const WORDS: usize = 600;
    let Pair { mut endpoint, peer: _peer, local, region, fixture: _fixture, .. } = Pair::<F>::new(8192);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let flag = region.memory().load_u64(8 * WORDS, Ordering::Acquire).unwrap();
                for word in (0..WORDS).rev() {
                    let data = region.memory().load_u64(8 * word, Ordering::Acquire).unwrap();
                    assert!(data >= flag, "word {word} is {data}, but the flag that follows it was {flag}");
                }
            }
        });
        for number in 1..=F::ROUNDS as u64 {
            for word in 0..=WORDS {
                local.memory().store_u64(8 * word, number, Ordering::Relaxed).unwrap();
            }
            let data = Operation::write(local.slice(0, 8 * WORDS).unwrap(), 0, 0);
            let flag = Operation::write(local.slice(8 * WORDS, 8).unwrap(), 0, 8 * WORDS as u64);
            run(&mut endpoint, &[data, flag]).result.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// After a completion, a one-sided read of another endpoint finds the bytes.
pub(crate) fn completion<F: Fixture>() {
    let mut pair = Pair::<F>::new(10_000);
    let (mut reader, _peer) = pair.another();
    let back = pair.initiator.register(&Memory::anonymous(10_000).unwrap(), Rights::LOCAL).unwrap();
    for seed in 0..50 {
        let written = fill(&pair.local, seed);
        run(&mut pair.endpoint, &[Operation::write(pair.local.all(), 0, 0)]).result.unwrap();
        run(&mut reader, &[Operation::read(back.all(), 0, 0)]).result.unwrap();
        assert_eq!(bytes(back.memory()), written);
    }
}

/// After a flush, the target's processor sees the bytes, and no byte beside them has changed.
pub(crate) fn flush<F: Fixture>() {
    let mut pair = Pair::<F>::new(9000);
    let before = fill(&pair.region, 1);
    let written = fill(&pair.local, 2);
    let part = pair.local.slice(100, 5000).unwrap();
    run(&mut pair.endpoint, &[Operation::write(part, 0, 333), Operation::Flush]).result.unwrap();
    let now = bytes(pair.region.memory());
    assert_eq!(now[333..5333], written[100..5100]);
    assert_eq!((&now[..333], &now[5333..]), (&before[..333], &before[5333..]));
}

/// Reads bring what is there, after earlier writes of the same batch.
pub(crate) fn reads<F: Fixture>() {
    let mut pair = Pair::<F>::new(4096);
    let there = fill(&pair.region, 3);
    pair.local.memory().write_at(0, b"new").unwrap();
    let batch = [
        Operation::write(pair.local.slice(0, 3).unwrap(), 0, 10),
        Operation::read(pair.local.slice(1000, 1000).unwrap(), 0, 5),
    ];
    run(&mut pair.endpoint, &batch).result.unwrap();
    let got = bytes(pair.local.memory());
    assert_eq!((&got[1000..1005], &got[1005..1008], &got[1008..2000]), (&there[5..10], &b"new"[..], &there[13..1005]));
}

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

/// Increments by compare and swap, from several endpoints at once, are all counted.
pub(crate) fn compare_swap_contention<F: Fixture>() {
    const ENDPOINTS: u64 = 4;
    let Pair { region, initiator, fixture, peer: _peer, endpoint: _endpoint, .. } = Pair::<F>::new(4096);
    if !initiator.capabilities().atomics {
        return skip("compare_swap_contention", "no atomics");
    }
    let each = F::ROUNDS as u64 / 4;
    let peers = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..ENDPOINTS {
            let (mut endpoint, peer) = connect(&initiator, fixture.target(), &[(&region, Rights::ATOMIC)]);
            // Revoked together at the end: a revoke may move the region under the others.
            peers.lock().unwrap().push(peer);
            let initiator = &initiator;
            scope.spawn(move || {
                let local = initiator.register(&Memory::anonymous(64).unwrap(), Rights::LOCAL).unwrap();
                let word = local.slice(8, 8).unwrap();
                let (mut guess, mut won) = (0, 0);
                while won < each {
                    run(&mut endpoint, &[Operation::compare_swap(word, 0, 256, guess, guess + 1)]).result.unwrap();
                    let was = local.memory().load_u64(8, Ordering::Acquire).unwrap();
                    won += u64::from(was == guess);
                    guess = if was == guess { guess + 1 } else { was };
                }
            });
        }
    });
    assert_eq!(region.memory().load_u64(256, Ordering::Acquire).unwrap(), ENDPOINTS * each);
}

fn invalid(result: Result<(), Post>) {
    match result {
        Err(Post::Failed(error)) => {
            assert_eq!((error.kind(), error.scope()), (ErrorKind::InvalidInput, Scope::Operation), "{error:?}");
        }
        other => panic!("{other:?} for wrong input"),
    }
}

/// Wrong places are refused with nothing done, also where offset + length overflows, and the endpoint goes on.
pub(crate) fn bounds<F: Fixture>() {
    let mut pair = Pair::<F>::new(4096);
    for (offset, len) in [(0, 4097), (4096, 1), (4097, 0), (usize::MAX, 1), (usize::MAX, usize::MAX), (1, usize::MAX)] {
        assert_eq!(pair.local.slice(offset, len).err().unwrap().kind(), ErrorKind::InvalidInput);
    }
    let slice = pair.local.slice(0, 100).unwrap();
    for (offset, len) in [(0, 101), (100, 1), (usize::MAX, 2)] {
        assert_eq!(slice.part(offset, len).err().unwrap().kind(), ErrorKind::InvalidInput);
    }
    for offset in [3997, 4096, 4097, u64::MAX, u64::MAX - 50, 1 << 63] {
        invalid(pair.endpoint.post(&[Operation::write(slice, 0, offset)], 0));
        invalid(pair.endpoint.post(&[Operation::read(slice, 0, offset)], 0));
        invalid(pair.endpoint.post(&[Operation::write_notify(slice, 0, offset, 1)], 0));
    }
    for grant in [1, 64, usize::MAX] {
        invalid(pair.endpoint.post(&[Operation::write(slice, grant, 0)], 0));
    }
    let word = pair.local.slice(0, 8).unwrap();
    for (local, remote) in [(word, 4), (word, 4092), (word, 4096), (word, u64::MAX - 7)] {
        invalid(pair.endpoint.post(&[Operation::compare_swap(local, 0, remote, 0, 1)], 0));
    }
    for (offset, len) in [(4, 8), (0, 4), (0, 16)] {
        let local = pair.local.slice(offset, len).unwrap();
        invalid(pair.endpoint.post(&[Operation::compare_swap(local, 0, 0, 0, 1)], 0));
    }
    // All or nothing: the good operation before the wrong one did not happen.
    fill(&pair.local, 5);
    invalid(pair.endpoint.post(&[Operation::write(slice, 0, 0), Operation::write(slice, 0, 4000)], 0));
    run(&mut pair.endpoint, &[Operation::write(slice, 0, 3996), Operation::Flush]).result.unwrap();
    assert!(bytes(pair.region.memory())[..3996].iter().all(|&byte| byte == 0));
}

/// What was not granted is refused.
pub(crate) fn rights<F: Fixture>() {
    let pair = Pair::<F>::new(4096);
    let all = [Rights::READ, Rights::WRITE, Rights::ATOMIC];
    for granted in all {
        let (mut endpoint, _peer) = connect(&pair.initiator, pair.fixture.target(), &[(&pair.region, granted)]);
        assert_eq!(endpoint.granted()[0].rights, granted);
        let local = pair.local.slice(0, 8).unwrap();
        let asks =
            [Operation::read(local, 0, 0), Operation::write(local, 0, 0), Operation::compare_swap(local, 0, 0, 0, 1)];
        for (operation, needed) in asks.into_iter().zip(all) {
            if granted.has(needed) {
                run(&mut endpoint, &[operation]).result.unwrap();
            } else {
                invalid(endpoint.post(&[operation], 0));
            }
        }
    }
}

/// Nobody is granted more than was registered, or another domain's memory.
pub(crate) fn grants_are_checked<F: Fixture>() {
    let pair = Pair::<F>::new(4096);
    let target = pair.fixture.target();
    let readable = target.register(&Memory::anonymous(64).unwrap(), Rights::READ).unwrap();
    let dialing = pair.initiator.dial().unwrap();
    let too_much = [Grant { region: &readable, rights: Rights::WRITE }];
    let foreign = [Grant { region: &pair.local, rights: Rights::LOCAL }];
    let too_many = vec![Grant { region: &readable, rights: Rights::READ }; target.capabilities().max_grants + 1];
    for grants in [&too_much[..], &foreign, &too_many, &[]] {
        assert_eq!(target.admit(dialing.hello(), grants).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

/// A local slice has to be registered with the endpoint's domain, and be writable to be read into.
pub(crate) fn foreign_regions<F: Fixture>() {
    let mut pair = Pair::<F>::new(4096);
    let foreign = pair.fixture.target().register(&Memory::anonymous(64).unwrap(), Rights::LOCAL).unwrap();
    invalid(pair.endpoint.post(&[Operation::write(foreign.all(), 0, 0)], 0));
}

/// A batch that moves nothing is an error, not a completion that never comes.
pub(crate) fn empty_batches<F: Fixture>() {
    let mut pair = Pair::<F>::new(4096);
    invalid(pair.endpoint.post(&[], 0));
    invalid(pair.endpoint.post(&[Operation::write(pair.local.slice(0, 0).unwrap(), 0, 0)], 0));
    run(&mut pair.endpoint, &[Operation::Flush]).result.unwrap();
}

/// Every length around the powers of two, at odd places, arrives exactly.
pub(crate) fn sizes<F: Fixture>() {
    const LEN: usize = (4 << 20) + 4096;
    let mut pair = Pair::<F>::new(LEN);
    let source = fill(&pair.local, 6);
    let mut expected = vec![0; LEN];
    let lens = (0..=22).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]);
    for (round, len) in lens.filter(|&len| len > 0).enumerate() {
        let (from, to) = (round * 7 % 64, round * 13 % 64);
        let local = pair.local.slice(from, len).unwrap();
        run(&mut pair.endpoint, &[Operation::write(local, 0, to as u64), Operation::Flush]).result.unwrap();
        expected[to..to + len].copy_from_slice(&source[from..from + len]);
        assert!(bytes(pair.region.memory()) == expected, "length {len} from {from} to {to}");
    }
}

/// The longest transfer: one at a time, and source and target are freed at once.
pub(crate) fn one_gibibyte<F: Fixture>() {
    static ALONE: Mutex<()> = Mutex::new(());
    const LEN: usize = 1 << 30;
    if let Err(why) = F::GIBIBYTE {
        return skip("one_gibibyte", why);
    }
    let _alone = ALONE.lock().unwrap();
    let mut pair = Pair::<F>::new(LEN);
    let marks = [0, 1, LEN / 3, LEN / 2 + 1, LEN - 9];
    for (number, mark) in marks.into_iter().enumerate() {
        pair.local.memory().write_at(mark, &[number as u8 + 1; 8]).unwrap();
    }
    run(&mut pair.endpoint, &[Operation::write(pair.local.all(), 0, 0), Operation::Flush]).result.unwrap();
    let mut both = ([0; 4096], [0; 4096]);
    for mark in marks {
        let at = mark.saturating_sub(2000).min(LEN - 4096);
        pair.local.memory().read_at(at, &mut both.0).unwrap();
        pair.region.memory().read_at(at, &mut both.1).unwrap();
        assert_eq!(both.0, both.1, "around {mark}");
    }
}

/// Many peers at once, each with its own place.
pub(crate) fn many_endpoints<F: Fixture>() {
    const MANY: usize = 100;
    let pair = Pair::<F>::new(MANY * 128);
    let mut endpoints: Vec<_> = (0..MANY).map(|_| pair.another()).collect();
    for round in 0..10 {
        let expected = fill(&pair.local, round);
        for (number, (endpoint, _)) in endpoints.iter_mut().enumerate() {
            let batch = [Operation::write(pair.local.slice(number * 128, 128).unwrap(), 0, number as u64 * 128)];
            endpoint.post(&batch, number as u64).unwrap();
        }
        for (number, (endpoint, _)) in endpoints.iter_mut().enumerate() {
            assert_eq!(wait(endpoint), Some(Completion { id: number as u64, result: Ok(()) }));
        }
        run(&mut endpoints[0].0, &[Operation::Flush]).result.unwrap();
        assert_eq!(bytes(pair.region.memory()), expected);
    }
}

/// Two regions of one peer are told apart.
pub(crate) fn two_regions<F: Fixture>() {
    let pair = Pair::<F>::new(64);
    let target = pair.fixture.target();
    let second = target.register(&Memory::anonymous(128).unwrap(), Rights::ALL).unwrap();
    let grants = [(&pair.region, Rights::WRITE), (&second, Rights::ALL)];
    let (mut endpoint, peer) = connect(&pair.initiator, target, &grants);
    let lens: Vec<_> = endpoint.granted().iter().map(|granted| (granted.len, granted.rights)).collect();
    assert_eq!(lens, [(64, Rights::WRITE), (128, Rights::ALL)]);
    pair.local.memory().write_at(0, b"firstother").unwrap();
    let (first, other) = (pair.local.slice(0, 5).unwrap(), pair.local.slice(5, 5).unwrap());
    run(&mut endpoint, &[Operation::write(first, 0, 59), Operation::write(other, 1, 123)]).result.unwrap();
    peer.revoke().unwrap();
    assert_eq!(&bytes(pair.region.memory())[59..], b"first");
    assert_eq!(&bytes(second.memory())[123..], b"other");
}

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
            assert_eq!(peer.revoke().unwrap(), segstore_transport::Revocation::NeverConnected);
        }
        assert_eq!(dialing.complete(&reply).unwrap_err().kind(), ErrorKind::Revoked);
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
    for round in 0..F::ROUNDS {
        region.memory().write_at(0, &[0; 512]).unwrap();
        let (mut endpoint, peer) = connect(&initiator, fixture.target(), &[(&region, Rights::ALL)]);
        let local = initiator.register(&Memory::anonymous(512).unwrap(), Rights::LOCAL).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| stream(&mut endpoint, &local));
            while region.memory().load_u64(0, Ordering::Acquire).unwrap() < round as u64 % 7 {
                std::hint::spin_loop();
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
fn connectable<F: Fixture>(
    initiator: &segstore_transport::Domain,
    fixture: &F,
    region: &Region,
) -> (Endpoint, segstore_transport::Peer) {
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

fn hostile(mut check: impl FnMut(Vec<u8>), good: &[u8]) {
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let any_bytes = prop::collection::vec(any::<u8>(), 0..120);
    let cases = (any_bytes, any::<u16>(), any::<u8>(), 0..3u8);
    let check = std::cell::RefCell::new(&mut check);
    let result = runner.run(&cases, |(noise, at, byte, how)| {
        let mut message = good.to_vec();
        let at = usize::from(at) % message.len();
        match how {
            0 => message = noise,
            1 => message[at] = byte,
            _ => message.truncate(at),
        }
        (check.borrow_mut())(message);
        Ok(())
    });
    result.unwrap();
}

/// Any bytes as a hello are admitted or refused, and harm nobody.
pub(crate) fn hostile_hello<F: Fixture>() {
    let mut pair = Pair::<F>::new(64);
    let grants = [Grant { region: &pair.region, rights: Rights::ALL }];
    let dialing = pair.initiator.dial().unwrap();
    hostile(|hello| drop(pair.fixture.target().admit(&hello, &grants)), dialing.hello());
    run(&mut pair.endpoint, &[Operation::Flush]).result.unwrap();
}

/// Any bytes as a reply connect or fail, and harm nobody.
pub(crate) fn hostile_reply<F: Fixture>() {
    let mut pair = Pair::<F>::new(64);
    let grants = [Grant { region: &pair.region, rights: Rights::READ }];
    let good = pair.fixture.target().admit(pair.initiator.dial().unwrap().hello(), &grants).unwrap().1;
    hostile(|reply| drop(pair.initiator.dial().unwrap().complete(&reply)), &good);
    run(&mut pair.endpoint, &[Operation::Flush]).result.unwrap();
}

/// A reply opens one connection.
pub(crate) fn reply_used_twice<F: Fixture>() {
    let pair = Pair::<F>::new(64);
    let (dialing, again) = (pair.initiator.dial().unwrap(), pair.initiator.dial().unwrap());
    let grants = [Grant { region: &pair.region, rights: Rights::READ }];
    let (_peer, reply) = pair.fixture.target().admit(dialing.hello(), &grants).unwrap();
    let _endpoint = dialing.complete(&reply).unwrap();
    assert_eq!(again.complete(&reply).unwrap_err().kind(), ErrorKind::Revoked);
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
