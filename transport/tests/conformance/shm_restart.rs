//! A target of shared memory that is killed and started again over the same directory and file, while its peers live.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use nix::sys::signal::Signal;
use segstore_transport::shm::Shm;
use segstore_transport::{Domain, Endpoint, ErrorKind, Memory, Operation, Provider, Region, Rights};

use crate::fixture::{bytes, connect, run, watched};
use crate::process::Second;

const LEN: usize = 1 << 16;

/// The directory of a domain, and a file of memory. Removed when dropped.
struct Place {
    directory: PathBuf,
    file: PathBuf,
}

impl Place {
    fn new(name: &str) -> Place {
        let base = PathBuf::from(format!("/dev/shm/segstore-test-{}-{name}", std::process::id()));
        Place { directory: base.clone(), file: base.with_extension("memory") }
    }

    /// A first life in a process of its own.
    fn target(&self) -> Second {
        let mut target = Second::start("named-target");
        target.send(self.directory.as_os_str().as_encoded_bytes());
        target.send(self.file.as_os_str().as_encoded_bytes());
        target
    }

    fn open(&self) -> Domain {
        Shm::in_directory(&self.directory).open().unwrap()
    }

    fn memory(&self) -> Memory {
        Memory::named(&self.file, LEN).unwrap()
    }

    /// A later life, in this process.
    fn open_and_register(&self) -> (Domain, Region) {
        let domain = self.open();
        let region = domain.register(&self.memory(), Rights::ALL).unwrap();
        (domain, region)
    }

    fn inode(&self) -> u64 {
        std::fs::metadata(&self.file).unwrap().ino()
    }

    fn entries(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
        let _ = std::fs::remove_file(&self.file);
    }
}

/// Connects this process to a first life.
fn connect_here(target: &mut Second) -> (Endpoint, Region) {
    connect_from(&Shm::new().open().unwrap(), target)
}

fn connect_from(initiator: &Domain, target: &mut Second) -> (Endpoint, Region) {
    let dialing = initiator.dial().unwrap();
    target.send(dialing.hello());
    let endpoint = dialing.complete(&target.receive()).unwrap();
    (endpoint, initiator.register(&Memory::anonymous(LEN).unwrap(), Rights::LOCAL).unwrap())
}

/// The writer is stopped in the middle, or runs on, while the target is killed and started again. What it is told has
/// completed is in the new life's memory, and from its registration on nothing changes there.
#[test]
fn a_restart_loses_nothing_and_lets_nothing_in() {
    watched("a_restart_loses_nothing_and_lets_nothing_in", || {
        let (place, mut writer) = (Place::new("restart"), Second::start("writer"));
        for round in 0..200 {
            let _ = std::fs::remove_file(&place.file);
            let mut target = place.target();
            target.send(&writer.receive());
            writer.send(&target.receive());
            let old = place.memory();
            while old.load_u64(0, Ordering::Acquire).unwrap() < 1 + round % 7 {
                std::thread::yield_now();
            }
            let stopped = round % 4 > 0;
            if stopped {
                writer.stop();
            }
            let before = place.inode();
            drop(target);
            let (_domain, region) = place.open_and_register();
            assert_ne!(place.inode(), before, "round {round}: a living writer's file was kept");
            let after = bytes(region.memory());
            if stopped {
                writer.signal(Signal::SIGCONT);
            }
            let completed = writer.receive_u64();
            assert_eq!(writer.receive(), b"PeerGone");
            assert!(bytes(region.memory()) == after, "round {round}: something landed after the restart");
            for word in after.chunks(8) {
                let word = u64::from_ne_bytes(word.try_into().unwrap());
                assert!(word >= completed, "round {round}: batch {completed} completed, but {word} is there");
            }
        }
    });
}

/// From `open` on, before anything is registered, every operation of the former life's peers fails, also a read.
#[test]
fn peers_of_the_former_life_are_told() {
    let place = Place::new("told");
    let mut target = place.target();
    let (mut endpoint, local) = connect_here(&mut target);
    let word = local.slice(0, 8).unwrap();
    run(&mut endpoint, &[Operation::write(word, 0, 0)]).result.unwrap();
    drop(target);
    let _domain = place.open();
    let error = run(&mut endpoint, &[Operation::read(word, 0, 0)]).result.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::PeerGone, 3), "{error}");
}

/// Who outlives its targets goes on writing into the memory of a dead one, until its next life opens: from then on, nothing.
#[test]
fn memory_outlives_its_process_for_who_wants_that() {
    let place = Place::new("outlives");
    let mut target = place.target();
    let initiator = Shm::new().outliving_targets().open().unwrap();
    let (mut endpoint, local) = connect_from(&initiator, &mut target);
    let word = local.slice(0, 8).unwrap();
    drop(target);
    for number in 1..=1000 {
        local.memory().store_u64(0, number, Ordering::Relaxed).unwrap();
        run(&mut endpoint, &[Operation::write(word, 0, 0)]).result.unwrap();
        // Long enough for the end of a socket to be noticed.
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
    assert_eq!(place.memory().load_u64(0, Ordering::Acquire).unwrap(), 1000);
    let _domain = place.open();
    let error = run(&mut endpoint, &[Operation::write(word, 0, 0)]).result.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::PeerGone, 3), "{error}");
}

/// A life that ends before it registers leaves the next one what it has to know; and one file after the other is moved.
#[test]
fn a_life_that_registers_nothing_changes_nothing() {
    let place = Place::new("lives");
    let mut target = place.target();
    let (_endpoint, _local) = connect_here(&mut target);
    drop(target);
    let before = place.inode();
    for _ in 0..3 {
        drop(place.open());
        assert_eq!(place.inode(), before);
    }
    let other = place.directory.join("other");
    let domain = place.open();
    domain.register(&Memory::named(&other, LEN).unwrap(), Rights::ALL).unwrap();
    domain.register(&place.memory(), Rights::ALL).unwrap();
    let moved = place.inode();
    assert_ne!(moved, before);
    drop(domain);
    let (_domain, _region) = place.open_and_register();
    assert_eq!(place.inode(), moved, "it was moved, and is nobody else's now");
}

/// A peer that died too costs no copy; its records go.
#[test]
fn the_dead_cost_nothing() {
    watched("the_dead_cost_nothing", || {
        let (place, mut writer) = (Place::new("dead"), Second::start("writer"));
        let mut target = place.target();
        target.send(&writer.receive());
        writer.send(&target.receive());
        let old = place.memory();
        while old.load_u64(0, Ordering::Acquire).unwrap() < 3 {
            std::thread::yield_now();
        }
        drop((writer, target));
        let before = place.inode();
        let (_domain, _region) = place.open_and_register();
        assert_eq!(place.inode(), before);
        assert_eq!(place.entries(), ["lock"]);
    });
}

/// Memory that cannot move is refused while a former peer lives, with its process named.
#[test]
fn what_cannot_move_is_refused() {
    let place = Place::new("unmovable");
    let mut target = place.target();
    let (endpoint, _local) = connect_here(&mut target);
    drop(target);
    let domain = place.open();
    let file = std::fs::File::options().read(true).write(true).open(&place.file).unwrap();
    let error = domain.register(&Memory::shared(&file, 0, LEN).unwrap(), Rights::ALL).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(endpoint);
}

/// A living peer's files are there, and go with it; other processes' files and other boots' are left or forgotten.
#[test]
fn a_directory_holds_what_lives() {
    let place = Place::new("entries");
    std::fs::create_dir(&place.directory).unwrap();
    for name in ["mine", "peer-0-0.page", "peer-0-0.record", "segstore-shm-0"] {
        std::fs::write(place.directory.join(name), "of nobody").unwrap();
    }
    let (domain, region) = place.open_and_register();
    let sorted = || {
        let mut entries = place.entries();
        entries.sort();
        entries
    };
    assert_eq!(sorted(), ["lock", "mine"]);
    let (endpoint, peer) = connect(&domain, &domain, &[(&region, Rights::ALL)]);
    let (_reading, _reader) = connect(&domain, &domain, &[(&region, Rights::READ)]);
    let count = |end| sorted().iter().filter(|name| name.ends_with(end)).count();
    assert_eq!((count(".page"), count(".record")), (2, 2));
    peer.revoke().unwrap();
    assert_eq!((count(".page"), count(".record")), (1, 1));
    drop((endpoint, peer, _reading, _reader));
    assert_eq!(sorted(), ["lock", "mine"]);
    let error = Shm::in_directory(&place.directory).open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("another living domain"), "{error}");
    drop((domain, region));
    place.open();
}

/// A record that says nothing is not ignored: what its process may write is not known.
#[test]
fn a_record_that_says_nothing_is_refused() {
    let place = Place::new("record");
    let mut target = place.target();
    let (_endpoint, _local) = connect_here(&mut target);
    drop(target);
    let name = place.entries().into_iter().find(|name| name.ends_with(".record")).unwrap();
    let record = place.directory.join(name);
    std::fs::write(&record, "segstore shm peer 2\n").unwrap();
    let error = Shm::in_directory(&place.directory).open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains(record.to_str().unwrap()), "{error}");
}
