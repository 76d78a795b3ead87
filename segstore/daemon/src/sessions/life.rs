//! The process at the other end of a connection, while it lives.
//!
//! The end of the socket does not tell: a child that the process forked may have it too.

use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerPidfd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

use super::credentials::Credentials;

/// How often to look where the kernel does not tell.
const LOOK: Duration = Duration::from_secs(1);

/// Tells when a process has ended.
pub(super) enum Life {
    /// By a descriptor of it.
    Descriptor(AsyncFd<OwnedFd>),
    /// By its number and start, before Linux 6.5.
    Number(Credentials),
    /// Not at all, as for a process of another number space.
    Unseen,
}

impl Life {
    /// Of the process that connected.
    pub(super) fn of(stream: &UnixStream, credentials: &Credentials) -> Self {
        let descriptor = getsockopt(stream, PeerPidfd).ok();
        #[expect(
            deprecated,
            reason = "sound for a descriptor that it owns; its successor wants unsafe code, which this crate has not"
        )]
        let watched = descriptor.and_then(|fd| AsyncFd::with_interest(fd, Interest::READABLE).ok());
        match watched {
            Some(descriptor) => Self::Descriptor(descriptor),
            None if credentials.is_alive() => Self::Number(credentials.clone()),
            None => Self::Unseen,
        }
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) {
        match self {
            Self::Descriptor(fd) => drop(fd.readable().await),
            Self::Number(credentials) => {
                while credentials.is_alive() {
                    tokio::time::sleep(LOOK).await;
                }
            }
            Self::Unseen => std::future::pending().await,
        }
    }
}
