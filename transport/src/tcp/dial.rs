//! The initiator's set-up: connect, knock, and take what the welcome grants, all before one deadline.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use zerocopy::IntoBytes;

use super::endpoint::{TcpEndpoint, refused};
use super::options::Options;
use super::stream::Stream;
use super::tls::{self, Broken};
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

    fn yields(&mut self) {
        self.hello.set_yields();
    }

    fn complete(
        self: Box<Self>,
        reply: &[u8],
        until: Option<Instant>,
    ) -> Result<(Box<dyn EndpointDriver>, Vec<Granted>)> {
        let reply = Reply::parse(reply)?;
        let end = Instant::now() + self.options.connect_within;
        let end = until.map_or(end, |until| until.min(end));
        let mut stream = Stream::new(connect(&reply, end)?, self.options.patience)?;
        if let Some(key) = reply.key {
            stream.encrypt(tls::client(key).map_err(|error| refuses(Broken::Tls(error)))?);
        }
        let mut caller = Caller { stream, end };
        caller.shake()?;
        caller.send(Knock::new(reply.token).as_bytes())?;
        let granted = caller.welcome()?;
        Ok((Box::new(TcpEndpoint::new(caller.stream)), granted.into_iter().enumerate().map(pack).collect()))
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
    stream: Stream,
    end: Instant,
}

impl Caller {
    /// The TLS handshake, if the reply wants one.
    fn shake(&mut self) -> Result<()> {
        while !self.stream.shake().map_err(refuses)? {
            self.rest(false)?;
        }
        Ok(())
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::EAGAIN) => self.rest(true)?,
                Err(error) => return Err(lost(error)),
            }
        }
        Ok(())
    }

    /// Fills `bytes`, however slowly they come, before the deadline.
    fn receive(&mut self, bytes: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.stream.read(&mut bytes[filled..]) {
                Ok(received) if received.closed => return Err(closed()),
                Ok(received) => filled += received.bytes,
                Err(Errno::EAGAIN) => self.rest(false)?,
                Err(error) => return Err(lost(error)),
            }
        }
        Ok(())
    }

    /// Until something has arrived, or, if `sending`, can be sent.
    fn rest(&mut self, sending: bool) -> Result<()> {
        if Instant::now() >= self.end {
            let text = "the target took the connection but did not answer in time: does a server run there?";
            return Err(Error::operation(ErrorKind::TimedOut, text));
        }
        self.stream.sleep(sending, left_until(self.end));
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

fn lost(error: Errno) -> Error {
    let text = format!("the target broke off the connection while it was set up: {error}");
    Error::operation(ErrorKind::PeerGone, text).with_code(error as i64)
}

fn closed() -> Error {
    Error::operation(ErrorKind::PeerGone, "the target closed the connection while it was set up")
}

/// Why there is no TLS with this target.
fn refuses(broken: Broken) -> Error {
    let (kind, text) = match broken {
        Broken::Closed => return closed(),
        Broken::System(error) => return lost(error),
        Broken::NotTls => (ErrorKind::Incompatible, "the reply wants TLS, which the target does not speak".into()),
        Broken::Tls(rustls::Error::InvalidCertificate(_)) => {
            let text =
                "the target has another key than the reply says: somebody stands between, or answers in its place";
            (ErrorKind::Protocol, text.into())
        }
        Broken::Tls(error) => (ErrorKind::Protocol, format!("the TLS handshake with the target failed: {error}")),
    };
    Error::operation(kind, text)
}

fn pack((index, (len, rights)): (usize, (u64, Rights))) -> Granted {
    let packed = u32::try_from(index).unwrap_or(u32::MAX).to_le_bytes();
    let key = Key::new(&packed).unwrap_or_else(|| unreachable!("four bytes fit into a key"));
    Granted { key, len, rights }
}
