//! Programs that tests start.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::Signal;

/// What runs `program`, in a network namespace if one is named. It is killed when the thread that started it ends.
pub(crate) fn command(namespace: Option<&str>, program: impl AsRef<OsStr>) -> Command {
    let mut command = match namespace {
        Some(namespace) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace]).arg(program);
            command
        }
        None => Command::new(program),
    };
    // SAFETY: a system call that any process may make between fork and exec.
    unsafe { command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)) };
    command
}
