//! The initiator's set-up: knock, map what the welcome brings.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use zerocopy::IntoBytes;

use super::agent::{Agent, Watch};
use super::control::{self, Control};
use super::endpoint::{Mapped, ShmEndpoint};
use super::wire::{Hello, Knock, MAX_MESSAGE, Reply, Welcomed, parse_welcome};
use super::{fence, socket};
use crate::contract::driver::{DialDriver, EndpointDriver};
use crate::memory::Memory;
use crate::{Error, ErrorKind, Granted, Key, Result};

pub(super) struct ShmDial {
    hello: Hello,
    agent: Arc<Agent>,
    outlives_target: bool,
}

impl ShmDial {
    pub(super) fn new(hello: Hello, agent: Arc<Agent>, outlives_target: bool) -> ShmDial {
        ShmDial { hello, agent, outlives_target }
    }
}

impl DialDriver for ShmDial {
    fn hello(&self) -> &[u8] {
        self.hello.as_bytes()
    }

    fn complete(
        self: Box<Self>,
        reply: &[u8],
        _until: Option<Instant>,
    ) -> Result<(Box<dyn EndpointDriver>, Vec<Granted>)> {
        let reply = Reply::parse(reply)?;
        let socket = socket::dial(&reply.address)?;
        let lost = |error: nix::Error| {
            let text = format!("the target broke off the connection: {error}");
            Error::operation(ErrorKind::PeerGone, text).with_code(error as i64)
        };
        socket::send(&socket, Knock::new(reply.token).as_bytes(), &[]).map_err(lost)?;
        let mut bytes = [0; MAX_MESSAGE];
        let (len, fds) = socket::receive(&socket, &mut bytes).map_err(lost)?;
        if len == 0 {
            let text = "the target does not expect this connection: it was revoked, or the reply was used before";
            return Err(Error::operation(ErrorKind::Revoked, text));
        }
        let welcomed = parse_welcome(&bytes[..len])?;
        if fds.len() != welcomed.len() + 1 {
            let text = format!("a welcome to {} regions brought {} descriptors", welcomed.len(), fds.len());
            return Err(Error::operation(ErrorKind::Protocol, text));
        }
        let mut fds = fds.into_iter();
        let page = fds.next().map(|fd| foreign(fd, 0, control::LEN as u64, true)).transpose()?;
        let control = page.map(Control::new).transpose()?.ok_or_else(|| Error::invalid("no control page"))?;
        let mapped = welcomed.iter().zip(fds).map(|(grant, fd)| map(grant, fd)).collect::<Result<Vec<_>>>()?;
        // What was mapped after a revoke or a move may be an orphan already.
        fence::check(control.fence())?;
        let granted = welcomed.iter().enumerate().map(granted).collect();
        let watch = Watch::new(self.agent, socket);
        Ok((Box::new(ShmEndpoint::new(control, mapped, watch, self.outlives_target)), granted))
    }
}

fn map(grant: &Welcomed, fd: OwnedFd) -> Result<Mapped> {
    foreign(fd, grant.offset, grant.len, grant.rights.can_change()).map(Mapped::new)
}

/// Maps a peer's memory.
fn foreign(fd: OwnedFd, offset: u64, len: u64, writable: bool) -> Result<Memory> {
    let len = usize::try_from(len).map_err(|_| Error::invalid("a region longer than this machine's addresses"))?;
    Memory::foreign(fd, offset, len, writable)
}

fn granted((index, grant): (usize, &Welcomed)) -> Granted {
    let packed = u32::try_from(index).unwrap_or(u32::MAX).to_le_bytes();
    let key = Key::new(&packed).unwrap_or_else(|| unreachable!("four bytes fit into a key"));
    Granted { key, len: grant.len, rights: grant.rights }
}
