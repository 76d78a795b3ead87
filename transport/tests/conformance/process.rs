//! A second process, for what one process cannot show: this test binary, started again. Its standard input is the
//! control channel.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use segstore_transport::{Domain, Grant, Memory, Provider, Rights, Server, ServerOptions, shm::Shm, tcp::Tcp};

#[cfg(feature = "verbs")]
use crate::fixture::{Fixture, VerbsFixture};
use crate::suite::stream;

const ROLE: &str = "CONFORMANCE_ROLE";

/// A running second process. Killed when dropped.
pub(crate) struct Second {
    child: Child,
    channel: UnixStream,
}

impl Second {
    /// Starts this binary again in a role (see `second_process`).
    pub(crate) fn start(role: &str) -> Second {
        let (channel, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["process::second_process", "--exact", "--nocapture"])
            .env(ROLE, role)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Second { child, channel }
    }

    pub(crate) fn send(&mut self, message: &[u8]) {
        send(&mut self.channel, message).unwrap();
    }

    pub(crate) fn receive(&mut self) -> Vec<u8> {
        receive(&mut self.channel).unwrap()
    }

    pub(crate) fn receive_u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.receive().try_into().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Stops the process; when this returns it does not run.
    pub(crate) fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        let stopped = waitpid(self.pid(), Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
    }

    /// How it ended by itself.
    pub(crate) fn end(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn send(channel: &mut impl Write, message: &[u8]) -> std::io::Result<()> {
    channel.write_all(&u32::try_from(message.len()).unwrap().to_ne_bytes())?;
    channel.write_all(message)
}

fn receive(channel: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut len = [0; 4];
    channel.read_exact(&mut len)?;
    let mut message = vec![0; u32::from_ne_bytes(len) as usize];
    channel.read_exact(&mut message)?;
    Ok(message)
}

/// Not a test: what the second process does. In the first it does nothing.
#[test]
fn second_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let stdin = std::io::stdin();
    let fd = std::os::fd::AsFd::as_fd(&stdin).try_clone_to_owned().unwrap();
    let mut channel = UnixStream::from(fd);
    let page = || Memory::anonymous(4096).unwrap();
    match role.as_str() {
        "writer" => while writer(&Shm::new().open().unwrap(), &mut channel).is_ok() {},
        "target" => target(&Shm::new().open().unwrap(), &page(), &mut channel).unwrap(),
        "named-target" => named_target(&mut channel).unwrap(),
        role if role.starts_with("cut-short ") => crate::cut_short::second(role, &mut channel),
        "tcp-writer" => while writer(&Tcp::dialing_only().open().unwrap(), &mut channel).is_ok() {},
        "tcp-target" => target(&Tcp::listening_on(([127, 0, 0, 1], 0)).open().unwrap(), &page(), &mut channel).unwrap(),
        #[cfg(feature = "verbs")]
        "verbs-writer" => while writer(&VerbsFixture::<true>::new().initiator(), &mut channel).is_ok() {},
        #[cfg(feature = "verbs")]
        "verbs-target" => target(VerbsFixture::<true>::new().target(), &page(), &mut channel).unwrap(),
        other => panic!("no role {other}"),
    }
}

/// Connects, writes numbers as fast as it goes until that fails, and tells the last that completed; then the next round.
fn writer(domain: &Domain, channel: &mut UnixStream) -> std::io::Result<()> {
    let dialing = domain.dial().unwrap();
    send(channel, dialing.hello())?;
    let (completed, error) = match dialing.complete(&receive(channel)?) {
        Ok(mut endpoint) => {
            let len = usize::try_from(endpoint.granted()[0].len).unwrap();
            let local = domain.register(&Memory::anonymous(len).unwrap(), Rights::LOCAL).unwrap();
            stream(&mut endpoint, &local)
        }
        Err(error) => (0, error.kind()),
    };
    send(channel, &completed.to_ne_bytes())?;
    send(channel, format!("{error:?}").as_bytes())
}

/// A target in a directory, with memory that has a name.
fn named_target(channel: &mut UnixStream) -> std::io::Result<()> {
    let mut path = || receive(channel).map(|bytes| PathBuf::from(OsString::from_vec(bytes)));
    let (directory, file) = (path()?, path()?);
    target(&Shm::in_directory(directory).open().unwrap(), &Memory::named(&file, 1 << 16).unwrap(), channel)
}

/// Admits one peer and then only serves.
fn target(domain: &Domain, memory: &Memory, channel: &mut UnixStream) -> std::io::Result<()> {
    let _server = Server::start(domain, &ServerOptions::default()).unwrap();
    let region = domain.register(memory, Rights::ALL).unwrap();
    let hello = receive(channel)?;
    let (_peer, reply) = domain.admit(&hello, &[Grant { region: &region, rights: Rights::ALL }]).unwrap();
    send(channel, &reply)?;
    receive(channel).map(drop)
}
