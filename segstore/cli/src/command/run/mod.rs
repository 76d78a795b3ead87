//! `segctl run`: one program in the cluster, under a segment's name.
//!
//! Three processes: this one holds the name; a supervisor in between ([`supervisor`]) is the parent of the program and of whatever the
//! program leaves behind, so that all of it ends when any of the three does.

mod descendants;
mod program;
mod signals;
mod supervisor;
mod tenure;

use std::process::{Child, ExitCode, ExitStatus};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use segstore::{Error, Move, Moves, Session};

use super::Context;
use crate::arguments::Run;
use crate::exit::Failure;
use signals::{Signals, is_end};
pub(crate) use supervisor::stage;
use tenure::Tenure;

/// How long to wait before looking at everything else.
const TURN: Duration = Duration::from_millis(100);

pub(crate) fn run(context: &Context, run: &Run) -> Result<ExitCode, Failure> {
    // Now, and not when this node's turn has come.
    program::find(&run.command[0])?;
    // Before any other thread is there: a signal goes to whichever does not block it.
    let signals = Signals::new()?;
    // Whatever session this is run in: that one holds other names.
    let session = context.own_session()?;
    let hold = match acquire(context, &session, &run.name, &signals)? {
        Acquired::Held(hold) => hold,
        Acquired::Ended(signal) => return Ok(code(128 + signal as i32)),
    };
    let moves = session.moves(&run.name)?;
    let mut tenure = Tenure::watch(context, &session, run, hold)?;
    let supervisor = supervisor::start(context, &session, run)?;
    let ended = until_ended(context, supervisor, &signals, &moves, &mut tenure, run);
    // Only a supervisor that was killed leaves any. Whoever became this process by `exec` may have had children of its own.
    if !ended.as_ref().is_ok_and(|status| status.code().is_some()) {
        kill_all(context.json);
    }
    let status = ended?;
    if tenure.is_lost() {
        return Ok(code(crate::exit::FENCED.into()));
    }
    if tenure.is_heard() {
        tenure.end_watch();
        // Where it cannot be told now, the session's end does it.
        let _ = session.release(&run.name);
    }
    Ok(code(status.code().unwrap_or(128 + Signal::SIGKILL as i32)))
}

/// Ends what is left below this process.
fn kill_all(as_json: bool) {
    descendants::kill_all(|process| {
        let text = format!("process {process} runs as a user whom this one may not kill: waiting for its end");
        tell(as_json, "waiting", &text);
    });
}

/// What happens, on standard error: standard output is the program's.
fn tell(as_json: bool, what: &str, text: &str) {
    if as_json {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        eprintln!("{}", serde_json::json!({ "at": u64::try_from(at).unwrap_or(u64::MAX), "what": what, "text": text }));
    } else {
        eprintln!("segctl: {text}");
    }
}

/// What standing by came to.
enum Acquired {
    /// The name is held, under this number.
    Held(u64),
    /// This signal came before that.
    Ended(Signal),
}

/// Holds the name, unless a signal comes before that.
fn acquire(context: &Context, session: &Session, name: &str, signals: &Signals) -> Result<Acquired, Failure> {
    match session.acquire(name, Some(Duration::ZERO), false) {
        Err(Error::Owned { holder, .. }) => {
            let (program, pid, node) = (&holder.program, holder.pid, &holder.node_name);
            let text = format!("standing by: {name} is held by {program} (process {pid}) on node {node}");
            tell(context.json, "standing_by", &text);
        }
        other => return Ok(other.map(Acquired::Held)?),
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
            // With no program to pass them to, these two end the standby as well.
            let ends = |signal| is_end(signal) || matches!(signal, Signal::SIGHUP | Signal::SIGQUIT);
            if let Some(come) = std::iter::from_fn(|| signals.next()).find(|come| ends(come.signal)) {
                return Ok(Acquired::Ended(come.signal));
            }
        };
        match acquired {
            // The daemon or the directory was away for a moment: that is what a standby is for.
            Err(Error::Unreachable(why)) => {
                tell(context.json, "standing_by", &format!("still standing by: {why}"));
                std::thread::sleep(Duration::from_millis(500));
            }
            other => {
                let hold = other?;
                let waited = began.elapsed().as_secs_f64();
                tell(context.json, "held", &format!("{name} is free after {waited:.1} s"));
                return Ok(Acquired::Held(hold));
            }
        }
    }
}

/// Passes signals on until the program has ended; kills it if it does not, in time. It is to end when the name is lost: then its time is
/// no longer than what is left before somebody else may hold the name.
fn until_ended(
    context: &Context,
    mut supervisor: Child,
    signals: &Signals,
    moves: &Moves,
    tenure: &mut Tenure,
    run: &Run,
) -> Result<ExitStatus, Failure> {
    let saying = |error: std::io::Error| Failure::File(format!("waiting for the program: {error}"));
    let mut kill_at: Option<Instant> = None;
    loop {
        if let Some(status) = supervisor.try_wait().map_err(saying)? {
            return Ok(status);
        }
        let wish = moves.wanted().filter(|_| kill_at.is_none());
        if let Some(Move { to, .. }) = &wish {
            tell(context.json, "moving", &format!("{} is to go to node {to}: ending the program", run.name));
        }
        if (tenure.look() || wish.is_some()) && kill_at.is_none() {
            supervisor::pass_on(&supervisor, Signal::SIGTERM);
            kill_at = Some(Instant::now() + run.grace);
        }
        let (now, end) = (Instant::now(), tenure.end());
        let left = kill_at.map_or(end, |at| at.min(end)).saturating_duration_since(now);
        if left.is_zero() {
            let grace = humantime::format_duration(run.grace);
            let why = match kill_at {
                Some(at) if at <= now => format!("the program did not end within {grace}"),
                _ => format!(
                    "no more of the program's {grace} to end is left, since the name is another's, or may be soon"
                ),
            };
            tell(context.json, "killing", &format!("{why}: killing it"));
            supervisor::pass_on(&supervisor, supervisor::END);
            return supervisor.wait().map_err(saying);
        }
        signals.wait(TURN.min(left));
        while let Some(come) = signals.next() {
            // What the terminal sends has come to the supervisor as well.
            if !come.is_of_terminal {
                supervisor::pass_on(&supervisor, come.signal);
            }
            if is_end(come.signal) {
                kill_at.get_or_insert_with(|| Instant::now() + run.grace);
            }
        }
    }
}

fn code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
