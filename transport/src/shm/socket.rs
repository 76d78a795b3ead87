//! The Unix socket over which descriptors travel. Messages keep their bounds (SEQPACKET).

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind,
    connect, listen, recvmsg, sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::wire::{MAX_ADDRESS, MAX_GRANTS};
use crate::{Error, ErrorKind, Result};

/// How long each step of the other side may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A listening socket and where it is reached.
pub(super) struct Listener {
    pub(super) socket: OwnedFd,
    pub(super) address: Vec<u8>,
}

impl Listener {
    /// Listens at a fresh name: abstract, or in a directory.
    pub(super) fn bind(directory: Option<&Path>, name: &str) -> Result<Listener> {
        let saying = |error: nix::Error| Error::system(&format!("listening at the Unix socket {name}"), error);
        let (unix, address) = match directory {
            None => (UnixAddr::new_abstract(name.as_bytes()).map_err(saying)?, [b"\0", name.as_bytes()].concat()),
            Some(directory) => {
                let path = directory.join(name);
                let bytes = path.as_os_str().as_encoded_bytes().to_vec();
                if bytes.len() > MAX_ADDRESS {
                    let text =
                        format!("{} is longer than {MAX_ADDRESS} bytes: choose a shorter directory", path.display());
                    return Err(Error::invalid(text));
                }
                (UnixAddr::new(&path).map_err(saying)?, bytes)
            }
        };
        let socket = open(SockFlag::SOCK_NONBLOCK).map_err(saying)?;
        bind(socket.as_raw_fd(), &unix).map_err(saying)?;
        listen(&socket, Backlog::new(64).unwrap_or(Backlog::MAXCONN)).map_err(saying)?;
        Ok(Listener { socket, address })
    }

    /// The next connection; `EAGAIN` when there is none.
    pub(super) fn accept(&self) -> nix::Result<OwnedFd> {
        accept4(self.socket.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK).map(own)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.address.first() != Some(&0) {
            use std::os::unix::ffi::OsStrExt;
            let _ = std::fs::remove_file(Path::new(std::ffi::OsStr::from_bytes(&self.address)));
        }
    }
}

/// Connects to an address of a reply. Sending and receiving on the socket give up after a while.
pub(super) fn dial(address: &[u8]) -> Result<OwnedFd> {
    let unix = match address {
        [0, name @ ..] => UnixAddr::new_abstract(name),
        path => UnixAddr::new(path),
    };
    let unix = unix.map_err(|error| Error::operation(ErrorKind::Protocol, format!("the reply's address: {error}")))?;
    let gone = |error: nix::Error| {
        let text = format!(
            "connecting to the target's socket {}: {error}; has it gone, or is it in another namespace?",
            address.escape_ascii()
        );
        Error::operation(ErrorKind::PeerGone, text).with_code(error as i64)
    };
    let socket = open(SockFlag::empty()).map_err(gone)?;
    let limit = TimeVal::seconds(PATIENCE.as_secs().try_into().unwrap_or(5));
    setsockopt(&socket, sockopt::ReceiveTimeout, &limit).map_err(gone)?;
    setsockopt(&socket, sockopt::SendTimeout, &limit).map_err(gone)?;
    connect(socket.as_raw_fd(), &unix).map_err(gone)?;
    Ok(socket)
}

/// Sends one message with descriptors.
pub(super) fn send(socket: &impl AsFd, bytes: &[u8], fds: &[RawFd]) -> nix::Result<()> {
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights };
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives one message with its descriptors; gives how long it is. A message that does not fit is an error.
pub(super) fn receive(socket: &impl AsFd, bytes: &mut [u8]) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; MAX_GRANTS + 1]);
    let mut parts = [IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut fds = Vec::new();
    let cut = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
    // Every descriptor that arrived is owned before anything can fail, so none stays open.
    if let Ok(messages) = message.cmsgs() {
        for control in messages {
            if let ControlMessageOwned::ScmRights(received) = control {
                fds.extend(received.into_iter().map(own));
            }
        }
    }
    if cut { Err(nix::Error::EMSGSIZE) } else { Ok((message.bytes, fds)) }
}

fn open(flags: SockFlag) -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, flags | SockFlag::SOCK_CLOEXEC, None)
}

fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the system has just given this descriptor to this process, and nobody else here knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
