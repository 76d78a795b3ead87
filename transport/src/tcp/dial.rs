//! The initiator's set-up: connect, knock, and take what the welcome grants, all before one deadline.

use std::io::{ErrorKind as Io, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use zerocopy::IntoBytes;

use super::endpoint::{TcpEndpoint, refused};
use super::options::Options;
use super::stream::Stream;
use super::wire::{GRANT, HEAD, Head, Hello, Knock, MARK, MAX_GRANTS, Reply, VERSION, kind, parse_grants};
use crate::contract::driver::{DialDriver, EndpointDriver};
use crate::{Error, ErrorKind, Granted, Key, Result, Rights};

pub(super) struct TcpDial {
    hello: Hello,
    options: Options,
}

impl TcpDial {
    pub(super) fn new(options: Options) -> TcpDial {
        TcpDial { hello: Hello::new(), options }
    }
}

impl DialDriver for TcpDial {
    fn hello(&self) -> &[u8] {
        self.hello.as_bytes()
    }

    fn complete(self: Box<Self>, reply: &[u8]) -> Result<(Box<dyn EndpointDriver>, Vec<Granted>)> {
        let reply = Reply::parse(reply)?;
        let end = Instant::now() + self.options.connect_within;
        let mut caller = Caller { socket: connect(&reply, end)?, end };
        caller.send(Knock::new(reply.token).as_bytes())?;
        let granted = caller.welcome()?;
        let stream = Stream::new(caller.socket, self.options.patience)?;
        Ok((Box::new(TcpEndpoint::new(stream)), granted.into_iter().enumerate().map(pack).collect()))
    }
}

/// The first address that answers.
fn connect(reply: &Reply, end: Instant) -> Result<TcpStream> {
    let mut tried = Vec::new();
    let mut code = 0;
    for (address, left) in reply.addresses.iter().zip((1..=reply.addresses.len()).rev()) {
        // Each address gets its part of what is left.
        let share = left_until(end) / u32::try_from(left).unwrap_or(u32::MAX);
        match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
            Ok(socket) => return Ok(socket),
            Err(error) => {
                code = error.raw_os_error().unwrap_or(0);
                tried.push(format!("{address}: {error}"));
            }
        }
    }
    let text = format!("cannot connect to the target: {}", tried.join("; "));
    Err(Error::operation(ErrorKind::PeerGone, text).with_code(code.into()))
}

/// A connection that has no endpoint yet.
struct Caller {
    socket: TcpStream,
    end: Instant,
}

impl Caller {
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.socket.set_write_timeout(Some(left_until(self.end))).map_err(lost)?;
        self.socket.write_all(bytes).map_err(lost)
    }

    /// Fills `bytes`, however slowly they come, before the deadline.
    fn receive(&mut self, bytes: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            self.socket.set_read_timeout(Some(left_until(self.end))).map_err(lost)?;
            match self.socket.read(&mut bytes[filled..]) {
                Ok(0) => return Err(lost(Io::UnexpectedEof.into())),
                Ok(count) => filled += count,
                Err(error) if error.kind() == Io::Interrupted => {}
                Err(error) if matches!(error.kind(), Io::WouldBlock | Io::TimedOut) => {
                    let text = "the target took the connection but did not answer in time: does a server run there?";
                    return Err(Error::operation(ErrorKind::TimedOut, text));
                }
                Err(error) => return Err(lost(error)),
            }
        }
        Ok(())
    }

    fn welcome(&mut self) -> Result<Vec<(u64, Rights)>> {
        let mut bytes = [0; HEAD];
        self.receive(&mut bytes)?;
        let head: Head = zerocopy::transmute!(bytes);
        if head.mark != MARK || !matches!(head.kind, kind::WELCOME | kind::REFUSED) {
            let text = format!("the target answered the knock with {:?}: is it another service?", bytes.escape_ascii());
            return Err(Error::operation(ErrorKind::Protocol, text));
        }
        if head.kind == kind::REFUSED {
            return Err(refused(&head).with_scope(crate::Scope::Operation));
        }
        let (count, version) = (usize::from(head.grant), head.value.get());
        if version != u64::from(VERSION) {
            let text = format!("a welcome of version {version}; this side speaks version {VERSION}: upgrade the older");
            return Err(Error::operation(ErrorKind::Incompatible, text));
        }
        if !(1..=MAX_GRANTS).contains(&count) || head.len.get() as usize != count * GRANT {
            let text = format!("a welcome to {count} regions in {} bytes", head.len);
            return Err(Error::operation(ErrorKind::Protocol, text));
        }
        let mut grants = [0; MAX_GRANTS * GRANT];
        self.receive(&mut grants[..count * GRANT])?;
        parse_grants(&grants[..count * GRANT])
    }
}

/// Never zero: that would mean for ever.
fn left_until(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

#[expect(clippy::needless_pass_by_value, reason = "it is called by map_err")]
fn lost(error: std::io::Error) -> Error {
    let text = format!("the target broke off the connection while it was set up: {error}");
    Error::operation(ErrorKind::PeerGone, text).with_code(error.raw_os_error().unwrap_or(0).into())
}

fn pack((index, (len, rights)): (usize, (u64, Rights))) -> Granted {
    let packed = u32::try_from(index).unwrap_or(u32::MAX).to_le_bytes();
    let key = Key::new(&packed).unwrap_or_else(|| unreachable!("four bytes fit into a key"));
    Granted { key, len, rights }
}
