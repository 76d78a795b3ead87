//! What only shared memory has: other processes that sleep, die and keep mappings, files with names, hostile knocks.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use nix::sys::signal::Signal;
use segstore_transport::shm::Shm;
use segstore_transport::{
    Endpoint, ErrorKind, Grant, Keep, Memory, Operation, Peer, Post, Provider, Revocation, RevokeKind, Rights, Wait,
    shm,
};

use crate::fixture::{Fixture, Pair, ShmFixture, bytes, connect, fill, run, watched};
use crate::process::Second;
use crate::writer::{self, admit_second, assert_all_at_least, region, wait_for};

/// A writer that is stopped in the middle and wakes after the revoke changes nothing.
#[test]
fn a_stopped_writer_wakes_into_an_orphan() {
    watched("a_stopped_writer_wakes_into_an_orphan", || {
        let revoked = Revocation::FreshBacking { copied: 1 << 16 };
        writer::is_stopped(ShmFixture::new().target(), "writer", 100, revoked);
    });
}

/// The same without a stop: the writer runs on another core while it is revoked.
#[test]
fn a_running_writer_is_revoked() {
    watched("a_running_writer_is_revoked", || {
        let fixture = ShmFixture::new();
        let (region, mut second) = (region(fixture.target(), 512), Second::start("writer"));
        for round in 0..2000 {
            region.memory().write_at(0, &[0; 512]).unwrap();
            let peer = admit_second(fixture.target(), &region, &mut second);
            wait_for(&region, round % 7);
            peer.revoke().unwrap();
            let after = bytes(region.memory());
            let completed = second.receive_u64();
            second.receive();
            assert_eq!(bytes(region.memory()), after, "round {round}: something landed after the revoke");
            assert_all_at_least(&after, completed);
        }
    });
}

/// A killed writer is noticed, and its death is proof enough: nothing is copied.
#[test]
fn a_killed_writer_is_proven_dead() {
    watched("a_killed_writer_is_proven_dead", || {
        let fixture = ShmFixture::new();
        let region = region(fixture.target(), 4096);
        let mut second = Second::start("writer");
        let peer = admit_second(fixture.target(), &region, &mut second);
        wait_for(&region, 3);
        assert!(peer.is_alive());
        second.signal(Signal::SIGKILL);
        while peer.is_alive() {
            std::thread::yield_now();
        }
        drop(second);
        assert_eq!(peer.revoke().unwrap(), Revocation::Proven);
        let after = bytes(region.memory());
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert_eq!(bytes(region.memory()), after);
    });
}

/// A killed target is noticed: its memory would take writes for ever.
#[test]
fn a_killed_target_is_noticed() {
    watched("a_killed_target_is_noticed", || {
        let (initiator, mut second) = (Shm::new().open().unwrap(), Second::start("target"));
        let dialing = initiator.dial().unwrap();
        second.send(dialing.hello());
        let mut endpoint = dialing.complete(&second.receive()).unwrap();
        let local = initiator.register(&Memory::anonymous(8).unwrap(), Rights::LOCAL).unwrap();
        let batch = [Operation::write(local.all(), 0, 0)];
        run(&mut endpoint, &batch).result.unwrap();
        second.signal(Signal::SIGKILL);
        let error = loop {
            if let Err(error) = run(&mut endpoint, &batch).result {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::PeerGone);
    });
}

/// The others on a region that moved are told so, and can connect again.
#[test]
fn neighbours_are_told_that_the_region_moved() {
    let mut pair = Pair::<ShmFixture>::new(4096);
    let (mut neighbour, _peer) = pair.another();
    let (mut reader, _peer) = connect(&pair.initiator, pair.fixture.target(), &[(&pair.region, Rights::READ)]);
    let batch = [Operation::write(pair.local.slice(0, 8).unwrap(), 0, 0)];
    run(&mut pair.endpoint, &batch).result.unwrap();
    run(&mut neighbour, &batch).result.unwrap();
    assert_eq!(pair.peer.revoke().unwrap(), Revocation::FreshBacking { copied: 4096 });
    assert_eq!(run(&mut pair.endpoint, &batch).result.unwrap_err().kind(), ErrorKind::Revoked);
    assert_eq!(run(&mut neighbour, &batch).result.unwrap_err().kind(), ErrorKind::Moved);
    let stale = run(&mut reader, &[Operation::read(pair.local.slice(0, 8).unwrap(), 0, 0)]);
    assert_eq!(stale.result.unwrap_err().kind(), ErrorKind::Moved, "stale bytes are not handed out as fresh");
    let (mut again, _peer) = pair.another();
    run(&mut again, &batch).result.unwrap();
}

/// Who only reads is revoked without a copy; and whose mappings were orphaned before, too.
#[test]
fn no_copy_where_nothing_can_land() {
    let pair = Pair::<ShmFixture>::new(4096);
    fill(&pair.region, 1);
    let (_reading, reader) = connect(&pair.initiator, pair.fixture.target(), &[(&pair.region, Rights::READ)]);
    let (_writing, writer) = pair.another();
    assert_eq!(reader.revoke().unwrap(), Revocation::Proven);
    assert_eq!(pair.peer.revoke().unwrap(), Revocation::FreshBacking { copied: 4096 });
    assert_eq!(writer.revoke().unwrap(), Revocation::FreshBacking { copied: 0 });
}

/// One memory registered twice, granted to two peers: both are told.
#[test]
fn memory_registered_twice_moves_once_and_tells_everybody() {
    let mut pair = Pair::<ShmFixture>::new(4096);
    let twin = pair.fixture.target().register(pair.region.memory(), Rights::ALL).unwrap();
    let (mut endpoint, _peer) = connect(&pair.initiator, pair.fixture.target(), &[(&twin, Rights::ALL)]);
    pair.peer.revoke().unwrap();
    let batch = [Operation::write(pair.local.slice(0, 8).unwrap(), 0, 0)];
    assert_eq!(run(&mut endpoint, &batch).result.unwrap_err().kind(), ErrorKind::Moved);
    assert_eq!(run(&mut pair.endpoint, &batch).result.unwrap_err().kind(), ErrorKind::Revoked);
}

/// Only what is worth keeping is copied, holes are not, and the address stays.
#[test]
fn only_what_is_kept_is_copied() {
    let pair = Pair::<ShmFixture>::new(1 << 20);
    let (address, before) = (pair.region.memory().as_ptr(), fill(&pair.region, 1));
    let wrong = [vec![(1, 0..1)], vec![(0, 0..(1 << 20) + 1)], vec![(0, usize::MAX..usize::MAX)]];
    for ranges in wrong {
        let error = pair.peer.revoke_keeping(Keep::Ranges(&ranges)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    let keep = [(0, 100..5000), (0, 500_000..500_001)];
    assert_eq!(pair.peer.revoke_keeping(Keep::Ranges(&keep)).unwrap(), Revocation::FreshBacking { copied: 4901 });
    let now = bytes(pair.region.memory());
    assert_eq!(pair.region.memory().as_ptr(), address);
    assert_eq!((&now[100..5000], now[500_000]), (&before[100..5000], before[500_000]));
    assert!(now[8192..500_000].iter().all(|&byte| byte == 0));
    let sparse = Pair::<ShmFixture>::new(1 << 30);
    sparse.region.memory().write_at(1 << 29, b"x").unwrap();
    assert!(matches!(sparse.peer.revoke().unwrap(), Revocation::FreshBacking { copied: ..=2_097_152 }));
}

fn temporary(name: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/segstore-test-{}-{name}", std::process::id()))
}

/// A file by name keeps its name, mode and bytes when its memory moves.
#[test]
fn a_named_file_keeps_its_name() {
    let path = temporary("named");
    let fixture = ShmFixture::new();
    let memory = Memory::named(&path, 8192).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let region = fixture.target().register(&memory, Rights::ALL).unwrap();
    assert_eq!(region.revoke_kind(), RevokeKind::FreshBacking);
    let initiator = fixture.initiator();
    let (mut endpoint, peer) = connect(&initiator, fixture.target(), &[(&region, Rights::ALL)]);
    let local = initiator.register(&Memory::anonymous(8192).unwrap(), Rights::LOCAL).unwrap();
    let written = fill(&local, 1);
    run(&mut endpoint, &[Operation::write(local.all(), 0, 0)]).result.unwrap();
    let before = std::fs::metadata(&path).unwrap();
    peer.revoke().unwrap();
    let after = std::fs::metadata(&path).unwrap();
    assert_ne!(before.ino(), after.ino());
    assert_eq!(before.mode(), after.mode());
    assert_eq!(std::fs::read(&path).unwrap(), written);
    memory.write_at(0, b"live").unwrap();
    assert_eq!(&std::fs::read(&path).unwrap()[..4], b"live", "the name and the memory are one file");
    assert_eq!(bytes(&Memory::named(&path, 8192).unwrap()), bytes(&memory));
    assert_eq!(Memory::named(&path, 4096).unwrap_err().kind(), ErrorKind::InvalidInput);
    std::fs::remove_file(&path).unwrap();
}

/// A file that others open by name, known only by its descriptor, cannot move: a living peer makes revoke fail, told
/// in so many words, and the peer is stopped all the same.
#[test]
fn what_cannot_move_says_so() {
    let path = temporary("unmovable");
    std::fs::File::create_new(&path).unwrap().write_all(&[0; 4096]).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let nameless = Memory::shared(&file, 0, 4096).unwrap();
    let kept = temporary("kept");
    let file = std::fs::File::create_new(&kept).unwrap();
    file.set_len(4096).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(&kept).unwrap();
    let fixture = ShmFixture::new();
    let initiator = fixture.initiator();
    let nameless = fixture.target().register(&nameless, Rights::ALL).unwrap();
    assert_eq!(nameless.revoke_kind(), RevokeKind::FreshBacking);
    let region = fixture.target().register(&Memory::shared(&file, 0, 4096).unwrap(), Rights::ALL).unwrap();
    std::fs::remove_file(&kept).unwrap();
    assert_eq!(region.revoke_kind(), RevokeKind::DeathOnly);
    let (mut endpoint, peer) = connect(&initiator, fixture.target(), &[(&region, Rights::ALL)]);
    assert_eq!(peer.revoke().unwrap_err().kind(), ErrorKind::Unsupported);
    let local = initiator.register(&Memory::anonymous(8).unwrap(), Rights::LOCAL).unwrap();
    assert_eq!(
        run(&mut endpoint, &[Operation::write(local.all(), 0, 0)]).result.unwrap_err().kind(),
        ErrorKind::Revoked
    );
}

/// Private memory is for this side only, and its file never changes.
#[test]
fn private_memory_stays_private() {
    let mut pair = Pair::<ShmFixture>::new(4096);
    fill(&pair.region, 1);
    let file = std::fs::File::from(pair.region.memory().fd().unwrap());
    let private = Memory::private(&file, 0, 4096).unwrap();
    assert_eq!(bytes(&private), bytes(pair.region.memory()));
    private.write_at(0, b"mine").unwrap();
    assert_ne!(bytes(&private), bytes(pair.region.memory()));
    let denied = pair.initiator.register(&private, Rights::READ).unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Unsupported);
    let local = pair.initiator.register(&private, Rights::LOCAL).unwrap();
    run(&mut pair.endpoint, &[Operation::write(local.slice(0, 4).unwrap(), 0, 8)]).result.unwrap();
    assert_eq!(&bytes(pair.region.memory())[8..12], b"mine");
}

/// A peer that was granted reading only gets a descriptor that cannot be mapped for writing.
#[test]
fn memory_checks_its_input() {
    let page = Memory::anonymous(4096).unwrap();
    let file = std::fs::File::from(page.fd().unwrap());
    for (offset, len) in [(0, 0), (1, 10), (4096, 1), (0, 4097), (u64::MAX - 4095, 1), (0, usize::MAX)] {
        assert_eq!(Memory::shared(&file, offset, len).unwrap_err().kind(), ErrorKind::InvalidInput, "{offset} {len}");
        assert_eq!(Memory::private(&file, offset, len).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert!(Memory::anonymous(0).is_err());
    assert!(Memory::anonymous(usize::MAX).is_err());
    let mut word = [0; 8];
    for offset in [4089, 4096, usize::MAX] {
        assert!(page.read_at(offset, &mut word).is_err());
        assert!(page.write_at(offset, &word).is_err());
        assert!(page.load_u64(offset, Ordering::Relaxed).is_err());
    }
    assert!(page.load_u64(4, Ordering::Relaxed).is_err());
    assert!(file.set_len(10).is_err(), "nobody can cut the memory off");
}

/// Children of an initiator do not inherit its mappings of the target's memory.
#[test]
fn mappings_are_not_inherited() {
    let pair = Pair::<ShmFixture>::new(12345 * 4096);
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut here = false;
    let mut flags = Vec::new();
    for line in maps.lines() {
        if line.contains('-') && line.contains(':') && !line.starts_with("VmFlags") && line.contains(" rw-s ") {
            let range = line.split(' ').next().unwrap().split_once('-').unwrap();
            let ends = (usize::from_str_radix(range.0, 16).unwrap(), usize::from_str_radix(range.1, 16).unwrap());
            here = ends.1 - ends.0 == 12345 * 4096;
        }
        if here && line.starts_with("VmFlags") {
            flags.push(line.contains(" dc"));
            here = false;
        }
    }
    // The target's own, the initiator's local, and the initiator's of the target's: one of the three.
    assert_eq!(flags.iter().filter(|&&dont_copy| dont_copy).count(), 1, "{flags:?}");
    drop(pair);
}

/// Any knock is answered or not, and the domain goes on.
#[test]
fn hostile_knocks_harm_nobody() {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect as connect_socket, send, socket,
    };
    use std::os::fd::AsRawFd;
    let mut pair = Pair::<ShmFixture>::new(4096);
    let dialing = pair.initiator.dial().unwrap();
    let grants = [Grant { region: &pair.region, rights: Rights::ALL }];
    let (_waiting, reply) = pair.fixture.target().admit(dialing.hello(), &grants).unwrap();
    let address = UnixAddr::new_abstract(&shm::wire::Reply::parse(&reply).unwrap().address[1..]).unwrap();
    let mut sockets = Vec::new();
    for round in 0..200u8 {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        connect_socket(socket.as_raw_fd(), &address).unwrap();
        let message = vec![round; usize::from(round)];
        if round % 3 > 0 {
            let _ = send(socket.as_raw_fd(), &message, MsgFlags::MSG_NOSIGNAL);
        }
        sockets.push(socket);
    }
    let mut late = dialing.complete(&reply).unwrap();
    run(&mut late, &[Operation::Flush]).result.unwrap();
    run(&mut pair.endpoint, &[Operation::Flush]).result.unwrap();
}

/// Sockets in a directory work as abstract ones do, and are removed.
#[test]
fn sockets_in_a_directory() {
    let directory = temporary("sockets");
    let target = Shm::in_directory(&directory).open().unwrap();
    let region = target.register(&Memory::anonymous(64).unwrap(), Rights::ALL).unwrap();
    let initiator = Shm::new().open().unwrap();
    let (mut endpoint, peer): (Endpoint, Peer) = connect(&initiator, &target, &[(&region, Rights::ALL)]);
    run(&mut endpoint, &[Operation::Flush]).result.unwrap();
    drop((endpoint, peer));
    let left: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Notifications that were sent before the revoke are still given out, later ones are not.
#[test]
fn notifications_end_with_the_revoke() {
    let mut pair = Pair::<ShmFixture>::new(64);
    let nothing = pair.local.slice(0, 0).unwrap();
    run(&mut pair.endpoint, &[Operation::write_notify(nothing, 0, 0, 1)]).result.unwrap();
    pair.peer.revoke().unwrap();
    assert!(matches!(pair.endpoint.post(&[Operation::write_notify(nothing, 0, 0, 2)], 0), Err(Post::Failed(_))));
    assert_eq!(pair.peer.wait_notification(Wait::default(), None), Some(1));
    assert_eq!(pair.peer.poll_notification(), None);
}

/// Whoever has a notification finds its bytes, also when the region moved while they were written.
#[test]
fn a_notification_never_speaks_of_an_orphan() {
    const LEN: usize = 1 << 18;
    let Pair { region, initiator, fixture, peer, local, .. } = Pair::<ShmFixture>::new(LEN);
    drop(peer);
    for round in 0..200 {
        region.memory().store_u64(0, 0, Ordering::SeqCst).unwrap();
        let (mut endpoint, writer) = connect(&initiator, fixture.target(), &[(&region, Rights::ALL)]);
        let (_other, revoked) = connect(&initiator, fixture.target(), &[(&region, Rights::ALL)]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1.. {
                    local.memory().store_u64(0, number, Ordering::Relaxed).unwrap();
                    let bulk = Operation::write(local.slice(8, LEN - 8).unwrap(), 0, 8);
                    let word = Operation::write_notify(local.slice(0, 8).unwrap(), 0, 0, number);
                    if run(&mut endpoint, &[bulk, word]).result.is_err() {
                        return;
                    }
                }
            });
            let first = writer.wait_notification(Wait::Busy, None).unwrap();
            revoked.revoke().unwrap();
            let last = std::iter::from_fn(|| writer.poll_notification()).last().unwrap_or(first);
            let there = region.memory().load_u64(0, Ordering::SeqCst).unwrap();
            assert!(there >= last, "round {round}: told of {last}, but {there} is there");
        });
    }
}

#[test]
fn who_never_connects_over_shm_is_given_up() {
    watched("who_never_connects_over_shm_is_given_up", crate::suite::never_connects::<ShmFixture>);
}
