//! TCP with a hostile other side: raw sockets that send every kind of wrong frame. Each ends its own connection, with
//! the same error at both sides, and disturbs nobody else.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use segstore_transport::tcp::Tcp;
use segstore_transport::tcp::fault::Fault;
use segstore_transport::tcp::wire::{GRANT, HEAD, Head, Knock, LAST, MAX_PAYLOAD, Reply, Swap, encode_grants, kind};
use segstore_transport::{
    Domain, Endpoint, ErrorKind, Grant, Memory, Operation, Peer, Provider, Region, Rights, Server, ServerOptions, Wait,
};
use zerocopy::IntoBytes;

use crate::fixture::{Fixture, Pair, TcpFixture, bytes, fill, run, watched};

/// What a raw socket may do and what it was admitted to: 4096 bytes with every right, 64 for reading, 64 for writing.
struct Raw {
    socket: TcpStream,
    peer: Peer,
}

struct Setting {
    pair: Pair<TcpFixture>,
    readable: Region,
    writable: Region,
}

impl Setting {
    fn new() -> Setting {
        let pair = Pair::<TcpFixture>::new(4096);
        let register = || pair.fixture.target().register(&Memory::anonymous(64).unwrap(), Rights::ALL).unwrap();
        let (readable, writable) = (register(), register());
        Setting { pair, readable, writable }
    }

    fn admit(&self) -> (Peer, Reply) {
        let grants =
            [(&self.pair.region, Rights::ALL), (&self.readable, Rights::READ), (&self.writable, Rights::WRITE)];
        let grants = grants.map(|(region, rights)| Grant { region, rights });
        let dialing = self.pair.initiator.dial().unwrap();
        let (peer, reply) = self.pair.fixture.target().admit(dialing.hello(), &grants).unwrap();
        (peer, Reply::parse(&reply).unwrap())
    }

    fn connect(&self) -> Raw {
        let (peer, reply) = self.admit();
        let mut socket = knock(&reply, Knock::new(reply.token).as_bytes());
        let mut welcome = [0; HEAD + 3 * GRANT];
        socket.read_exact(&mut welcome).unwrap();
        assert_eq!(welcome[1], kind::WELCOME);
        Raw { socket, peer }
    }

    /// Somebody else goes on as if nothing had happened.
    fn others_go_on(&mut self) {
        let batch = [Operation::write(self.pair.local.slice(0, 8).unwrap(), 0, 4088), Operation::Flush];
        run(&mut self.pair.endpoint, &batch).result.unwrap();
    }
}

fn knock(reply: &Reply, bytes: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(reply.addresses[0]).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.write_all(bytes).unwrap();
    socket
}

/// The refusal that ends the connection, and then its end.
fn refusal(socket: &mut TcpStream) -> Fault {
    loop {
        let mut bytes = [0; HEAD];
        socket.read_exact(&mut bytes).unwrap();
        let head: Head = zerocopy::transmute!(bytes);
        if head.kind == kind::REFUSED {
            let ended = socket.read(&mut [0]);
            assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?} after a refusal");
            return Fault::from_head(&head).unwrap();
        }
    }
}

fn wait_for_end(peer: &Peer) {
    while peer.is_alive() {
        std::thread::yield_now();
    }
}

/// Each kind of wrong frame: what was wrong, with the value, at both sides; nothing of it lands.
#[test]
fn every_wrong_frame_is_refused() {
    watched("every_wrong_frame_is_refused", || {
        let mut setting = Setting::new();
        let write = |grant, len, offset| Head::new(kind::WRITE).at(grant, len, offset);
        let swap = |grant, offset| Head::new(kind::COMPARE_SWAP).at(grant, 16, offset);
        let cases = [
            (Head { mark: 0x5e, ..write(0, 8, 0) }, Fault::Mark { got: 0x5e }),
            (Head::new(0), Fault::Kind { got: 0 }),
            (Head::new(6), Fault::Kind { got: 6 }),
            (Head::new(kind::DONE), Fault::Kind { got: kind::DONE }),
            (Head::new(255), Fault::Kind { got: 255 }),
            (Head { flags: 2, ..write(0, 8, 0) }, Fault::Flags { kind: kind::WRITE, got: 2 }),
            (Head { flags: 0x81, ..Head::new(kind::FLUSH) }, Fault::Flags { kind: kind::FLUSH, got: 0x81 }),
            (write(0, 0, 0), Fault::Length { kind: kind::WRITE, got: 0 }),
            (write(0, MAX_PAYLOAD + 1, 0), Fault::Length { kind: kind::WRITE, got: MAX_PAYLOAD + 1 }),
            (write(0, u32::MAX, 0), Fault::Length { kind: kind::WRITE, got: u32::MAX }),
            (Head::new(kind::READ).at(0, u32::MAX, 0), Fault::Length { kind: kind::READ, got: u32::MAX }),
            (Head::new(kind::NOTIFY).at(0, 1, 0), Fault::Length { kind: kind::NOTIFY, got: 1 }),
            (Head::new(kind::COMPARE_SWAP).at(0, 8, 0), Fault::Length { kind: kind::COMPARE_SWAP, got: 8 }),
            (write(3, 8, 0), Fault::Grant { got: 3 }),
            (write(255, 8, 0), Fault::Grant { got: 255 }),
            (write(1, 8, 0), Fault::Rights { kind: kind::WRITE, grant: 1 }),
            (Head::new(kind::READ).at(2, 8, 0), Fault::Rights { kind: kind::READ, grant: 2 }),
            (swap(2, 0), Fault::Rights { kind: kind::COMPARE_SWAP, grant: 2 }),
            (write(0, 4097, 0), Fault::Range { grant: 0, offset: 0, len: 4097 }),
            (write(0, 1, 4096), Fault::Range { grant: 0, offset: 4096, len: 1 }),
            (write(2, 64, 1), Fault::Range { grant: 2, offset: 1, len: 64 }),
            (write(0, 8, u64::MAX - 3), Fault::Range { grant: 0, offset: u64::MAX - 3, len: 8 }),
            (write(0, MAX_PAYLOAD, 1 << 63), Fault::Range { grant: 0, offset: 1 << 63, len: MAX_PAYLOAD }),
            (Head::new(kind::READ).at(1, 65, 0), Fault::Range { grant: 1, offset: 0, len: 65 }),
            (swap(0, 4092), Fault::Range { grant: 0, offset: 4092, len: 8 }),
            (swap(0, 4), Fault::Alignment { grant: 0, offset: 4 }),
        ];
        let regions = [setting.pair.region.clone(), setting.readable.clone(), setting.writable.clone()];
        let before: Vec<_> = regions.iter().map(|region| fill(region, 3)).collect();
        for (head, fault) in cases {
            let mut raw = setting.connect();
            let _ = raw.socket.write_all(&[head.as_bytes(), &[0xee; 64]].concat());
            assert_eq!(refusal(&mut raw.socket), fault, "{head:?}");
            wait_for_end(&raw.peer);
            let error = raw.peer.failure().unwrap();
            assert_eq!((error.kind(), error.to_string()), (fault.kind(), fault.to_string()));
        }
        let after: Vec<_> = regions.iter().map(|region| bytes(region.memory())).collect();
        assert_eq!(before, after, "something of a wrong frame landed");
        setting.others_go_on();
    });
}

/// A peer that ignores how much room there is for notifications is ended, and the others' are not touched.
#[test]
fn too_many_notifications_are_refused() {
    let mut setting = Setting::new();
    let mut raw = setting.connect();
    let frames: Vec<u8> =
        (0..1100).flat_map(|value| Head::new(kind::NOTIFY).valued(value).as_bytes().to_vec()).collect();
    let _ = raw.socket.write_all(&frames);
    assert_eq!(refusal(&mut raw.socket), Fault::Notifications);
    wait_for_end(&raw.peer);
    let taken: Vec<_> = std::iter::from_fn(|| raw.peer.poll_notification()).collect();
    assert_eq!(taken, (0..1024).collect::<Vec<_>>());
    setting.others_go_on();
}

/// Wrong, used, expired and revoked tokens, wrong magic and version: each is told to both sides.
#[test]
fn every_wrong_knock_is_refused() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = heard.clone();
    let tcp = Tcp::listening_on(([127, 0, 0, 1], 0)).token_valid_for(Duration::from_millis(300));
    let target = tcp.telling(move |ended| sink.lock().unwrap().push(ended.error.kind())).open().unwrap();
    let _server = Server::start(&target, &ServerOptions::default()).unwrap();
    let region = target.register(&Memory::anonymous(64).unwrap(), Rights::ALL).unwrap();
    let initiator = Tcp::dialing_only().open().unwrap();
    let admit = || {
        let dialing = initiator.dial().unwrap();
        let grants = [Grant { region: &region, rights: Rights::ALL }];
        let (peer, reply) = target.admit(dialing.hello(), &grants).unwrap();
        (dialing, peer, reply)
    };
    let (_, _peer, reply) = admit();
    let reply = Reply::parse(&reply).unwrap();
    let mut wrong = Knock::new(reply.token).as_bytes().to_vec();
    wrong[4] = 9;
    assert_eq!(refusal(&mut knock(&reply, &wrong)), Fault::Version { got: 9 });
    assert_eq!(refusal(&mut knock(&reply, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")), Fault::Magic { got: 0x2054_4547 });
    assert_eq!(refusal(&mut knock(&reply, Knock::new([7; 16]).as_bytes())), Fault::Token);
    let mut first = knock(&reply, Knock::new(reply.token).as_bytes());
    first.read_exact(&mut [0; HEAD + GRANT]).unwrap();
    assert_eq!(refusal(&mut knock(&reply, Knock::new(reply.token).as_bytes())), Fault::Token);
    let (late, expired, reply) = admit();
    std::thread::sleep(Duration::from_millis(350));
    assert_eq!(late.complete(&reply).unwrap_err().kind(), ErrorKind::Revoked);
    assert_eq!(expired.failure().unwrap().kind(), ErrorKind::Revoked);
    assert!(!expired.is_alive());
    while heard.lock().unwrap().len() < 5 {
        std::thread::yield_now(); // The sink is told last.
    }
    let (kinds, revoked) = (heard.lock().unwrap().clone(), ErrorKind::Revoked);
    assert_eq!(kinds, [ErrorKind::Incompatible, ErrorKind::Protocol, revoked, revoked, revoked]);
}

/// Strangers who say nothing, or a byte now and then, are ended in time, and keep nobody out meanwhile.
#[test]
fn silent_strangers_keep_nobody_out() {
    watched("silent_strangers_keep_nobody_out", || {
        let mut setting = Setting::new();
        let (_peer, reply) = setting.admit();
        let mut strangers: Vec<_> = (0..200).map(|_| knock(&reply, b"TCPk")).collect();
        setting.others_go_on();
        let (mut endpoint, _another) = setting.pair.another();
        run(&mut endpoint, &[Operation::Flush]).result.unwrap();
        for socket in &mut strangers {
            let _ = socket.write_all(b"x");
            assert_eq!(refusal(socket), Fault::Silent);
        }
    });
}

/// A peer that asks and never listens is not read from any more, instead of being remembered without end.
#[test]
fn who_does_not_listen_is_not_heard() {
    const MUCH: usize = 64 << 20;
    watched("who_does_not_listen_is_not_heard", || {
        let mut setting = Setting::new();
        let mut raw = setting.connect();
        raw.socket.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let asking = Head::new(kind::READ).at(0, 4096, 0).as_bytes().repeat(4096);
        let mut asked = 0;
        while let Ok(count) = raw.socket.write(&asking) {
            asked += count;
            assert!(asked < MUCH, "the target takes requests without end");
        }
        setting.others_go_on();
    });
}

/// Who leaves in the middle of a frame is noticed, also in a crowd: bytes and the end of the stream may be one event.
#[test]
fn who_leaves_in_a_crowd_is_noticed() {
    watched("who_leaves_in_a_crowd_is_noticed", || {
        let setting = Setting::new();
        let half = &Head::new(kind::WRITE).at(0, 64, 0);
        for _ in 0..20 {
            let crowd: Vec<_> = (0..12).map(|_| setting.connect()).collect();
            let leave = |mut raw: Raw| {
                raw.socket.write_all(half.as_bytes()).unwrap();
                raw.peer
            };
            let mut peers: Vec<_> = crowd.into_iter().map(leave).collect();
            peers.extend((0..12).map(|_| {
                let (peer, reply) = setting.admit();
                drop(knock(&reply, &[Knock::new(reply.token).as_bytes(), half.as_bytes()].concat()));
                peer
            }));
            for peer in &peers {
                wait_for_end(peer);
                assert_eq!(peer.failure().unwrap().kind(), ErrorKind::PeerGone);
            }
        }
    });
}

/// Any bytes behind a right knock end at most their own connection.
#[test]
fn any_stream_harms_nobody() {
    watched("any_stream_harms_nobody", || {
        let mut setting = Setting::new();
        let before = fill(&setting.readable, 1);
        let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
        let head =
            (0..7u8, 0..4u8, 0..4u8, prop_oneof![0..5000u32, any::<u32>()], prop_oneof![0..5000u64, any::<u64>()]);
        let frames = prop::collection::vec((head, any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..12);
        let result = runner.run(&frames, |frames| {
            let mut raw = setting.connect();
            for ((kind, flags, grant, len, value), whole, noise) in frames {
                let head = Head { flags, ..Head::new(kind).at(grant, len, value) };
                let payload = if whole && len < 5000 { vec![1; len as usize] } else { noise };
                let _ = raw.socket.write_all(&[head.as_bytes(), &payload].concat());
            }
            Ok(())
        });
        result.unwrap();
        assert_eq!(bytes(setting.readable.memory()), before, "what was granted for reading has changed");
        setting.others_go_on();
    });
}

/// A raw target: takes a connection and its knock, grants 4096 bytes, and then does what the test says.
struct RawTarget {
    socket: TcpStream,
    endpoint: Endpoint,
    local: Region,
}

fn raw_target() -> RawTarget {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let initiator: Domain = Tcp::dialing_only().patience(Duration::from_secs(1)).open().unwrap();
    let local = initiator.register(&Memory::anonymous(1 << 20).unwrap(), Rights::LOCAL).unwrap();
    let reply = Reply { token: [1; 16], addresses: vec![listener.local_addr().unwrap()], key: None }.encode();
    let dialing = initiator.dial().unwrap();
    let completing = std::thread::spawn(move || dialing.complete(&reply).unwrap());
    let mut socket = listener.accept().unwrap().0;
    socket.read_exact(&mut [0; size_of::<Knock>()]).unwrap();
    let grants = encode_grants([(1 << 20, Rights::ALL)].into_iter());
    socket.write_all(&[Head::new(kind::WELCOME).at(1, 16, 1).as_bytes(), &grants].concat()).unwrap();
    RawTarget { socket, endpoint: completing.join().unwrap(), local }
}

/// Answers that were not asked for, of wrong length, or too early, break the endpoint and touch nothing.
#[test]
fn wrong_answers_break_the_endpoint() {
    let done = |batches| Head::new(kind::DONE).at(0, 0, batches);
    let cases = [
        (done(2), "more batches than were posted"),
        (done(1), "done before its answer"),
        (done(u64::MAX), "more batches than were posted"),
        (Head::new(kind::DONE).at(0, 1, 0), "more notifications taken than sent"),
        (Head::new(kind::DONE).at(0, u32::MAX - 4, 0), "fewer notifications taken than none"),
        (Head::new(kind::DATA).at(0, 63, 0), "a shorter answer"),
        (Head::new(kind::DATA).at(0, 65, 0), "a longer answer"),
        (Head::new(kind::DATA).at(0, u32::MAX, 0), "a huge answer"),
        (Head::new(kind::WORD), "an answer of another kind"),
        (Head::new(kind::WELCOME), "a second welcome"),
        (Head::new(kind::WRITE).at(0, 8, 0), "a request"),
        (Head { mark: 0, ..done(0) }, "no mark"),
    ];
    for (head, why) in cases {
        let mut target = raw_target();
        let marks = fill(&target.local, 2);
        let read = Operation::read(target.local.slice(0, 64).unwrap(), 0, 0);
        target.endpoint.post(&[read], 0).unwrap();
        target.socket.write_all(&[head.as_bytes(), &[0xee; 100]].concat()).unwrap();
        let error = target.endpoint.wait(Wait::default(), None).unwrap().result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{why}: {error}");
        assert_eq!(bytes(target.local.memory()), marks, "{why}: local memory was touched");
    }
}

/// Every reason of a refusal comes out as the error it is; an unknown one is carried.
#[test]
fn refusals_are_understood() {
    for (head, kind) in [
        (Fault::Revoked.to_head(), ErrorKind::Revoked),
        (Fault::Range { grant: 0, offset: 7, len: 8 }.to_head(), ErrorKind::Denied),
        (Fault::Kind { got: 99 }.to_head(), ErrorKind::Protocol),
        (Head { flags: 200, ..Head::new(kind::REFUSED) }, ErrorKind::PeerGone),
    ] {
        let mut target = raw_target();
        target.endpoint.post(&[Operation::Flush], 0).unwrap();
        target.socket.write_all(head.as_bytes()).unwrap();
        let error = target.endpoint.wait(Wait::Event, None).unwrap().result.unwrap_err();
        assert_eq!((error.kind(), error.code()), (kind, head.flags.into()));
    }
}

/// A read's reply that comes after the abort, whole or in its middle, finds nobody.
#[test]
fn a_late_reply_touches_nothing() {
    for early in [0, 10, 5000, 40_000] {
        let mut target = raw_target();
        target.endpoint.post(&[Operation::read(target.local.slice(0, 1 << 16).unwrap(), 0, 0)], 0).unwrap();
        let reply = [Head::new(kind::DATA).at(0, 1 << 16, 0).as_bytes(), &[0xee; 1 << 16]].concat();
        target.socket.write_all(&reply[..early]).unwrap();
        let end = std::time::Instant::now() + Duration::from_millis(20);
        assert_eq!(target.endpoint.wait(Wait::Busy, Some(end)), None);
        target.endpoint.abort();
        let marks = fill(&target.local, 2);
        let _ = target.socket.write_all(&reply[early..]);
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(target.endpoint.poll().unwrap().result.unwrap_err().kind(), ErrorKind::Aborted);
        assert_eq!(bytes(target.local.memory()), marks);
    }
}

/// A target that takes nothing for longer than the patience counts as gone.
#[test]
fn a_target_that_takes_nothing_is_gone() {
    watched("a_target_that_takes_nothing_is_gone", || {
        let mut target = raw_target();
        for id in 0..16 {
            target.endpoint.post(&[Operation::write(target.local.all(), 0, 0)], id).unwrap();
        }
        let error = target.endpoint.wait(Wait::Event, None).unwrap().result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PeerGone);
    });
}

/// A swap's words are the wire's, whatever the machine's order.
#[test]
fn compare_swap_on_the_wire() {
    let setting = Setting::new();
    setting.pair.region.memory().write_at(8, &5u64.to_ne_bytes()).unwrap();
    let mut raw = setting.connect();
    let head = Head { flags: LAST, ..Head::new(kind::COMPARE_SWAP).at(0, 16, 8) };
    let swap = Swap { expected: 5.into(), new: 6.into() };
    raw.socket.write_all(&[head.as_bytes(), swap.as_bytes()].concat()).unwrap();
    let mut answer = [0; 2 * HEAD];
    raw.socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..HEAD], *Head::new(kind::WORD).valued(5).as_bytes());
    assert_eq!(answer[HEAD..], *Head::new(kind::DONE).valued(1).as_bytes());
}
