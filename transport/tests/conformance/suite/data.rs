//! What arrives: order, completion, sizes, atomics.

use segstore_transport::{Completion, Memory, Operation, Post, Rights};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::fixture::{Fixture, Pair, bytes, connect, fill, run, wait};

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

/// A read brings what was there before a later write of the same batch, however long both are.
pub(crate) fn reads_before_writes<F: Fixture>() {
    const LEN: usize = 8 << 20;
    let mut pair = Pair::<F>::new(2 * LEN);
    let there = fill(&pair.region, 11);
    let written = fill(&pair.local, 12);
    let batch = [
        Operation::read(pair.local.slice(0, LEN).unwrap(), 0, 0),
        Operation::write(pair.local.slice(LEN, LEN).unwrap(), 0, 0),
        Operation::Flush,
    ];
    run(&mut pair.endpoint, &batch).result.unwrap();
    assert!(bytes(pair.local.memory())[..LEN] == there[..LEN], "a read saw a later write");
    assert!(bytes(pair.region.memory())[..LEN] == written[LEN..]);
}

/// Reads and writes that fill every buffer of both sides come to an end, in the order posted.
pub(crate) fn both_ways_full<F: Fixture>() {
    const LEN: usize = 1 << 20;
    let mut pair = Pair::<F>::new(16 * LEN);
    let (there, _) = (fill(&pair.region, 13), fill(&pair.local, 14));
    let mut next = 0;
    for id in 0..48 {
        let (read, write) = (id % 8 * LEN, (8 + id % 8) * LEN);
        let batch = [
            Operation::read(pair.local.slice(read, LEN).unwrap(), 0, read as u64),
            Operation::write(pair.local.slice(write, LEN).unwrap(), 0, write as u64),
        ];
        while let Err(blocked) = pair.endpoint.post(&batch, id as u64) {
            assert_eq!(blocked, Post::WouldBlock);
            assert_eq!(wait(&mut pair.endpoint), Some(Completion { id: next, result: Ok(()) }));
            next += 1;
        }
    }
    while let Some(done) = wait(&mut pair.endpoint) {
        assert_eq!(done, Completion { id: next, result: Ok(()) });
        next += 1;
    }
    assert!(bytes(pair.local.memory())[..8 * LEN] == there[..8 * LEN]);
    run(&mut pair.endpoint, &[Operation::Flush]).result.unwrap();
    assert!(bytes(pair.region.memory())[8 * LEN..] == bytes(pair.local.memory())[8 * LEN..]);
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
    if !F::GIBIBYTE {
        return;
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

/// Increments by compare and swap, from several endpoints at once, are all counted.
pub(crate) fn compare_swap_contention<F: Fixture>() {
    const ENDPOINTS: u64 = 4;
    let Pair { region, initiator, fixture, peer: _peer, endpoint: _endpoint, .. } = Pair::<F>::new(4096);
    if !initiator.capabilities().atomics {
        return; // The provider says that it cannot.
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
