//! Wrong and hostile input.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use segstore_transport::{ErrorKind, Grant, Memory, Operation, Post, Rights, Scope, Wait};

use crate::fixture::{Fixture, Pair, bytes, connect, fill, run};

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

/// More notifications than a batch can carry are an error, not back-pressure that never ends.
pub(crate) fn too_many_notifications<F: Fixture>() {
    let mut pair = Pair::<F>::new(64);
    let max = pair.initiator.capabilities().max_notifications;
    if max == usize::MAX {
        return; // There is no limit.
    }
    let notify = Operation::write_notify(pair.local.slice(0, 0).unwrap(), 0, 0, 1);
    invalid(pair.endpoint.post(&vec![notify; max + 1], 0));
    for _ in 0..5 {
        run(&mut pair.endpoint, &vec![notify; max]).result.unwrap();
        for _ in 0..max {
            assert_eq!(pair.peer.wait_notification(Wait::default(), None), Some(1));
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
