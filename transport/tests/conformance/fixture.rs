//! How the suite gets a target and an initiator of each provider.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use segstore_transport::shm::Shm;
use segstore_transport::sim::{Node, Sim, Weather};
use segstore_transport::tcp::Tcp;
#[cfg(feature = "verbs")]
use segstore_transport::verbs::Verbs;
use segstore_transport::{
    Completion, Domain, Endpoint, ErrorKind, Grant, Memory, Operation, Peer, Post, Provider, Region, Rights, Server,
    ServerOptions, Wait,
};

/// A target domain and a way to make initiator domains. Whatever moves the provider runs while it lives.
pub(crate) trait Fixture: Send + Sync {
    /// Rounds of the races: as many as the provider does in a second or so.
    const ROUNDS: usize;
    /// Whether a GiB goes through in reasonable time and memory.
    const GIBIBYTE: bool = true;
    /// What a peer is told that was revoked before it connected.
    const NEVER_LET_IN: ErrorKind = ErrorKind::Revoked;
    fn new() -> Self;
    fn target(&self) -> &Domain;
    fn initiator(&self) -> Domain;
}

pub(crate) struct ShmFixture {
    target: Domain,
}

impl Fixture for ShmFixture {
    const ROUNDS: usize = 3000;

    fn new() -> ShmFixture {
        ShmFixture { target: Shm::new().open().unwrap() }
    }

    fn target(&self) -> &Domain {
        &self.target
    }

    fn initiator(&self) -> Domain {
        Shm::new().open().unwrap()
    }
}

pub(crate) struct SimFixture {
    target: Domain,
    initiator: Node,
    stop: Arc<AtomicBool>,
    threads: (Option<JoinHandle<()>>, Option<Server>),
}

impl Fixture for SimFixture {
    const ROUNDS: usize = 1000;
    // Every frame in flight is a buffer of its own: it would take 2 GiB more.
    const GIBIBYTE: bool = false;

    fn new() -> SimFixture {
        // The network keeps moving while a test thread does not run, so silence proves nothing here.
        let sim = Sim::new(7, Weather { delay: 3, patience: u64::MAX, ..Weather::default() });
        let (target, initiator) = (sim.node().open().unwrap(), sim.node());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if sim.step() == 0 {
                    std::thread::sleep(Duration::from_micros(10));
                }
            }
        });
        let server = Server::start(&target, &ServerOptions::default()).unwrap();
        SimFixture { target, initiator, stop, threads: (Some(thread), Some(server)) }
    }

    fn target(&self) -> &Domain {
        &self.target
    }

    fn initiator(&self) -> Domain {
        self.initiator.open().unwrap()
    }
}

impl Drop for SimFixture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.0.take().unwrap().join().unwrap();
    }
}

pub(crate) struct TcpFixture {
    target: Domain,
    _server: Server,
}

impl TcpFixture {
    fn over(tcp: &Tcp) -> TcpFixture {
        let target = tcp.open().unwrap();
        let _server = Server::start(&target, &ServerOptions::default()).unwrap();
        TcpFixture { target, _server }
    }
}

impl Fixture for TcpFixture {
    const ROUNDS: usize = 2000;

    fn new() -> TcpFixture {
        TcpFixture::over(&Tcp::listening_on(([127, 0, 0, 1], 0)))
    }

    fn target(&self) -> &Domain {
        &self.target
    }

    fn initiator(&self) -> Domain {
        // Hostile replies name places that never answer.
        Tcp::dialing_only().connect_within(Duration::from_secs(1)).open().unwrap()
    }
}

/// The same with TLS, of which initiators learn by replies only.
pub(crate) struct TlsFixture(TcpFixture);

impl Fixture for TlsFixture {
    const ROUNDS: usize = 1000;

    fn new() -> TlsFixture {
        TlsFixture(TcpFixture::over(&Tcp::listening_on(([127, 0, 0, 1], 0)).encrypted()))
    }

    fn target(&self) -> &Domain {
        self.0.target()
    }

    fn initiator(&self) -> Domain {
        self.0.initiator()
    }
}

/// Two RDMA devices of this machine: `SEGSTORE_DEVICE` (rxa) is the target's, `SEGSTORE_PEER` (rxb) the initiators'.
#[cfg(feature = "verbs")]
pub(crate) struct VerbsFixture<const WINDOWS: bool = true> {
    target: Domain,
}

#[cfg(feature = "verbs")]
pub(crate) type WindowlessFixture = VerbsFixture<false>;

#[cfg(feature = "verbs")]
impl<const WINDOWS: bool> VerbsFixture<WINDOWS> {
    /// The device that a variable names.
    pub(crate) fn device(variable: &str, default: &str) -> Verbs {
        // A soft device shares the processor with both sides: the last word of a target may take some time.
        let verbs = Verbs::new()
            .device(std::env::var(variable).unwrap_or_else(|_| default.into()))
            .courtesy(Duration::from_millis(200));
        if WINDOWS { verbs } else { verbs.without_windows() }
    }

    fn open(variable: &str, default: &str) -> Domain {
        Self::device(variable, default).open().unwrap_or_else(|error| {
            panic!(
                "{error}. These tests need two RDMA devices that reach each other, or one twice: {variable} names it. \
                 `scripts/softroce run` has rxa and rxb; `sudo scripts/softroce up` makes one where the kernel can"
            )
        })
    }
}

#[cfg(feature = "verbs")]
impl<const WINDOWS: bool> Fixture for VerbsFixture<WINDOWS> {
    const ROUNDS: usize = 100;
    // Its queue pair is gone, and nobody is there to say why.
    const NEVER_LET_IN: ErrorKind = ErrorKind::PeerGone;

    fn new() -> Self {
        VerbsFixture { target: Self::open("SEGSTORE_DEVICE", "rxa") }
    }

    fn target(&self) -> &Domain {
        &self.target
    }

    fn initiator(&self) -> Domain {
        Self::open("SEGSTORE_PEER", "rxb")
    }
}

/// Where a target's memory and an endpoint to it stand ready.
pub(crate) struct Pair<F> {
    pub(crate) endpoint: Endpoint,
    pub(crate) peer: Peer,
    pub(crate) local: Region,
    pub(crate) region: Region,
    pub(crate) initiator: Domain,
    // Last, because it moves the others.
    pub(crate) fixture: F,
}

impl<F: Fixture> Pair<F> {
    /// `len` bytes at both ends, with all rights.
    pub(crate) fn new(len: usize) -> Pair<F> {
        let fixture = F::new();
        let initiator = fixture.initiator();
        let region = fixture.target().register(&Memory::anonymous(len).unwrap(), Rights::ALL).unwrap();
        let local = initiator.register(&Memory::anonymous(len).unwrap(), Rights::LOCAL).unwrap();
        let (endpoint, peer) = connect(&initiator, fixture.target(), &[(&region, Rights::ALL)]);
        Pair { endpoint, peer, local, region, initiator, fixture }
    }

    /// Another endpoint to the same region.
    pub(crate) fn another(&self) -> (Endpoint, Peer) {
        connect(&self.initiator, self.fixture.target(), &[(&self.region, Rights::ALL)])
    }
}

pub(crate) fn connect(initiator: &Domain, target: &Domain, grants: &[(&Region, Rights)]) -> (Endpoint, Peer) {
    let grants: Vec<_> = grants.iter().map(|&(region, rights)| Grant { region, rights }).collect();
    let dialing = initiator.dial().unwrap();
    let (peer, reply) = target.admit(dialing.hello(), &grants).unwrap();
    (dialing.complete(&reply).unwrap(), peer)
}

/// Posts, through back-pressure (completions that come meanwhile must be good), and waits for the end.
pub(crate) fn run(endpoint: &mut Endpoint, batch: &[Operation<'_>]) -> Completion {
    const ID: u64 = u64::MAX;
    loop {
        match endpoint.post(batch, ID) {
            Ok(()) => break,
            Err(Post::WouldBlock) => wait(endpoint).map_or_else(std::thread::yield_now, |done| done.result.unwrap()),
            Err(Post::Failed(error)) => return Completion { id: ID, result: Err(error) },
        }
    }
    loop {
        let done = wait(endpoint).unwrap();
        if done.id == ID {
            return done;
        }
    }
}

pub(crate) fn wait(endpoint: &mut Endpoint) -> Option<Completion> {
    endpoint.wait(Wait::default(), None)
}

pub(crate) fn fill(region: &Region, seed: u64) -> Vec<u8> {
    let bytes: Vec<u8> =
        (0..region.len() as u64).map(|i| ((i ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    region.memory().write_at(0, &bytes).unwrap();
    bytes
}

pub(crate) fn bytes(memory: &Memory) -> Vec<u8> {
    let mut bytes = vec![0; memory.len()];
    memory.read_at(0, &mut bytes).unwrap();
    bytes
}

/// How often a peer is revoked in the middle of its writes: `SEGSTORE_REVOKES`, or as often as the provider does in a
/// second or so.
pub(crate) fn revokes<F: Fixture>() -> usize {
    asked_revokes().unwrap_or(F::ROUNDS)
}

fn asked_revokes() -> Option<usize> {
    std::env::var("SEGSTORE_REVOKES").ok().map(|number| number.parse().unwrap())
}

/// Runs `test`; ends the whole process, with the name, if it hangs.
pub(crate) fn watched(name: &'static str, test: impl FnOnce()) {
    if asked_revokes().is_some() {
        return test(); // Who asks for many knows how long that takes.
    }
    let done = Arc::new(AtomicBool::new(false));
    let seen = done.clone();
    std::thread::spawn(move || {
        let limit = Instant::now() + Duration::from_secs(300);
        while Instant::now() < limit {
            if seen.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        eprintln!("watchdog: {name} hangs");
        std::process::abort();
    });
    test();
    done.store(true, Ordering::Relaxed);
}

/// Says why a test does not run here, past the capture of what a test that passes prints: who counts has to see it.
pub(crate) fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stdout(), "\nskipped: {test}: {why}");
}
