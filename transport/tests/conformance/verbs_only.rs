//! What only RDMA has: queues in a device, keys that a hostile peer may try, memory that stays registered.

use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::Signal;
use segstore_transport::shm::Shm;
use segstore_transport::verbs::wire::{Opened, Reply};
use segstore_transport::verbs::{Verbs, devices};
use segstore_transport::{
    Domain, Endpoint, ErrorKind, Grant, Memory, Operation, Peer, Post, Provider, Region, Revocation, Rights, Scope,
    Wait,
};

use crate::fixture::{
    Fixture, VerbsFixture, WindowlessFixture, bytes, connect, fill, revokes, run, skip, wait, watched,
};
use crate::process::Second;
use crate::suite::stream;
use crate::writer::{self, region};

/// Thousands of times, if asked: a peer that keeps its queue full of long writes is revoked in the middle of them.
#[test]
fn nothing_lands_of_full_queues() {
    watched("nothing_lands_of_full_queues", full_queues::<VerbsFixture>);
}

#[test]
fn nothing_lands_of_full_queues_without_windows() {
    watched("nothing_lands_of_full_queues_without_windows", full_queues::<WindowlessFixture>);
}

const LONG: usize = 32 << 10;

fn full_queues<F: Fixture>() {
    let fixture = F::new();
    let initiator = fixture.initiator();
    let (region, sources) = (region(fixture.target(), LONG), region(&initiator, 8 * LONG));
    fill(&sources, 1);
    for round in 0..revokes::<F>() {
        region.memory().write_at(0, &[0; 8]).unwrap();
        let (mut endpoint, peer) = connect(&initiator, fixture.target(), &[(&region, Rights::WRITE)]);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| keep_full(&mut endpoint, &sources));
            while region.memory().load_u64(0, Ordering::Acquire).unwrap() == 0 {
                std::thread::yield_now();
            }
            if round % 2 == 1 {
                std::thread::sleep(Duration::from_micros(100 * (round as u64 % 17)));
            }
            peer.revoke().unwrap();
            let after = bytes(region.memory());
            assert_eq!(writer.join().unwrap(), ErrorKind::Revoked);
            assert!(bytes(region.memory()) == after, "round {round}: something landed after the revoke");
            assert_eq!(peer.failure(), None, "a write that came too late is no fault");
        });
    }
}

/// Writes from one place after the other to the same, as many at a time as the queue takes.
fn keep_full(endpoint: &mut Endpoint, sources: &Region) -> ErrorKind {
    for number in 0.. {
        let batch = [Operation::write(sources.slice(number % 8 * LONG, LONG).unwrap(), 0, 0)];
        loop {
            match endpoint.post(&batch, 0) {
                Ok(()) => break,
                Err(Post::WouldBlock) => {
                    if let Some(Err(error)) = wait(endpoint).map(|done| done.result) {
                        return error.kind();
                    }
                }
                Err(Post::Failed(error)) => return error.kind(),
            }
        }
    }
    unreachable!("it is revoked before")
}

/// A writer that is stopped in the middle and wakes after the revoke changes nothing, and is told.
#[test]
fn a_stopped_writer_wakes_to_a_goodbye() {
    watched("a_stopped_writer_wakes_to_a_goodbye", || {
        writer::is_stopped(VerbsFixture::<true>::new().target(), "verbs-writer", 20, Revocation::AccessRemoved);
    });
}

/// A killed writer's device answers no more, and its peer's handle comes to know it.
#[test]
fn a_killed_writer_is_noticed() {
    watched("a_killed_writer_is_noticed", || {
        writer::is_killed(VerbsFixture::<true>::new().target(), "verbs-writer", 3);
    });
}

/// A stopped target takes writes all the same; a killed one is noticed by an endpoint that waits for it, asleep or not.
#[test]
fn a_killed_target_is_noticed() {
    watched("a_killed_target_is_noticed", || {
        for mode in [Wait::Busy, Wait::Event, Wait::default()] {
            let (initiator, mut second) = (VerbsFixture::<true>::new().initiator(), Second::start("verbs-target"));
            let dialing = initiator.dial().unwrap();
            second.send(dialing.hello());
            let mut endpoint = dialing.complete(&second.receive()).unwrap();
            let local = region(&initiator, 8);
            let batch = [Operation::write(local.all(), 0, 0)];
            second.stop();
            run(&mut endpoint, &batch).result.unwrap();
            second.signal(Signal::SIGKILL);
            second.end();
            endpoint.post(&batch, 0).unwrap();
            let error = endpoint.wait(mode, None).unwrap().result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PeerGone, "{error}");
        }
    });
}

/// Memory that is shared with processes and granted over RDMA: when it moves, the peer is told, nothing that it completed is
/// lost, and who comes again, and this side's own operations, find the memory where it is now.
#[test]
fn memory_that_moves_ends_the_connection() {
    watched("memory_that_moves_ends_the_connection", moving::<VerbsFixture>);
}

#[test]
fn memory_that_moves_ends_the_connection_without_windows() {
    watched("memory_that_moves_ends_the_connection_without_windows", moving::<WindowlessFixture>);
}

fn moving<F: Fixture>() {
    let (fixture, shared) = (F::new(), Shm::new().open().unwrap());
    let memory = Memory::anonymous(4096).unwrap();
    let over_verbs = fixture.target().register(&memory, Rights::ALL).unwrap();
    let over_shm = shared.register(&memory, Rights::ALL).unwrap();
    let initiator = fixture.initiator();
    let (local, other) = (region(&initiator, 8), region(&initiator, 4096));
    let (mut back, _back) = connect(fixture.target(), &initiator, &[(&other, Rights::ALL)]);
    for round in 0..30 {
        memory.store_u64(0, 0, Ordering::SeqCst).unwrap();
        let (mut endpoint, peer) = connect(&initiator, fixture.target(), &[(&over_verbs, Rights::ALL)]);
        let (_mapped, mapper) = connect(&shared, &shared, &[(&over_shm, Rights::ALL)]);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| stream(&mut endpoint, &local));
            while memory.load_u64(0, Ordering::Acquire).unwrap() < round % 7 {
                std::thread::yield_now();
            }
            assert_eq!(mapper.revoke().unwrap(), Revocation::FreshBacking { copied: 4096 });
            let (completed, error) = writer.join().unwrap();
            assert_eq!(error, ErrorKind::Moved);
            let there = memory.load_u64(0, Ordering::SeqCst).unwrap();
            assert!(there >= completed, "round {round}: {completed} completed, but {there} is there");
            assert_eq!(peer.failure().unwrap().kind(), ErrorKind::Moved);
        });
        memory.store_u64(8, 1000 + round, Ordering::SeqCst).unwrap();
        run(&mut back, &[Operation::write(over_verbs.slice(8, 8).unwrap(), 0, 8), Operation::Flush]).result.unwrap();
        assert_eq!(
            other.memory().load_u64(8, Ordering::SeqCst).unwrap(),
            1000 + round,
            "it was read where it had been"
        );
    }
}

/// A connection as a peer would have it that lies to itself about what it was granted.
fn doctored<F: Fixture>(
    fixture: &F,
    initiator: &Domain,
    grant: Grant<'_>,
    lie: impl FnOnce(&mut Opened),
) -> (Endpoint, Peer) {
    let dialing = initiator.dial().unwrap();
    let (peer, reply) = fixture.target().admit(dialing.hello(), &[grant]).unwrap();
    let mut reply = Reply::parse(&reply).unwrap();
    lie(&mut reply.grants[0]);
    (dialing.complete(&reply.encode()).unwrap(), peer)
}

/// What was not granted is refused by the device, whatever a peer asks for: bytes around the region, rights, other regions
/// by their right key. The others on the device go on.
#[test]
fn what_was_not_granted_is_refused() {
    watched("what_was_not_granted_is_refused", hostile::<VerbsFixture>);
}

#[test]
fn what_was_not_granted_is_refused_without_windows() {
    watched("what_was_not_granted_is_refused_without_windows", hostile::<WindowlessFixture>);
}

fn hostile<F: Fixture>() {
    const PAGE: u64 = 4096;
    let fixture = F::new();
    let initiator = fixture.initiator();
    // Three pages, of which the middle one is granted.
    let around = Memory::anonymous(3 * PAGE as usize).unwrap();
    let file = std::fs::File::from(around.fd().unwrap());
    let middle = Memory::shared(&file, PAGE, PAGE as usize).unwrap();
    let region = fixture.target().register(&middle, Rights::ALL).unwrap();
    let victim = fixture.target().register(&Memory::anonymous(PAGE as usize).unwrap(), Rights::ALL).unwrap();
    let mut good = None;
    let grant = |region, rights| Grant { region, rights };
    let (mut unharmed, _peer) =
        doctored(&fixture, &initiator, grant(&victim, Rights::ALL), |opened| good = Some(*opened));
    let good = good.unwrap();
    let local = region_of(&initiator, &[7; 16]);
    let write = |at| Operation::write(local.all(), 0, at);
    let swap = Operation::compare_swap(local.slice(0, 8).unwrap(), 0, 0, 0, 1);
    type Lie<'l> = Box<dyn FnOnce(&mut Opened) + 'l>;
    let lies: Vec<(&str, Rights, Lie<'_>, Operation<'_>)> = vec![
        ("behind", Rights::ALL, Box::new(|opened| opened.len *= 2), write(PAGE)),
        ("over the end", Rights::ALL, Box::new(|opened| opened.len *= 2), write(PAGE - 8)),
        ("before", Rights::ALL, Box::new(|opened| opened.base -= PAGE), write(0)),
        ("another key", Rights::ALL, Box::new(|opened| opened.key ^= 1), write(0)),
        ("another's region", Rights::ALL, Box::new(|opened| *opened = good), write(0)),
        ("a write", Rights::READ, Box::new(|opened| opened.rights = Rights::ALL), write(0)),
        ("a swap", Rights::WRITE, Box::new(|opened| opened.rights = Rights::ALL), swap),
        ("a read", Rights::WRITE, Box::new(|opened| opened.rights = Rights::ALL), Operation::read(local.all(), 0, 0)),
    ];
    for (what, rights, lie, operation) in lies {
        let (mut endpoint, peer) = doctored(&fixture, &initiator, grant(&region, rights), lie);
        let error = run(&mut endpoint, &[operation]).result.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Revoked | ErrorKind::Protocol), "{what}: {error:?}");
        while peer.is_alive() {
            std::thread::yield_now();
        }
        assert_eq!(peer.failure().unwrap().kind(), ErrorKind::Denied, "{what}");
        assert!(bytes(&around).iter().all(|&byte| byte == 0), "{what}");
        assert!(bytes(victim.memory()).iter().all(|&byte| byte == 0), "{what}");
        assert_eq!(bytes(local.memory()), [7; 16], "{what}");
    }
    run(&mut unharmed, &[write(0), Operation::Flush]).result.unwrap();
    assert_eq!(bytes(victim.memory())[..16], [7; 16]);
}

fn region_of(domain: &Domain, content: &[u8]) -> Region {
    let region = region(domain, content.len());
    region.memory().write_at(0, content).unwrap();
    region
}

/// A peer that makes itself believe that there is room finds none, and loses only its own connection.
#[test]
fn too_many_notifications_are_refused() {
    watched("too_many_notifications_are_refused", || {
        let fixture = VerbsFixture::<true>::new();
        let (initiator, region) = (fixture.initiator(), region(fixture.target(), 4096));
        let dialing = initiator.dial().unwrap();
        let (peer, reply) =
            fixture.target().admit(dialing.hello(), &[Grant { region: &region, rights: Rights::ALL }]).unwrap();
        let mut reply = Reply::parse(&reply).unwrap();
        // What it takes for the target's count is a word that it writes itself.
        reply.taken = (reply.grants[0].base, reply.grants[0].key);
        let mut endpoint = dialing.complete(&reply.encode()).unwrap();
        let local = region_of(&initiator, &256_u64.to_ne_bytes());
        let notify = |value| [Operation::write_notify(local.slice(0, 0).unwrap(), 0, 0, value)];
        for value in 0..256 {
            run(&mut endpoint, &notify(value)).result.unwrap();
        }
        run(&mut endpoint, &[Operation::write(local.all(), 0, 0)]).result.unwrap();
        assert_eq!(run(&mut endpoint, &notify(256)).result.unwrap_err().kind(), ErrorKind::Protocol);
        let taken: Vec<_> = std::iter::from_fn(|| peer.poll_notification()).collect();
        assert_eq!(taken, (0..256).collect::<Vec<_>>());
    });
}

/// Files in memory, and large pages where there are some, are registered where they are mapped.
#[test]
fn files_are_registered_in_place() {
    let path = format!("/dev/shm/segstore-verbs-{}", std::process::id());
    let memory = Memory::named(path.as_ref(), 1 << 16).unwrap();
    std::fs::remove_file(&path).unwrap();
    written_in_place(&memory);
    // The lab's guests cannot have large pages.
    if std::env::var_os("SEGSTORE_DEVICE").is_some() {
        match large_pages(2 << 20) {
            Ok(memory) => written_in_place(&memory),
            Err(why) => skip("large pages", &why.to_string()),
        }
    }
}

fn large_pages(len: usize) -> Result<Memory, Box<dyn std::error::Error>> {
    let flags = nix::sys::memfd::MFdFlags::from_bits_retain(libc::MFD_CLOEXEC | libc::MFD_HUGETLB);
    let file = std::fs::File::from(nix::sys::memfd::memfd_create(c"large", flags)?);
    file.set_len(len as u64)?;
    Ok(Memory::shared(&file, 0, len)?)
}

fn written_in_place(memory: &Memory) {
    let fixture = VerbsFixture::<true>::new();
    let initiator = fixture.initiator();
    let region = fixture.target().register(memory, Rights::ALL).unwrap();
    let source = Memory::anonymous(memory.len()).unwrap();
    let local = initiator.register(&source, Rights::LOCAL).unwrap();
    let (mut endpoint, peer) = connect(&initiator, fixture.target(), &[(&region, Rights::WRITE)]);
    let written = fill(&local, 3);
    run(&mut endpoint, &[Operation::write(local.all(), 0, 0)]).result.unwrap();
    peer.revoke().unwrap();
    assert!(bytes(memory) == written);
}

/// What was asked for and cannot be says so, with what there is.
#[test]
fn wrong_set_ups_are_told() {
    let names = devices().unwrap();
    let error = Verbs::new().device("nobody").open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(names.iter().all(|name| error.to_string().contains(name)), "{error}");
    let device = || VerbsFixture::<true>::device("SEGSTORE_DEVICE", "rxa");
    let error = device().address([192, 0, 2, 1].into()).open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(device().address_index(255).open().unwrap_err().kind(), ErrorKind::InvalidInput);
    let domain = device().open().unwrap();
    let private = Memory::local(64).unwrap();
    assert_eq!(domain.register(&private, Rights::READ).unwrap_err().kind(), ErrorKind::Unsupported);
}

/// A soft device of a test's own, on a cable of its own; both go with it.
struct OwnDevice;

impl OwnDevice {
    const NAME: &str = "rxown";

    fn make() -> Result<OwnDevice, String> {
        let steps = [
            "ip link add ownnear type veth peer name ownfar",
            "ip addr add 192.0.2.77/24 dev ownnear",
            "ip link set ownfar up",
            "ip link set ownnear up",
            "rdma link add rxown type rxe netdev ownnear",
        ];
        steps.iter().try_for_each(|step| command(step)).map(|()| OwnDevice)
    }
}

impl Drop for OwnDevice {
    fn drop(&mut self) {
        let _ = command("ip link del ownnear");
    }
}

fn command(line: &str) -> Result<(), String> {
    let mut words = line.split(' ');
    let ended = std::process::Command::new(words.next().unwrap()).args(words).output();
    match ended {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{line}: {error}")),
    }
}

/// While a port is down nobody is reached: that is said for the whole domain, and is over when the port is back.
#[test]
fn a_port_that_goes_down_is_told() {
    watched("a_port_that_goes_down_is_told", || {
        let _device = match OwnDevice::make() {
            Ok(device) => device,
            Err(why) => return skip("a_port_that_goes_down_is_told", &why),
        };
        let domain = Verbs::new().device(OwnDevice::NAME).open().unwrap();
        let target = region(&domain, 64);
        let (mut endpoint, _peer) = connect(&domain, &domain, &[(&target, Rights::ALL)]);
        let local = region_of(&domain, &[1; 64]);
        run(&mut endpoint, &[Operation::write(local.all(), 0, 0)]).result.unwrap();
        command("ip link set ownfar down").unwrap();
        let error = loop {
            match domain.dial() {
                Ok(_) => std::thread::yield_now(),
                Err(error) => break error,
            }
        };
        assert_eq!((error.kind(), error.scope()), (ErrorKind::PeerGone, Scope::Domain), "{error}");
        command("ip link set ownfar up").unwrap();
        while domain.dial().is_err() {
            std::thread::yield_now();
        }
        let (mut again, _peer) = connect(&domain, &domain, &[(&target, Rights::ALL)]);
        run(&mut again, &[Operation::write(local.all(), 0, 0)]).result.unwrap();
    });
}

#[test]
fn who_never_connects_over_verbs_is_given_up() {
    watched("who_never_connects_over_verbs_is_given_up", crate::suite::never_connects::<VerbsFixture>);
}
