//! `segctl run`: one program in the cluster, under a segment's name.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getppid};
use segstore::{Error, SESSION_VARIABLE, SOCKET_VARIABLE, Session};
use std::os::fd::AsFd;

use super::Context;
use crate::arguments::Run;
use crate::exit::Failure;

/// How long to wait before looking for signals.
const TURN: Duration = Duration::from_millis(100);
/// How often to ask whether the name is still held.
const LOOK: Duration = Duration::from_secs(1);
/// Signals that are passed on to the program.
const PASSED_ON: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

pub(crate) fn run(context: &Context, run: &Run) -> Result<ExitCode, Failure> {
    // Before any other thread is there: a signal goes to whichever does not block it.
    let signals = Signals::new()?;
    let session = context.session()?;
    if let Some(signal) = acquire(context, &session, &run.name, &signals)? {
        return Ok(ended_by(signal));
    }
    let mut child = start(context, &session, run)?;
    let (program, pid) = (&run.command[0], child.id());
    tell(
        context,
        "started",
        &format!("{} is held by node {}; {program} runs as process {pid}", run.name, session.node_name()),
    );
    let is_lost = look_after(&session, &run.name);
    let status = signals.watch(&mut child, run.grace, &is_lost)?;
    if is_lost.load(Ordering::Acquire) {
        return Ok(ExitCode::from(crate::exit::FENCED));
    }
    // Where it cannot be told now, the session's end does it.
    let _ = session.release(&run.name);
    Ok(code(status))
}

/// What happens, on standard error: standard output is the program's.
fn tell(context: &Context, what: &str, text: &str) {
    if context.json {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        eprintln!("{}", serde_json::json!({ "at": u64::try_from(at).unwrap_or(u64::MAX), "what": what, "text": text }));
    } else {
        eprintln!("segctl: {text}");
    }
}

/// Holds the name, or gives the signal that came before that.
fn acquire(context: &Context, session: &Session, name: &str, signals: &Signals) -> Result<Option<Signal>, Failure> {
    match session.acquire(name, Some(Duration::ZERO), false) {
        Err(Error::Owned { holder, .. }) => {
            let (program, pid, node) = (&holder.program, holder.pid, &holder.node_name);
            let text = format!("standing by: {name} is held by {program} (process {pid}) on node {node}");
            tell(context, "standing_by", &text);
        }
        other => return Ok(other.map(|()| None)?),
    }
    let began = Instant::now();
    loop {
        let (sender, acquired) = channel();
        let (waiting, whom) = (session.clone(), name.to_owned());
        std::thread::spawn(move || sender.send(waiting.acquire(&whom, None, false)));
        let acquired = loop {
            match acquired.recv_timeout(TURN) {
                Ok(acquired) => break acquired,
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::File("no thread to stand by".into())),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(signal) = signals.next() {
                return Ok(Some(signal));
            }
        };
        match acquired {
            // The daemon or the directory was away for a moment: that is what a standby is for.
            Err(Error::Unreachable(why)) => {
                tell(context, "standing_by", &format!("still standing by: {why}"));
                std::thread::sleep(Duration::from_millis(500));
            }
            other => {
                other?;
                tell(context, "held", &format!("{name} is free after {:.1} s", began.elapsed().as_secs_f64()));
                return Ok(None);
            }
        }
    }
}

/// Asks from time to time whether the name is still this session's: a daemon that hung for longer than its lease was counted as dead,
/// and somebody else holds what its sessions held.
fn look_after(session: &Session, name: &str) -> Arc<AtomicBool> {
    let is_lost = Arc::new(AtomicBool::new(false));
    let (session, name, flag) = (session.clone(), name.to_owned(), is_lost.clone());
    // It ends with the process.
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(LOOK);
            if let Err(Error::Owned { holder, .. }) = session.acquire(&name, Some(Duration::ZERO), false) {
                eprintln!(
                    "segctl: {name} is held by process {} on node {} now: ending the program",
                    holder.pid, holder.node_name
                );
                return flag.store(true, Ordering::Release);
            }
        }
    });
    is_lost
}

/// The program joins the session, and dies when this process does.
fn start(context: &Context, session: &Session, run: &Run) -> Result<Child, Failure> {
    let own = std::env::current_exe().map_err(|error| Failure::File(format!("finding segctl itself: {error}")))?;
    let child = Command::new(own)
        .args(["exec-child", "--parent", &std::process::id().to_string(), "--"])
        .args(&run.command)
        .env(SOCKET_VARIABLE, &context.socket)
        .env(SESSION_VARIABLE, session.token())
        .spawn();
    child.map_err(|error| Failure::File(format!("starting {}: {error}", run.command[0])))
}

/// In the child: asks to be killed when the parent dies, then becomes the program.
pub(crate) fn become_child(parent: i32, command: &[String]) -> Result<(), Failure> {
    let saying = |error: nix::errno::Errno| Failure::File(format!("preparing the program: {error}"));
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(saying)?;
    if getppid() != Pid::from_raw(parent) {
        return Err(Failure::File("the process that was to hold the segment has gone".into()));
    }
    SigSet::empty().thread_set_mask().map_err(saying)?;
    let error = Command::new(&command[0]).args(&command[1..]).exec();
    Err(Failure::File(format!("starting {}: {error}", command[0])))
}

fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn ended_by(signal: Signal) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(1))
}

/// Signals that come as events.
struct Signals(SignalFd);

impl Signals {
    fn new() -> Result<Self, Failure> {
        let saying = |error: nix::errno::Errno| Failure::File(format!("waiting for signals: {error}"));
        let mut set = SigSet::empty();
        PASSED_ON.into_iter().chain([Signal::SIGCHLD]).for_each(|signal| set.add(signal));
        set.thread_block().map_err(saying)?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self).map_err(saying)
    }

    /// A signal to pass on that has come.
    fn next(&self) -> Option<Signal> {
        while let Ok(Some(info)) = self.0.read_signal() {
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            if let Some(signal) = signal.filter(|signal| PASSED_ON.contains(signal)) {
                return Some(signal);
            }
        }
        None
    }

    /// Passes signals on until the program has ended; kills it if it does not, in time. It is to end when the name is lost.
    fn watch(&self, child: &mut Child, grace: Duration, is_lost: &AtomicBool) -> Result<ExitStatus, Failure> {
        let saying = |error: std::io::Error| Failure::File(format!("waiting for the program: {error}"));
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        let mut kill_at: Option<Instant> = None;
        loop {
            if let Some(status) = child.try_wait().map_err(saying)? {
                return Ok(status);
            }
            if kill_at.is_some_and(|at| at <= Instant::now()) {
                eprintln!("segctl: the program did not end within {}: killing it", humantime::format_duration(grace));
                child.kill().map_err(saying)?;
                return child.wait().map_err(saying);
            }
            if is_lost.load(Ordering::Acquire) && kill_at.is_none() {
                let _ = kill(pid, Signal::SIGTERM);
                kill_at = Some(Instant::now() + grace);
            }
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::from(100_u8));
            while let Some(signal) = self.next() {
                // The program may have ended by itself.
                let _ = kill(pid, signal);
                kill_at.get_or_insert_with(|| Instant::now() + grace);
            }
        }
    }
}
