//! Files that are cut short under their mappings: the process lives on, and whoever touched them is told. Everything
//! happens in second processes, whose death would be the failure.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use segstore_transport::shm::Shm;
use segstore_transport::{Endpoint, Error, ErrorKind, Memory, Operation, Peer, Provider, Region, Rights};

use crate::fixture::{Fixture, Pair, ShmFixture, TcpFixture, TlsFixture, connect, run, watched};
use crate::process::{Second, send};

const LEN: usize = 4 << 20;
/// What is left of a file.
const LEFT: usize = 1 << 20;

/// Runs a case in a second process, and gives what it says.
fn said(case: &str) -> String {
    let mut second = Second::start(&format!("cut-short {case}"));
    String::from_utf8(second.receive()).unwrap()
}

/// What the second process does; it says the kinds of errors that it met.
pub(crate) fn second(role: &str, channel: &mut UnixStream) {
    let mut words = role.split(' ').skip(1);
    let errors = match (words.next().unwrap(), words.next().unwrap_or_default()) {
        ("memory", first) => memory(first),
        ("shm-target", _) => over::<ShmFixture>(true),
        ("shm-initiator", _) => over::<ShmFixture>(false),
        ("tcp-target", _) => over::<TcpFixture>(true),
        ("tcp-initiator", _) => over::<TcpFixture>(false),
        ("tls-target", _) => over::<TlsFixture>(true),
        ("tls-initiator", _) => over::<TlsFixture>(false),
        ("control-page", _) => control_page(),
        ("move", touched) => moving(touched == "touched"),
        ("handlers", how) => return handlers(how, channel),
        other => panic!("no case {other:?}"),
    };
    send(channel, errors.join(" ").as_bytes()).unwrap();
}

fn kind(result: Result<(), Error>) -> String {
    result.map_or_else(|error| format!("{:?}", error.kind()), |()| "ok".into())
}

/// Memory of a file in a tmpfs.
fn named() -> (Memory, PathBuf) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = PathBuf::from(format!("/dev/shm/segstore-cut-{}-{number}", std::process::id()));
    let memory = Memory::named(&path, LEN).unwrap();
    memory.write_at(0, &vec![7; LEN]).unwrap();
    (memory, path)
}

/// What somebody else does.
fn cut(path: &PathBuf) {
    File::options().write(true).open(path).unwrap().set_len(LEFT as u64).unwrap();
    std::fs::remove_file(path).unwrap();
}

/// Each way to touch memory, beginning with one of them.
fn memory(first: &str) -> Vec<String> {
    type Way = fn(&Memory) -> Result<(), Error>;
    let ways: [(&str, Way); 6] = [
        ("read", |memory| memory.read_at(LEFT - 10, &mut [0; 20])),
        ("write", |memory| memory.write_at(LEFT + 100_000, &[0; 20])),
        ("bulk", |memory| memory.write_at(0, &vec![0; LEN])),
        ("load", |memory| memory.load_u64(LEN - 8, Ordering::Acquire).map(drop)),
        ("store", |memory| memory.store_u64(LEFT, 1, Ordering::Release)),
        ("swap", |memory| memory.compare_swap_u64(LEFT + 8, 1, 2).map(drop)),
    ];
    let ((memory, path), (other, other_path)) = (named(), named());
    let read = |memory: &Memory| kind(memory.read_at(0, &mut [0; 20]));
    cut(&path);
    let mut said = vec![read(&memory)];
    let first = ways.iter().find(|way| way.0 == first).unwrap();
    let error = first.1(&memory).unwrap_err();
    assert!(error.to_string().contains(&LEN.to_string()), "{error}");
    said.extend(ways.iter().map(|way| kind(way.1(&memory))));
    said.extend([read(&memory), read(&other)]);
    // What comes after it, at the same place or not, is watched anew.
    drop(memory);
    let (next, next_path) = named();
    said.push(read(&next));
    cut(&next_path);
    said.push(kind(first.1(&next)));
    std::fs::remove_file(other_path).unwrap();
    said
}

/// Each operation, with the memory of one side cut. Others go on.
fn over<F: Fixture>(target_is_cut: bool) -> Vec<String> {
    let fixture = F::new();
    let initiator = fixture.initiator();
    let mut said = Vec::new();
    let pair = || -> (Region, Region, PathBuf) {
        let (file, path) = named();
        let sound = Memory::anonymous(LEN).unwrap();
        let (remote, local) = if target_is_cut { (file, sound) } else { (sound, file) };
        let region = fixture.target().register(&remote, Rights::ALL).unwrap();
        let local = initiator.register(&local, Rights::LOCAL).unwrap();
        (region, local, path)
    };
    let (whole, whole_local, whole_path) = pair();
    let (mut other, others): (Endpoint, Peer) = connect(&initiator, fixture.target(), &[(&whole, Rights::ALL)]);
    for case in 0..6 {
        let (region, local, path) = pair();
        // A mapping for reading only.
        let rights = if case == 4 { Rights::READ } else { Rights::ALL };
        let (mut endpoint, peer) = connect(&initiator, fixture.target(), &[(&region, rights)]);
        cut(&path);
        let (at, slice) = (LEFT, local.slice(LEFT, 64).unwrap());
        let all = local.slice(0, LEN).unwrap();
        let operation = match case {
            0 => Operation::write(slice, 0, at as u64),
            1 => Operation::write_notify(slice, 0, at as u64, 1),
            2 => Operation::write(all, 0, 0),
            3 => Operation::read(slice, 0, at as u64),
            4 => Operation::read(all, 0, 0),
            _ => Operation::compare_swap(local.slice(LEFT, 8).unwrap(), 0, at as u64, 0, 1),
        };
        said.push(kind(run(&mut endpoint, &[operation]).result));
        assert_eq!(peer.poll_notification(), None, "the target was told of bytes that are not there");
        if let (true, Some(error)) = (target_is_cut, peer.failure()) {
            assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
        }
        run(&mut other, &[Operation::write(whole_local.all(), 0, 0), Operation::Flush]).result.unwrap();
    }
    drop((other, others));
    std::fs::remove_file(whole_path).unwrap();
    said
}

/// The page that both sides of an endpoint map.
fn control_page() -> Vec<String> {
    let directory = PathBuf::from(format!("/dev/shm/segstore-cut-{}", std::process::id()));
    let domain = Shm::in_directory(&directory).open().unwrap();
    let region = domain.register(&Memory::anonymous(4096).unwrap(), Rights::ALL).unwrap();
    let (mut endpoint, peer) = connect(&domain, &domain, &[(&region, Rights::ALL)]);
    let page = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let page = page.into_iter().find(|path| path.extension().is_some_and(|end| end == "page")).unwrap();
    File::options().write(true).open(page).unwrap().set_len(0).unwrap();
    let written = run(&mut endpoint, &[Operation::write(region.slice(0, 8).unwrap(), 0, 8)]).result;
    let said = vec![kind(written), format!("{:?}", peer.poll_notification()), kind(peer.revoke().map(drop))];
    drop((endpoint, peer, region, domain));
    std::fs::remove_dir_all(&directory).unwrap();
    said
}

/// What is gone does not become zeros on fresh backing.
fn moving(touched: bool) -> Vec<String> {
    let Pair { fixture, initiator, .. } = Pair::<ShmFixture>::new(64);
    let (memory, path) = named();
    let region = fixture.target().register(&memory, Rights::ALL).unwrap();
    let (_endpoint, peer) = connect(&initiator, fixture.target(), &[(&region, Rights::ALL)]);
    cut(&path);
    if touched {
        let _ = memory.read_at(LEFT, &mut [0]);
    }
    let said = vec![kind(peer.revoke().map(drop))];
    let _ = std::fs::remove_file(path.with_added_extension("moving-1"));
    said
}

extern "C" fn first_handler(_: libc::c_int) {
    std::process::exit(42); // The second process has nothing to clean up.
}

/// Faults that are not in our memory, and signals that were sent, go where they went before.
fn handlers(how: &str, channel: &mut UnixStream) {
    let install = |handler| {
        let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler makes one call that ends the process.
        unsafe { sigaction(Signal::SIGBUS, &action) }.unwrap();
    };
    match how.split('-').next().unwrap() {
        "handler" => install(SigHandler::Handler(first_handler)),
        "ignored" => install(SigHandler::SigIgn),
        "default" => install(SigHandler::SigDfl),
        _ => {}
    }
    let (ours, path) = named();
    let elsewhere = how.ends_with("fault").then(|| {
        let (_, path) = named();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let elsewhere = memmap2::MmapRaw::map_raw(&file).unwrap();
        cut(&path);
        elsewhere
    });
    cut(&path);
    assert_eq!(ours.read_at(LEFT, &mut [0]).unwrap_err().kind(), ErrorKind::Lost);
    send(channel, b"ready").unwrap();
    match elsewhere {
        // SAFETY: it is mapped; that nothing stands behind it is the case.
        Some(elsewhere) => drop(unsafe { elsewhere.as_ptr().wrapping_add(LEFT).read_volatile() }),
        None => raise(Signal::SIGBUS).unwrap(),
    }
    std::process::exit(7);
}

#[test]
fn memory_says_so() {
    watched("memory_says_so", || {
        for first in ["read", "write", "bulk", "load", "store", "swap"] {
            assert_eq!(said(&format!("memory {first}")), "ok Lost Lost Lost Lost Lost Lost Lost ok ok Lost", "{first}");
        }
    });
}

#[test]
fn an_endpoint_of_shared_memory_says_so() {
    watched("an_endpoint_of_shared_memory_says_so", || {
        for case in ["shm-target", "shm-initiator"] {
            assert_eq!(said(case), "Lost Lost Lost Lost Lost Lost", "{case}");
        }
    });
}

/// Over TCP the kernel finds it; with TLS this process does. Where half of an answer was sent, the initiator sees the
/// connection's end and no more.
#[test]
fn a_connection_says_so() {
    watched("a_connection_says_so", || {
        for provider in ["tcp", "tls"] {
            assert_eq!(said(&format!("{provider}-target")), "Lost Lost Lost Lost PeerGone Lost", "{provider}");
            assert_eq!(said(&format!("{provider}-initiator")), "Lost Lost Lost Lost Lost Lost", "{provider}");
        }
    });
}

#[test]
fn a_control_page_says_so() {
    watched("a_control_page_says_so", || assert_eq!(said("control-page"), "Lost None ok"));
}

#[test]
fn what_is_gone_does_not_move() {
    watched("what_is_gone_does_not_move", || {
        for touched in ["touched", "untouched"] {
            assert_eq!(said(&format!("move {touched}")), "Lost", "{touched}");
        }
    });
}

#[test]
fn other_faults_go_where_they_went() {
    watched("other_faults_go_where_they_went", || {
        let bus = Some(Signal::SIGBUS as i32);
        for (how, code, signal) in [
            ("handler-fault", Some(42), None),
            ("handler-sent", Some(42), None),
            ("default-fault", None, bus),
            ("default-sent", None, bus),
            ("runtime-fault", None, bus),
            // The runtime's own handler lets the first that was sent go.
            ("runtime-sent", Some(7), None),
            ("ignored-fault", None, bus),
            ("ignored-sent", Some(7), None),
        ] {
            let mut second = Second::start(&format!("cut-short handlers {how}"));
            assert_eq!(second.receive(), b"ready", "{how}");
            let end = second.end();
            assert_eq!((end.code(), end.signal()), (code, signal), "{how}: {end}");
        }
    });
}
