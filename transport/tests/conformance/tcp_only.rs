//! What only TCP has: a target whose processor does the work, processes that stop and die, a connection for each peer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use segstore_transport::shm::Shm;
use segstore_transport::tcp::Tcp;
use segstore_transport::{
    Domain, ErrorKind, Grant, Memory, Operation, Peer, Post, Provider, Region, Revocation, Rights, Server,
    ServerOptions, Wait,
};

use crate::fixture::{Fixture, Pair, TcpFixture, bytes, connect, fill, run, watched};
use crate::process::Second;
use crate::suite::stream;
use crate::writer::{self, region};

/// Without TLS, and with it.
fn both() -> [Tcp; 2] {
    let plain = Tcp::listening_on(([127, 0, 0, 1], 0));
    [plain.clone(), plain.encrypted()]
}

/// A target without a server, whose work this test does.
fn by_hand(tcp: &Tcp, len: usize) -> (Domain, Region, Domain, Region) {
    let target = tcp.open().unwrap();
    let initiator = Tcp::dialing_only().open().unwrap();
    let (region, local) = (region(&target, len), region(&initiator, len));
    (target, region, initiator, local)
}

/// Connects while another thread serves.
fn connect_by_hand(initiator: &Domain, target: &Domain, region: &Region) -> (segstore_transport::Endpoint, Peer) {
    let server = Server::start(target, &ServerOptions::default()).unwrap();
    let connected = connect(initiator, target, &[(region, Rights::ALL)]);
    server.stop().unwrap();
    connected
}

/// What stands in the socket's buffers when the peer is revoked stays there.
#[test]
fn bytes_in_the_buffers_do_not_land() {
    both().iter().for_each(revoke_over_full_buffers);
}

fn revoke_over_full_buffers(tcp: &Tcp) {
    let (target, region, initiator, local) = by_hand(tcp, 1 << 20);
    fill(&local, 1);
    for taken in [0, 1, 3] {
        let (mut endpoint, peer) = connect_by_hand(&initiator, &target, &region);
        region.memory().write_at(0, &vec![0; 1 << 20]).unwrap();
        for id in 0..8 {
            endpoint.post(&[Operation::write(local.all(), 0, 0)], id).unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
        for _ in 0..taken {
            target.progress().unwrap();
        }
        assert_eq!(peer.revoke().unwrap(), Revocation::AccessRemoved);
        let after = bytes(region.memory());
        for _ in 0..20 {
            target.progress().unwrap();
        }
        assert!(bytes(region.memory()) == after, "something landed after the revoke");
        let errors = (0..8).filter_map(|_| endpoint.wait(Wait::default(), None).unwrap().result.err());
        assert!(errors.map(|error| error.kind()).all(|kind| kind == ErrorKind::Revoked));
    }
}

/// A writer that is stopped in the middle and wakes after the revoke changes nothing.
#[test]
fn a_stopped_writer_wakes_to_a_closed_connection() {
    watched("a_stopped_writer_wakes_to_a_closed_connection", || {
        writer::is_stopped(TcpFixture::new().target(), "tcp-writer", 100, Revocation::AccessRemoved);
    });
}

/// A killed writer is noticed at once, and its peer's handle knows that it is gone.
#[test]
fn a_killed_writer_is_noticed() {
    watched("a_killed_writer_is_noticed", || {
        writer::is_killed(TcpFixture::new().target(), "tcp-writer", 10);
    });
}

/// A killed target is noticed by an endpoint that waits for it, asleep or not.
#[test]
fn a_killed_target_is_noticed() {
    watched("a_killed_target_is_noticed", || {
        for wait in [Wait::Busy, Wait::Event, Wait::default()] {
            let (initiator, mut second) = (Tcp::dialing_only().open().unwrap(), Second::start("tcp-target"));
            let dialing = initiator.dial().unwrap();
            second.send(dialing.hello());
            let mut endpoint = dialing.complete(&second.receive()).unwrap();
            let local = region(&initiator, 8);
            let batch = [Operation::write(local.all(), 0, 0)];
            run(&mut endpoint, &batch).result.unwrap();
            second.stop();
            endpoint.post(&batch, 0).unwrap();
            second.signal(Signal::SIGKILL);
            let error = endpoint.wait(wait, None).unwrap().result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PeerGone);
        }
    });
}

/// A sleep of the target's thread ends with what it waits for: a connection, bytes, room to send, or room for
/// notifications. (A sleep of minutes would not: the watchdog is there before.)
#[test]
fn sleeping_needs_no_other_wake_up() {
    watched("sleeping_needs_no_other_wake_up", || both().iter().for_each(every_sleep_ends));
}

fn every_sleep_ends(tcp: &Tcp) {
    const LONG: Duration = Duration::from_secs(3600);
    let (target, region, initiator, local) = by_hand(tcp, 16 << 20);
    let (last, _peer) = connect_by_hand(&initiator, &target, &region);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                if target.progress().unwrap() == 0 {
                    target.driver().sleep(LONG);
                }
            }
        });
        let (mut endpoint, peer) = connect(&initiator, &target, &[(&region, Rights::ALL)]);
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(1));
            run(&mut endpoint, &[Operation::write(local.slice(0, 8).unwrap(), 0, 0)]).result.unwrap();
        }
        endpoint.post(&[Operation::read(local.all(), 0, 0), Operation::read(local.all(), 0, 0)], 0).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        endpoint.wait(Wait::Event, None).unwrap().result.unwrap();
        let notify = [Operation::write_notify(local.slice(0, 0).unwrap(), 0, 0, 7)];
        for _ in 0..1024 {
            run(&mut endpoint, &notify).result.unwrap();
        }
        assert_eq!(endpoint.post(&notify, 0), Err(Post::WouldBlock));
        std::thread::sleep(Duration::from_millis(5));
        for _ in 0..1024 {
            assert_eq!(peer.poll_notification(), Some(7));
        }
        run(&mut endpoint, &notify).result.unwrap();
        drop(endpoint);
        while peer.is_alive() {
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Release);
        drop(last); // What wakes the thread for the last time.
    });
}

/// Peers that send without a pause leave the others their turns.
#[test]
fn bulk_starves_nobody() {
    watched("bulk_starves_nobody", || {
        let Pair { mut endpoint, local, initiator, fixture, peer: _peer, .. } = Pair::<TcpFixture>::new(64);
        let (stop, moved) = (AtomicBool::new(false), AtomicU64::new(0));
        let mut small = Duration::ZERO;
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let (initiator, fixture, stop, moved) = (&initiator, &fixture, &stop, &moved);
                scope.spawn(move || {
                    let (here, there) = (region(initiator, 64 << 20), region(fixture.target(), 64 << 20));
                    let (mut bulk, _peer) = connect(initiator, fixture.target(), &[(&there, Rights::ALL)]);
                    while !stop.load(Ordering::Relaxed) {
                        run(&mut bulk, &[Operation::write(here.all(), 0, 0)]).result.unwrap();
                        moved.fetch_add(64, Ordering::Relaxed);
                    }
                });
            }
            while moved.load(Ordering::Relaxed) < 1 << 10 {
                let started = Instant::now();
                run(&mut endpoint, &[Operation::write(local.all(), 0, 0)]).result.unwrap();
                small = small.max(started.elapsed());
            }
            stop.store(true, Ordering::Relaxed);
        });
        println!("the slowest small write beside three streams took {small:?}");
    });
}

/// Several threads serve one domain, and many peers, and every byte arrives.
#[test]
fn several_threads_serve() {
    watched("several_threads_serve", || {
        for (tcp, wait) in both().iter().flat_map(|tcp| [(tcp, Wait::Event), (tcp, Wait::default())]) {
            let target = tcp.open().unwrap();
            let options = ServerOptions { name: "several".into(), cpus: vec![0, 1, 0], wait };
            let _server = Server::start(&target, &options).unwrap();
            std::thread::scope(|scope| {
                for seed in 0..6 {
                    let target = &target;
                    scope.spawn(move || {
                        let initiator = Tcp::dialing_only().open().unwrap();
                        let (here, there) = (region(&initiator, 300_000), region(target, 300_000));
                        let (mut endpoint, _peer) = connect(&initiator, target, &[(&there, Rights::ALL)]);
                        for round in 0..50 {
                            let written = fill(&here, seed * 1000 + round);
                            let parts = [(0, 10), (10, 5000), (5010, 200_000), (205_010, 94_990)];
                            let batch =
                                parts.map(|(at, len)| Operation::write(here.slice(at, len).unwrap(), 0, at as u64));
                            run(&mut endpoint, &batch).result.unwrap();
                            assert!(bytes(there.memory()) == written);
                        }
                    });
                }
            });
        }
    });
}

/// Memory that is shared with processes and granted over TCP: when it moves, the TCP peer is told, and nothing that it
/// completed is lost.
#[test]
fn memory_that_moves_ends_the_connection() {
    watched("memory_that_moves_ends_the_connection", || {
        let (fixture, shared) = (TcpFixture::new(), Shm::new().open().unwrap());
        let memory = Memory::anonymous(4096).unwrap();
        let over_tcp = fixture.target().register(&memory, Rights::ALL).unwrap();
        let over_shm = shared.register(&memory, Rights::ALL).unwrap();
        let initiator = fixture.initiator();
        let local = region(&initiator, 8);
        for round in 0..300 {
            memory.store_u64(0, 0, Ordering::SeqCst).unwrap();
            let (mut endpoint, peer) = connect(&initiator, fixture.target(), &[(&over_tcp, Rights::ALL)]);
            let (_mapped, mapper) = connect(&shared, &shared, &[(&over_shm, Rights::ALL)]);
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| stream(&mut endpoint, &local));
                while memory.load_u64(0, Ordering::Acquire).unwrap() < round % 7 {
                    std::hint::spin_loop();
                }
                assert_eq!(mapper.revoke().unwrap(), Revocation::FreshBacking { copied: 4096 });
                let (completed, error) = writer.join().unwrap();
                assert_eq!(error, ErrorKind::Moved);
                let there = memory.load_u64(0, Ordering::SeqCst).unwrap();
                assert!(there >= completed, "round {round}: {completed} completed, but {there} is there");
                assert_eq!(peer.failure().unwrap().kind(), ErrorKind::Moved);
            });
        }
    });
}

/// What was asked for and cannot be says so.
#[test]
fn wrong_set_ups_are_told() {
    let dialing = Tcp::dialing_only().open().unwrap();
    let there = region(&dialing, 64);
    let hello = dialing.dial().unwrap().hello().to_vec();
    let error = dialing.admit(&hello, &[Grant { region: &there, rights: Rights::ALL }]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let everywhere = Tcp::listening_on(([0, 0, 0, 0], 0));
    assert_eq!(everywhere.open().unwrap_err().kind(), ErrorKind::InvalidInput);
    let found = everywhere.advertising(&[([127, 0, 0, 1], 0).into()]).open().unwrap();
    let _server = Server::start(&found, &ServerOptions::default()).unwrap();
    let there = region(&found, 64);
    let (mut endpoint, _peer) = connect(&dialing, &found, &[(&there, Rights::ALL)]);
    run(&mut endpoint, &[Operation::Flush]).result.unwrap();
    assert_eq!(Tcp::listening_on(([192, 0, 2, 1], 0)).open().unwrap_err().kind(), ErrorKind::System);
}

/// A target that nobody serves is told from one that is not there.
#[test]
fn unserved_and_absent_targets_are_told_apart() {
    let (target, region, ..) = by_hand(&both()[0], 64);
    let initiator = Tcp::dialing_only().connect_within(Duration::from_millis(50)).open().unwrap();
    let dial = || {
        let dialing = initiator.dial().unwrap();
        let grants = [Grant { region: &region, rights: Rights::ALL }];
        let (peer, reply) = target.admit(dialing.hello(), &grants).unwrap();
        (dialing, peer, reply)
    };
    let (unserved, _peer, reply) = dial();
    assert_eq!(unserved.complete(&reply).unwrap_err().kind(), ErrorKind::TimedOut);
    let (absent, peer, reply) = dial();
    drop((peer, _peer, region, target));
    assert_eq!(absent.complete(&reply).unwrap_err().kind(), ErrorKind::PeerGone);
}

#[test]
fn who_never_connects_over_tcp_is_given_up() {
    watched("who_never_connects_over_tcp_is_given_up", crate::suite::never_connects::<TcpFixture>);
}
