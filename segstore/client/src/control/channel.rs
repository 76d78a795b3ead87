//! The connection of a session to its daemon: sends requests, hands out answers, connects again.
//!
//! One thread reads. When the connection breaks, every request in flight ends without an answer, and the thread connects again
//! under the session's token until the channel is closed.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::frame::{self, ToClient, ToDaemon};
use super::message::{Answer, Demand, Fault, FaultKind, PROTOCOL, Report, Request};
use super::rdma::RdmaDevice;

/// How long to wait for a daemon that is not there, or takes nothing, before a request fails.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause between attempts to connect.
const PAUSE: Duration = Duration::from_millis(50);

/// What a daemon said of itself.
#[derive(Clone, Debug)]
pub struct Welcome {
    /// The node.
    pub node: segstore_core::id::NodeId,
    /// Its name.
    pub node_name: String,
    /// What tells machines apart.
    pub host: String,
    /// What joins this session.
    pub session: String,
    /// The transport's providers to use, the best first.
    pub providers: Vec<String>,
    /// How long the node may be silent before it counts as dead; zero: it does not say.
    pub node_lease: Duration,
    /// Its RDMA device, as it is configured.
    pub rdma: RdmaDevice,
    /// Whether it tells apart which process of a session wants a name.
    pub knows_processes: bool,
}

/// Serves what the daemon demands. Called on the reading thread: it must not wait.
pub type OnDemand = Box<dyn Fn(Demand, Reporter) + Send + Sync>;

/// Told that the daemon answers again, with what sends it a request. Called on the reading thread: it must not wait, not for an answer either.
pub type OnReturn = Box<dyn Fn(&dyn Fn(Request) -> Asked) + Send + Sync>;

/// Answers one demand. Dropped unused, it says that nobody did.
pub struct Reporter {
    number: u64,
    channel: Weak<Shared>,
    is_open: bool,
}

/// A session's connection. Closed when dropped.
pub struct Channel {
    shared: Arc<Shared>,
    /// The process that opened it.
    process: u32,
}

struct Shared {
    path: PathBuf,
    program: String,
    state: Mutex<State>,
    connected: Condvar,
    on_demand: OnDemand,
    on_return: OnReturn,
}

#[derive(Default)]
struct State {
    stream: Option<Arc<Line>>,
    welcome: Option<Welcome>,
    waiting: HashMap<u64, Sender<Result<Answer, Fault>>>,
    last: u64,
    why: String,
    is_closed: bool,
}

/// A request that was sent.
pub struct Asked {
    answer: Receiver<Result<Answer, Fault>>,
    number: u64,
    channel: Weak<Shared>,
}

/// One connection.
struct Line {
    stream: UnixStream,
    writing: Mutex<()>,
}

impl Line {
    fn new(stream: UnixStream) -> Self {
        Self { stream, writing: Mutex::new(()) }
    }

    /// Sends a whole frame, or ends the connection: nobody could make sense of what follows a part of one.
    fn write(&self, message: &ToDaemon) -> io::Result<()> {
        let bytes = frame::encode(message)?;
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        (&self.stream).write_all(&bytes).map_err(|error| {
            self.end();
            match error.kind() {
                io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "it takes nothing: does it hang?"),
                _ => error,
            }
        })
    }

    /// The next message. A demand that this library does not know is answered with that.
    fn read(&self) -> io::Result<ToClient> {
        loop {
            let mut head = [0; 4];
            (&self.stream).read_exact(&mut head)?;
            let mut json = vec![0; frame::length::<ToClient>(head)?];
            (&self.stream).read_exact(&mut json)?;
            let error = match frame::decode(&json) {
                Ok(message) => return Ok(message),
                Err(error) => error,
            };
            let Some(number) = frame::unknown(&json) else { return Err(error) };
            let text = format!("version {} of the library does not know it: {error}", env!("CARGO_PKG_VERSION"));
            self.write(&ToDaemon::Report(number, Err(Fault::new(FaultKind::Unsupported, text))))?;
        }
    }

    fn end(&self) {
        // It may have ended before.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Channel {
    /// Connects to the daemon at `path`: to a new session, or to the one that `token` joins.
    ///
    /// # Errors
    /// What the system said; what the daemon said is a [`Fault`] in it.
    pub fn open(
        path: &Path,
        program: &str,
        token: Option<String>,
        on_demand: OnDemand,
        on_return: OnReturn,
    ) -> io::Result<Self> {
        let (stream, welcome) = greet(path, program, token)?;
        let stream = Arc::new(stream);
        let state = State { stream: Some(stream.clone()), welcome: Some(welcome), ..State::default() };
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            program: program.to_owned(),
            state: Mutex::new(state),
            connected: Condvar::new(),
            on_demand,
            on_return,
        });
        let weak = Arc::downgrade(&shared);
        let thread = std::thread::Builder::new().name("segstore-control".into());
        thread.spawn(move || keep_reading(&weak, stream))?;
        Ok(Self { shared, process: std::process::id() })
    }

    /// What the daemon said of itself when it was connected last.
    pub fn welcome(&self) -> Welcome {
        self.shared.lock().welcome.clone().unwrap_or_else(|| unreachable!("a channel starts with a welcome"))
    }

    /// Asks, and waits for the answer at most until `limit` has passed.
    ///
    /// # Errors
    /// What the daemon answered; [`FaultKind::Unreachable`]: it was not asked; [`FaultKind::NoAnswer`]: it may have done it.
    pub fn ask(&self, request: Request, limit: Option<Duration>) -> Result<Answer, Fault> {
        self.send(request)?.wait(limit)
    }

    /// Whether this is another process than the one that opened it: a forked child, whose parent goes on using it.
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        std::process::id() != self.process
    }

    /// Asks; the answer comes later.
    ///
    /// # Errors
    /// [`FaultKind::Unreachable`]: there is no daemon to ask; [`FaultKind::Invalid`]: it is another process's to ask.
    pub fn send(&self, request: Request) -> Result<Asked, Fault> {
        if self.is_inherited() {
            let text = "the session is that of the process which forked this one: it needs one of its own";
            return Err(Fault::new(FaultKind::Invalid, text));
        }
        let stream = self.shared.await_stream()?;
        Ok(self.shared.send(&stream, request))
    }

    /// The same without waiting for a daemon that is not there.
    #[must_use]
    pub fn send_at_once(&self, request: Request) -> Option<Asked> {
        if self.is_inherited() {
            return None;
        }
        let stream = self.shared.lock().stream.clone()?;
        Some(self.shared.send(&stream, request))
    }
}

impl Asked {
    /// Waits for the answer, at most until `limit` has passed.
    ///
    /// # Errors
    /// What the daemon answered; [`FaultKind::NoAnswer`]: it may have done it.
    pub fn wait(self, limit: Option<Duration>) -> Result<Answer, Fault> {
        match limit {
            None => self.answer.recv().unwrap_or_else(|_| Err(lost("the connection to the daemon broke"))),
            Some(limit) => self.answer.recv_timeout(limit).unwrap_or_else(|_| {
                self.forget();
                Err(lost(&format!("no answer by way of this node's daemon within {:.1} s", limit.as_secs_f64())))
            }),
        }
    }

    /// Nobody waits for the answer any more.
    fn forget(&self) {
        if let Some(channel) = self.channel.upgrade() {
            channel.lock().waiting.remove(&self.number);
        }
    }

    /// The answer, once, if it is here.
    pub(crate) fn answer(&self) -> Option<Result<Answer, Fault>> {
        self.answer.try_recv().ok()
    }

    /// Whether the answer is here.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        !self.answer.is_empty()
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if self.is_inherited() {
            return; // The connection is its parent's, and so is whoever held the lock.
        }
        let mut state = self.shared.lock();
        state.is_closed = true;
        if let Some(stream) = state.stream.take() {
            stream.end();
        }
    }
}

impl Reporter {
    /// Answers.
    pub fn report(mut self, report: Result<Report, Fault>) {
        self.send(report);
    }

    fn send(&mut self, report: Result<Report, Fault>) {
        self.is_open = false;
        let stream = self.channel.upgrade().and_then(|channel| channel.lock().stream.clone());
        if let Some(stream) = stream {
            // A daemon that is gone does not wait for it any more.
            let _ = stream.write(&ToDaemon::Report(self.number, report));
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if self.is_open {
            self.send(Err(Fault::new(FaultKind::NotHeld, "this process does not own that segment")));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks over this connection.
    fn send(self: &Arc<Self>, stream: &Arc<Line>, request: Request) -> Asked {
        let (sender, answer) = bounded(1);
        let number = self.expect(stream, sender);
        if let Err(error) = stream.write(&ToDaemon::Request(number, request))
            && let Some(waiting) = self.lock().waiting.remove(&number)
        {
            // What was written in part was not understood.
            let _ = waiting.send(Err(Fault::new(FaultKind::Unreachable, format!("asking the daemon: {error}"))));
        }
        Asked { answer, number, channel: Arc::downgrade(self) }
    }

    /// A number for a request over this connection, whose answer goes to `sender`.
    fn expect(&self, stream: &Arc<Line>, sender: Sender<Result<Answer, Fault>>) -> u64 {
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        if state.stream.as_ref().is_some_and(|current| Arc::ptr_eq(current, stream)) {
            state.waiting.insert(number, sender);
        } else {
            // It broke meanwhile, and whoever waits for an answer over it has been told already.
            let _ = sender.send(Err(Fault::new(FaultKind::Unreachable, "the connection to the daemon broke")));
        }
        number
    }

    /// The connection, once there is one.
    fn await_stream(&self) -> Result<Arc<Line>, Fault> {
        let until = Instant::now() + PATIENCE;
        let mut state = self.lock();
        loop {
            if let Some(stream) = state.stream.clone() {
                return Ok(stream);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || state.is_closed {
                let text = format!("no daemon at {}: {}", self.path.display(), state.why);
                return Err(Fault::new(FaultKind::Unreachable, text));
            }
            let waited = self.connected.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The connection broke: nobody will get an answer over it.
    fn broken(&self, why: &str) {
        let mut state = self.lock();
        state.stream = None;
        why.clone_into(&mut state.why);
        for (_, waiting) in state.waiting.drain() {
            let _ = waiting.send(Err(lost(&format!("the connection to the daemon broke: {why}"))));
        }
    }

    /// Connects again; gives the connection, or `None` when the channel was closed.
    fn reconnect(&self) -> Option<Arc<Line>> {
        let token = self.lock().welcome.as_ref().map(|welcome| welcome.session.clone());
        let (stream, welcome) = match greet(&self.path, &self.program, token) {
            Ok(greeted) => greeted,
            Err(error) => {
                let mut state = self.lock();
                state.why = error.to_string();
                return None;
            }
        };
        let stream = Arc::new(stream);
        let mut state = self.lock();
        state.welcome = Some(welcome);
        state.stream = Some(stream.clone());
        self.connected.notify_all();
        Some(stream)
    }

    fn deliver(self: &Arc<Self>, message: ToClient) {
        match message {
            ToClient::Answer(number, answer) => {
                if let Some(waiting) = self.lock().waiting.remove(&number) {
                    let _ = waiting.send(answer);
                }
            }
            ToClient::Demand(number, demand) => {
                let reporter = Reporter { number, channel: Arc::downgrade(self), is_open: true };
                (self.on_demand)(demand, reporter);
            }
        }
    }
}

fn keep_reading(weak: &Weak<Shared>, first: Arc<Line>) {
    let mut stream = Some(first);
    loop {
        let Some(current) = stream.take() else {
            std::thread::sleep(PAUSE);
            let Some(shared) = weak.upgrade() else { return };
            if shared.lock().is_closed {
                return;
            }
            stream = shared.reconnect();
            if let Some(stream) = &stream {
                (shared.on_return)(&|request| shared.send(stream, request));
            }
            continue;
        };
        let why = loop {
            match current.read() {
                Ok(message) => match weak.upgrade() {
                    Some(shared) => shared.deliver(message),
                    None => return,
                },
                Err(error) => break error,
            }
        };
        let Some(shared) = weak.upgrade() else { return };
        if shared.lock().is_closed {
            return shared.broken("the session was closed");
        }
        tracing::warn!(socket = %shared.path.display(), "the connection to the daemon broke: {why}; connecting again");
        shared.broken(&why.to_string());
    }
}

fn greet(path: &Path, program: &str, session: Option<String>) -> io::Result<(Line, Welcome)> {
    let line = Line::new(UnixStream::connect(path)?);
    line.stream.set_read_timeout(Some(PATIENCE))?;
    line.stream.set_write_timeout(Some(PATIENCE))?;
    let hello = Request::Hello { protocol: PROTOCOL, session, program: program.to_owned() };
    line.write(&ToDaemon::Request(0, hello))?;
    let answer = line.read()?;
    line.stream.set_read_timeout(None)?;
    match answer {
        ToClient::Answer(
            0,
            Ok(Answer::Welcome {
                node, node_name, host, session, providers, node_lease_ms, rdma, knows_processes, ..
            }),
        ) => {
            let node_lease = Duration::from_millis(node_lease_ms);
            Ok((line, Welcome { node, node_name, host, session, providers, node_lease, rdma, knows_processes }))
        }
        ToClient::Answer(0, Err(fault)) => Err(io::Error::other(fault)),
        other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{other:?} is no welcome"))),
    }
}

fn lost(why: &str) -> Fault {
    Fault::new(FaultKind::NoAnswer, why)
}
