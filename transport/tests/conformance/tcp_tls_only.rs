//! TCP with TLS, seen from its outside: what the wire shows, whom an initiator accepts, and what becomes of those who
//! do not speak it, or stop in the middle.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use segstore_transport::tcp::Tcp;
use segstore_transport::tcp::fault::Fault;
use segstore_transport::tcp::wire::{HEAD, Head, Knock, Reply, kind};
use segstore_transport::{
    Domain, Endpoint, Error, ErrorKind, Grant, Memory, Operation, Peer, Provider, Region, Result, Rights, Server,
    ServerOptions,
};
use zerocopy::IntoBytes;

use crate::fixture::{Fixture, Pair, TcpFixture, TlsFixture, bytes, fill, run, watched};

/// A target that remembers what it was told of connections.
struct Target {
    domain: Domain,
    region: Region,
    told: Arc<Mutex<Vec<Error>>>,
    _server: Server,
}

impl Target {
    fn new(tcp: Tcp) -> Target {
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = told.clone();
        let domain = tcp.telling(move |ended| sink.lock().unwrap().push(ended.error.clone())).open().unwrap();
        let _server = Server::start(&domain, &ServerOptions::default()).unwrap();
        let region = domain.register(&Memory::anonymous(4096).unwrap(), Rights::ALL).unwrap();
        Target { domain, region, told, _server }
    }

    fn plain() -> Target {
        Target::new(Tcp::listening_on(([127, 0, 0, 1], 0)))
    }

    fn encrypted() -> Target {
        Target::new(Tcp::listening_on(([127, 0, 0, 1], 0)).encrypted())
    }

    /// What a dial comes to whose reply was changed on the way.
    fn dial(&self, change: impl FnOnce(&mut Reply)) -> (Peer, Result<Endpoint>) {
        let dialing = Tcp::dialing_only().open().unwrap().dial().unwrap();
        let grants = [Grant { region: &self.region, rights: Rights::ALL }];
        let (peer, reply) = self.domain.admit(dialing.hello(), &grants).unwrap();
        let mut reply = Reply::parse(&reply).unwrap();
        change(&mut reply);
        (peer, dialing.complete(&reply.encode()))
    }

    /// The error that the target was told, when it was.
    fn heard(&self) -> Error {
        loop {
            if let Some(error) = self.told.lock().unwrap().pop() {
                return error;
            }
            std::thread::yield_now();
        }
    }

    fn goes_on(&self) {
        let (_peer, endpoint) = self.dial(|_| {});
        run(&mut endpoint.unwrap(), &[Operation::Flush]).result.unwrap();
    }
}

fn says(error: &Error, kind: ErrorKind, text: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(text), "{error}");
}

/// An initiator speaks only with who has the private key of the reply's public key; both sides say why not.
#[test]
fn another_key_is_refused() {
    watched("another_key_is_refused", || {
        let (target, another) = (Target::encrypted(), Target::encrypted());
        let (_peer, refused) = target.dial(|reply| reply.key.as_mut().unwrap()[31] ^= 1);
        says(&refused.unwrap_err(), ErrorKind::Protocol, "another key");
        says(&target.heard(), ErrorKind::Protocol, "handshake");
        let elsewhere = another.domain.admit(
            Tcp::dialing_only().open().unwrap().dial().unwrap().hello(),
            &[Grant { region: &another.region, rights: Rights::ALL }],
        );
        let elsewhere = Reply::parse(&elsewhere.unwrap().1).unwrap();
        let (_peer, refused) = target.dial(|reply| reply.addresses = elsewhere.addresses);
        says(&refused.unwrap_err(), ErrorKind::Protocol, "another key");
        says(&another.heard(), ErrorKind::Protocol, "handshake");
        target.goes_on();
        another.goes_on();
    });
}

/// Each domain has a key of its own, and keeps it.
#[test]
fn keys_are_the_domains() {
    let key = |target: &Target| {
        let mut key = None;
        let _ = target.dial(|reply| key = reply.key);
        key
    };
    let (target, another, plain) = (Target::encrypted(), Target::encrypted(), Target::plain());
    assert!(key(&target).is_some() && key(&target) == key(&target) && key(&target) != key(&another));
    assert_eq!(key(&plain), None);
}

/// Who does not speak TLS to who does is told, and so is the other side.
#[test]
fn plain_and_encrypted_do_not_mix() {
    watched("plain_and_encrypted_do_not_mix", || {
        let target = Target::encrypted();
        let (_peer, refused) = target.dial(|reply| reply.key = None);
        says(&refused.unwrap_err(), ErrorKind::Incompatible, "not TLS");
        says(&target.heard(), ErrorKind::Incompatible, "not TLS");
        target.goes_on();
        let target = Target::plain();
        let (_peer, refused) = target.dial(|reply| reply.key = Some([7; 32]));
        says(&refused.unwrap_err(), ErrorKind::Incompatible, "does not speak");
        says(&target.heard(), ErrorKind::Incompatible, "not encrypted");
        target.goes_on();
    });
}

/// What stands between two sides: passes on what each sends, remembers it, and changes it if it wants to.
struct Between {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

/// What becomes of so many bytes that an initiator sent, from that number on.
type Change = fn(usize, &mut Vec<u8>);

impl Between {
    fn new(target: SocketAddr, change: Change) -> Between {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let sees = seen.clone();
        let thread = std::thread::spawn(move || {
            let here = listener.accept().unwrap().0;
            let there = TcpStream::connect(target).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| pass(&here, &there, &sees, change));
                pass(&there, &here, &sees, |_, _| {});
            });
        });
        Between { address, seen, thread }
    }

    /// Everything that went through, in both directions, when both are over.
    fn seen(self) -> Vec<u8> {
        self.thread.join().unwrap();
        self.seen.lock().unwrap().clone()
    }
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, seen: &Mutex<Vec<u8>>, change: Change) {
    let (mut bytes, mut passed) = (vec![0; 1 << 16], 0);
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let mut part = bytes[..count].to_vec();
        seen.lock().unwrap().extend_from_slice(&part);
        change(passed, &mut part);
        passed += count;
        if to.write_all(&part).is_err() || part.len() < count {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// Writes and reads a pattern through somebody who listens; gives what was written, the token, and what was seen.
fn overheard<F: Fixture>() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let mut pair = Pair::<F>::new(100_000);
    let written = fill(&pair.local, 11);
    let dialing = pair.initiator.dial().unwrap();
    let grants = [Grant { region: &pair.region, rights: Rights::ALL }];
    let (_peer, reply) = pair.fixture.target().admit(dialing.hello(), &grants).unwrap();
    let mut reply = Reply::parse(&reply).unwrap();
    let between = Between::new(reply.addresses[0], |_, _| {});
    reply.addresses = vec![between.address];
    let mut endpoint = dialing.complete(&reply.encode()).unwrap();
    let part = |at, len| pair.local.slice(at, len).unwrap();
    let small = Operation::write(part(0, 64), 0, 0);
    run(&mut endpoint, &[small, Operation::write(part(64, 99_936), 0, 64)]).result.unwrap();
    assert!(bytes(pair.region.memory()) == written);
    run(&mut endpoint, &[Operation::read(part(0, 100_000), 0, 0)]).result.unwrap();
    assert!(bytes(pair.local.memory()) == written);
    run(&mut pair.endpoint, &[Operation::Flush]).result.unwrap();
    drop(endpoint);
    (written, reply.token.to_vec(), between.seen())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Neither what is written and read nor the token can be seen on the wire. (Where it is plain, all of it can.)
#[test]
fn the_wire_shows_nothing() {
    watched("the_wire_shows_nothing", || {
        for (shown, (written, token, seen)) in [(true, overheard::<TcpFixture>()), (false, overheard::<TlsFixture>())] {
            assert!(seen.len() > 2 * written.len());
            assert_eq!(contains(&seen, &token), shown);
            for at in [0, 40, 64, 5_000, 50_000, 99_984] {
                assert_eq!(contains(&seen, &written[at..at + 16]), shown, "16 bytes at {at}");
            }
        }
    });
}

/// A stream of requests through somebody who changes it; gives the errors of both sides.
fn meddled(target: &Target, change: Change) -> (Error, Error) {
    let mut between = None;
    let (peer, endpoint) = target.dial(|reply| {
        let stands = Between::new(reply.addresses[0], change);
        reply.addresses = vec![stands.address];
        between = Some(stands);
    });
    let mut endpoint = endpoint.unwrap();
    let error = loop {
        if let Err(error) = run(&mut endpoint, &[Operation::Flush]).result {
            break error;
        }
    };
    drop(endpoint);
    between.unwrap().seen();
    while peer.is_alive() {
        std::thread::yield_now();
    }
    (error, peer.failure().unwrap())
}

/// A changed byte ends the connection with an error at both sides; so does an end in the middle of a record.
#[test]
fn meddling_is_noticed() {
    watched("meddling_is_noticed", || {
        let target = Target::encrypted();
        let (here, there) = meddled(&target, |passed, bytes| {
            if passed > 3000 {
                bytes[7] ^= 1;
            }
        });
        assert_eq!((here.kind(), there.kind()), (ErrorKind::Protocol, ErrorKind::Protocol), "{here}, {there}");
        let (here, there) = meddled(&target, |passed, bytes| {
            if passed > 3000 {
                bytes.pop();
            }
        });
        assert_eq!((here.kind(), there.kind()), (ErrorKind::PeerGone, ErrorKind::PeerGone), "{here}, {there}");
        target.goes_on();
    });
}

/// The first bytes of a handshake, as an initiator sends them.
fn client_hello() -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = vec![listener.local_addr().unwrap()];
    let reply = Reply { token: [1; 16], addresses, key: Some([1; 32]) }.encode();
    let initiator = Tcp::dialing_only().open().unwrap().dial().unwrap();
    let dialing = std::thread::spawn(move || initiator.complete(&reply).map(drop));
    let mut socket = listener.accept().unwrap().0;
    let mut hello = vec![0; 5];
    socket.read_exact(&mut hello).unwrap();
    hello.resize(5 + usize::from(u16::from_be_bytes([hello[3], hello[4]])), 0);
    socket.read_exact(&mut hello[5..]).unwrap();
    drop(socket);
    assert_eq!(dialing.join().unwrap().unwrap_err().kind(), ErrorKind::PeerGone);
    hello
}

/// Sends these bytes instead of a handshake, and gives what comes until the target ends the connection.
fn answer(target: &Target, bytes: &[u8]) -> Vec<u8> {
    let mut socket = connect(target);
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    answer
}

fn connect(target: &Target) -> TcpStream {
    let dialing = Tcp::dialing_only().open().unwrap().dial().unwrap();
    let grants = [Grant { region: &target.region, rights: Rights::ALL }];
    let reply = Reply::parse(&target.domain.admit(dialing.hello(), &grants).unwrap().1).unwrap();
    let socket = TcpStream::connect(reply.addresses[0]).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

/// Anything instead of a handshake ends its own connection only.
#[test]
fn hostile_handshakes_harm_nobody() {
    watched("hostile_handshakes_harm_nobody", || {
        let (target, hello) = (Target::encrypted(), client_hello());
        for other in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), Knock::new([7; 16]).as_bytes().to_vec(), vec![0xff; 9]] {
            assert_eq!(answer(&target, &other), Fault::Plain.to_head().as_bytes());
            says(&target.heard(), ErrorKind::Incompatible, "not TLS");
        }
        let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
        let noise = prop::collection::vec(any::<u8>(), 0..400);
        let result = runner.run(&(noise, any::<u16>(), any::<u8>(), 0..4u8), |(noise, at, byte, how)| {
            let mut bytes = hello.clone();
            let at = usize::from(at) % bytes.len();
            match how {
                0 => bytes = noise,
                1 => bytes = [&[22, 3, 1][..], &noise].concat(),
                2 => bytes[at] = byte,
                _ => {
                    bytes.truncate(at);
                    bytes.extend(noise);
                }
            }
            answer(&target, &bytes);
            Ok(())
        });
        result.unwrap();
        // Records without end that make no message.
        let endless = [22, 3, 3, 0x40, 0].iter().copied().chain([0; 1 << 14]).collect::<Vec<u8>>().repeat(64);
        answer(&target, &endless);
        target.goes_on();
    });
}

/// Strangers who stop in the middle of the handshake are ended in time, and keep nobody out meanwhile.
#[test]
fn half_handshakes_keep_nobody_out() {
    watched("half_handshakes_keep_nobody_out", || {
        let (target, hello) = (Target::encrypted(), client_hello());
        let mut strangers: Vec<_> = (0..200).map(|_| connect(&target)).collect();
        for (number, stranger) in strangers.iter_mut().enumerate() {
            let said = [0, 3, hello.len() / 2, hello.len()][number % 4];
            let _ = stranger.write_all(&hello[..said]);
        }
        target.goes_on();
        for stranger in &mut strangers {
            let _ = stranger.read_to_end(&mut Vec::new());
        }
        let told = || target.told.lock().unwrap().iter().filter(|error| error.kind() == ErrorKind::TimedOut).count();
        while told() == 0 {
            std::thread::yield_now();
        }
        target.goes_on();
    });
}

/// TLS of another make, so to speak: it accepts any key, and does with its connection what it wants.
mod raw {
    use std::net::TcpStream;
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned};

    #[derive(Debug)]
    struct Anybody;

    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    }

    pub(super) type Stream = StreamOwned<ClientConnection, TcpStream>;

    pub(super) fn client(socket: TcpStream) -> Stream {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        let session = ClientConnection::new(Arc::new(config), ServerName::try_from("target").unwrap()).unwrap();
        StreamOwned::new(session, socket)
    }
}

/// A peer that knocks by a TLS of its own.
fn knock(target: &Target) -> (raw::Stream, Peer) {
    let dialing = Tcp::dialing_only().open().unwrap().dial().unwrap();
    let grants = [Grant { region: &target.region, rights: Rights::ALL }];
    let (peer, reply) = target.domain.admit(dialing.hello(), &grants).unwrap();
    let reply = Reply::parse(&reply).unwrap();
    let mut stream = raw::client(TcpStream::connect(reply.addresses[0]).unwrap());
    stream.write_all(Knock::new(reply.token).as_bytes()).unwrap();
    let mut welcome = [0; HEAD + 16];
    stream.read_exact(&mut welcome).unwrap();
    assert_eq!(welcome[1], kind::WELCOME);
    (stream, peer)
}

/// A peer that asks and never listens is not heard any more, instead of being remembered without end.
#[test]
fn who_does_not_listen_is_not_heard() {
    const MUCH: usize = 64 << 20;
    watched("tls: who_does_not_listen_is_not_heard", || {
        let target = Target::encrypted();
        let (mut stream, _peer) = knock(&target);
        stream.sock.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let asking = Head::new(kind::READ).at(0, 4096, 0).as_bytes().repeat(4096);
        let mut asked = 0;
        while stream.write_all(&asking).is_ok() {
            asked += asking.len();
            assert!(asked < MUCH, "the target takes requests without end");
        }
        target.goes_on();
    });
}

/// Wrong frames and wrong tokens inside TLS are refused as they are outside; new keys in the middle change nothing.
#[test]
fn refusals_come_encrypted() {
    watched("refusals_come_encrypted", || {
        let target = Target::encrypted();
        let mut refusal = [0; HEAD];
        let (mut stream, peer) = knock(&target);
        for _ in 0..100 {
            stream.conn.refresh_traffic_keys().unwrap();
            stream.write_all(Head { flags: 1, ..Head::new(kind::FLUSH) }.as_bytes()).unwrap();
            stream.read_exact(&mut refusal).unwrap();
            assert_eq!(refusal[1], kind::DONE);
        }
        stream.write_all(Head::new(99).as_bytes()).unwrap();
        stream.read_exact(&mut refusal).unwrap();
        assert_eq!(refusal, Fault::Kind { got: 99 }.to_head().as_bytes());
        says(&peer.failure().unwrap(), ErrorKind::Protocol, "99");
        let mut stream = raw::client(connect(&target));
        stream.write_all(Knock::new([7; 16]).as_bytes()).unwrap();
        stream.read_exact(&mut refusal).unwrap();
        assert_eq!(refusal, Fault::Token.to_head().as_bytes());
    });
}
