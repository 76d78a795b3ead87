//! The process that owns segments, and dies while that is measured.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{failover, many};
use crate::exit::{self, Failure};

/// It ends with this.
pub(super) struct Owner(Child);

impl Owner {
    /// Starts this program as that stage, and waits until it says that it is ready.
    pub(super) fn start(stage: &str, socket: &Path, arguments: &[String]) -> Result<Self, Failure> {
        let saying = |error: std::io::Error| Failure::Unwell(format!("starting an owner: {error}"));
        let own = std::env::current_exe().map_err(saying)?;
        let mut owner = Command::new(own);
        owner.arg(stage).arg(socket).args(arguments).stdout(Stdio::piped());
        let mut owner = Self(owner.spawn().map_err(saying)?);
        let mut said = String::new();
        let out = owner.0.stdout.take();
        out.map_or(Ok(0), |out| BufReader::new(out).read_line(&mut said)).map_err(saying)?;
        if said.is_empty() {
            return Err(Failure::Unwell("an owner that was to be measured has ended".into()));
        }
        Ok(owner)
    }

    pub(super) fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    /// Kills it, and with it a daemon; gives when.
    pub(super) fn kill(mut self, daemon: Option<i32>) -> Instant {
        if let Some(daemon) = daemon {
            let _ = kill(Pid::from_raw(daemon), Signal::SIGKILL);
        }
        let died = Instant::now();
        let _ = self.0.kill();
        let _ = self.0.wait();
        died
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Says so to who started this process.
pub(super) fn ready() {
    let mut out = std::io::stdout();
    let _ = out.write_all(b"ready\n").and_then(|()| out.flush());
}

/// What this process is, if it is such an owner: no command that anybody types.
pub(crate) fn stage() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let own = match arguments.next()?.to_str()? {
        failover::OWN => failover::own,
        many::OWN => many::own,
        _ => return None,
    };
    let socket = PathBuf::from(arguments.next()?);
    let arguments: Vec<_> = arguments.filter_map(|argument| argument.into_string().ok()).collect();
    let preparing = |error: nix::errno::Errno| Failure::Unwell(format!("preparing to be killed: {error}"));
    let prepared = prctl::set_pdeathsig(Signal::SIGKILL).map_err(preparing);
    Some(exit::of(false, prepared.and_then(|()| own(&socket, &arguments))))
}
