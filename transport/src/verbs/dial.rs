//! The initiator's set-up: a queue pair, the target's answer about its own, and a knock that it has to answer.

use std::time::Instant;

use ibverbs_sys::ibv_access_flags;
use zerocopy::IntoBytes;

use super::endpoint::VerbsEndpoint;
use super::options::Options;
use super::queue_pair::Terms;
use super::wire::{Hello, Opened, Reply};
use crate::contract::driver::{DialDriver, EndpointDriver};
use crate::{Error, ErrorKind, Granted, Key, Result, Scope};

pub(super) struct VerbsDial {
    hello: Hello,
    endpoint: VerbsEndpoint,
    options: Options,
}

impl VerbsDial {
    /// `reads`: how many the device has in flight at most.
    pub(super) fn new(endpoint: VerbsEndpoint, reads: u8, options: Options) -> VerbsDial {
        VerbsDial { hello: Hello::new(endpoint.address(), reads), endpoint, options }
    }
}

impl DialDriver for VerbsDial {
    fn hello(&self) -> &[u8] {
        self.hello.as_bytes()
    }

    fn complete(
        self: Box<Self>,
        reply: &[u8],
        until: Option<Instant>,
    ) -> Result<(Box<dyn EndpointDriver>, Vec<Granted>)> {
        let VerbsDial { hello, mut endpoint, options } = *self;
        let reply = Reply::parse(reply)?;
        if reply.answers != hello.address.first_packet.get() {
            let text = "the reply answers another hello: it opens that one's connection and no other";
            return Err(Error::operation(ErrorKind::Revoked, text));
        }
        // The target looks whether this side is there by a write of no bytes. No memory of this side's protection domain is
        // open to peers.
        let access = ibv_access_flags::IBV_ACCESS_REMOTE_WRITE.0;
        let terms = Terms::new(access, (hello.reads.min(reply.reads), 1), &options);
        endpoint.queue_pair().connect(&reply.address, terms)?;
        endpoint.grant(reply.taken, &reply.grants);
        let packet = endpoint.address().packet(&reply.address);
        // A device takes up to four times as long as it is told.
        let end = Instant::now() + 5 * options.patience;
        let end = until.map_or(end, |until| until.min(end));
        endpoint.knock(packet, end).map_err(|error| never_let_in(&error))?;
        Ok((Box::new(endpoint), reply.grants.iter().map(pack).collect()))
    }
}

/// Only this call fails, unless the whole device does.
fn never_let_in(error: &Error) -> Error {
    if error.scope() == Scope::Domain {
        return error.clone();
    }
    if error.kind() != ErrorKind::PeerGone {
        return error.clone().with_scope(Scope::Operation);
    }
    let text = format!("nobody answers where the reply says: the target has gone, or has changed its mind; {error}");
    Error::operation(ErrorKind::PeerGone, text).with_code(error.code())
}

fn pack(opened: &Opened) -> Granted {
    let mut packed = [0; 12];
    packed[..8].copy_from_slice(&opened.base.to_le_bytes());
    packed[8..].copy_from_slice(&opened.key.to_le_bytes());
    let key = Key::new(&packed).unwrap_or_else(|| unreachable!("twelve bytes fit into a key"));
    Granted { key, len: opened.len, rights: opened.rights }
}
