//! Between the runner and its program: a process that lives as long as either, and takes everything below it along.
//!
//! The kernel kills a child when its parent dies, but not the child's children. So the program's parent is a process that adopts
//! those, and that is told when the runner dies.
//!
//! The program gets a process group of its own, and signals go to all of it. Where standard input is a terminal it stays in the
//! terminal's: then keys reach it, and it can read; signals that somebody sends to the runner go to the program alone.

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, IsTerminal};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getppid};
use segstore::{Error, SESSION_VARIABLE, SOCKET_VARIABLE, Session};

use super::program::{NOT_EXECUTABLE, NOT_FOUND};
use super::signals::{Signals, is_end};
use super::{code, kill_all, tell};
use crate::arguments::Run;
use crate::command::Context;
use crate::exit::{self, Failure};

/// What the supervisor and the program's process are started as: no commands that anybody types.
const SUPERVISE: &str = "__supervise";
const BECOME: &str = "__become";
/// Asks the supervisor to kill everything: the runner does, and the kernel when the runner has died. Nobody else sends it.
pub(super) const END: Signal = Signal::SIGALRM;

/// How long a daemon that is away when the program is to start may be.
const JOINED: Duration = Duration::from_secs(5);

/// Starts the supervisor, and with it the program, which joins the session.
pub(super) fn start(context: &Context, session: &Session, run: &Run) -> Result<Child, Failure> {
    let saying = |error: std::io::Error| Failure::File(format!("starting {}: {error}", run.command[0].display()));
    prctl::set_child_subreaper(true).map_err(|error| saying(error.into()))?;
    let socket = std::path::absolute(&context.socket).map_err(saying)?;
    let what = format!("{} is held by node {}", run.name, session.node_name());
    let mut supervisor = own(SUPERVISE, &run.command)?;
    supervisor.env(STARTED, what).env(SOCKET_VARIABLE, socket).env(SESSION_VARIABLE, session.token());
    if context.json {
        supervisor.env(AS_JSON, "1");
    }
    supervisor.spawn().map_err(saying)
}

/// For the supervisor alone: what to tell when the program runs, and how.
const STARTED: &str = "SEGCTL_STARTED";
const AS_JSON: &str = "SEGCTL_AS_JSON";

pub(super) fn pass_on(supervisor: &Child, signal: Signal) {
    // The program may have ended by itself.
    let _ = kill(pid(supervisor), signal);
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// This program as another stage of the way to `command`.
fn own(stage: &str, command: &[OsString]) -> Result<Command, Failure> {
    let own = std::env::current_exe().map_err(|error| Failure::File(format!("finding segctl itself: {error}")))?;
    let mut started = Command::new(own);
    started.arg(stage).arg(std::process::id().to_string()).args(command);
    Ok(started)
}

/// What this process is, if it is such a stage and no command.
pub(crate) fn stage() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let stage = arguments.next()?;
    let work = match stage.to_str()? {
        SUPERVISE => supervise,
        BECOME => become_program,
        _ => return None,
    };
    let parent = arguments.next()?.to_str()?.parse().ok()?;
    let command: Vec<_> = arguments.collect();
    let as_json = std::env::var_os(AS_JSON).is_some();
    Some(exit::of(as_json, work(Pid::from_raw(parent), &command, as_json)))
}

fn preparing(error: Errno) -> Failure {
    Failure::File(format!("preparing the program: {error}"))
}

/// Has `signal` sent to this process when its parent dies.
fn die_with(parent: Pid, signal: Signal) -> Result<(), Failure> {
    prctl::set_pdeathsig(signal).map_err(preparing)?;
    // It may have died before.
    let is_there = getppid() == parent;
    is_there.then_some(()).ok_or_else(|| Failure::File("the process that was to hold the segment has gone".into()))
}

fn supervise(runner: Pid, command: &[OsString], as_json: bool) -> Result<ExitCode, Failure> {
    prctl::set_child_subreaper(true).map_err(preparing)?;
    let signals = Signals::new()?;
    die_with(runner, END)?;
    // The name is held until this process has ended, and all below it: the runner may be killed before.
    let _session = join()?;
    // What came meanwhile says that it is not to begin.
    if let Some(come) = std::iter::from_fn(|| signals.next()).find(|come| come.signal == END || is_end(come.signal)) {
        let signal = if come.signal == END { Signal::SIGKILL } else { come.signal };
        return Ok(code(128 + signal as i32));
    }
    let is_on_terminal = std::io::stdin().is_terminal();
    let mut program = own(BECOME, command)?;
    if !is_on_terminal {
        program.process_group(0);
    }
    let name = command.first().map_or(OsStr::new(""), OsString::as_os_str).display();
    let program = program.spawn().map_err(|error| Failure::File(format!("starting {name}: {error}")))?;
    let program = pid(&program);
    let started = std::env::var(STARTED).unwrap_or_default();
    tell(as_json, "started", &format!("{started}; {name} runs as process {program}"));
    let target = if is_on_terminal { program } else { Pid::from_raw(-program.as_raw()) };
    loop {
        if let Some(ended) = reap(program) {
            kill_all(as_json);
            return Ok(code(ended));
        }
        signals.wait(Duration::from_secs(1));
        while let Some(come) = signals.next() {
            if come.signal == END {
                kill_all(as_json);
                return Ok(code(128 + Signal::SIGKILL as i32));
            }
            // What the terminal sends has come to the program as well, if it is in the terminal's group.
            if !(come.is_of_terminal && is_on_terminal) {
                let _ = kill(target, come.signal);
            }
        }
    }
}

/// Takes part in the runner's session.
fn join() -> Result<Session, Failure> {
    let began = Instant::now();
    loop {
        match Session::connect() {
            // It may just be started again.
            Err(Error::NoDaemon { .. }) if began.elapsed() < JOINED => std::thread::sleep(JOINED / 50),
            joined => return Ok(joined?),
        }
    }
}

/// Waits for whatever has ended; gives the program's exit code once it has.
fn reap(program: Pid) -> Option<i32> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(who, code)) if who == program => return Some(code),
            Ok(WaitStatus::Signaled(who, signal, _)) if who == program => return Some(128 + signal as i32),
            Ok(WaitStatus::StillAlive) => return None,
            Ok(_) | Err(Errno::EINTR) => {}
            // Somebody else has waited for it.
            Err(_) => return Some(1),
        }
    }
}

/// In the program's own process: dies when the supervisor does, and becomes the program.
fn become_program(supervisor: Pid, command: &[OsString], _: bool) -> Result<ExitCode, Failure> {
    die_with(supervisor, Signal::SIGKILL)?;
    SigSet::empty().thread_set_mask().map_err(preparing)?;
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::Usage("no program".into()));
    };
    let error = Command::new(program).args(arguments).env_remove(STARTED).env_remove(AS_JSON).exec();
    let code = if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
    Err(Failure::Program(code, format!("starting {}: {error}", program.display())))
}
