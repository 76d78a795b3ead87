//! The initiator's set-up.

use std::sync::Arc;
use std::time::Instant;

use zerocopy::IntoBytes;

use super::endpoint::SimEndpoint;
use super::wire::{Hello, Reply};
use super::world::World;
use crate::contract::driver::{DialDriver, EndpointDriver};
use crate::{Error, ErrorKind, Granted, Key, Result, Rights};

pub(super) struct SimDial {
    hello: Hello,
    world: Arc<World>,
    node: u64,
}

impl SimDial {
    pub(super) fn new(hello: Hello, world: Arc<World>, node: u64) -> SimDial {
        SimDial { hello, world, node }
    }
}

impl DialDriver for SimDial {
    fn hello(&self) -> &[u8] {
        self.hello.as_bytes()
    }

    fn complete(
        self: Box<Self>,
        reply: &[u8],
        _until: Option<Instant>,
    ) -> Result<(Box<dyn EndpointDriver>, Vec<Granted>)> {
        let reply = Reply::parse(reply)?;
        self.world.with(|state| {
            let me = self.node;
            let link = state.link(reply.link).filter(|link| link.initiator == me && !link.connected);
            let refused = || Error::operation(ErrorKind::Revoked, "the target does not expect this connection");
            let link = link.filter(|link| !link.revoked).ok_or_else(refused)?;
            link.connected = true;
            let target = link.target;
            if state.is_dead(target) {
                return Err(Error::operation(ErrorKind::PeerGone, "the target is dead"));
            }
            Ok(())
        })?;
        let granted = reply.grants.iter().enumerate().map(granted).collect();
        Ok((Box::new(SimEndpoint::new(self.world, reply.link)), granted))
    }
}

fn granted((index, &(len, rights)): (usize, &(u64, Rights))) -> Granted {
    let packed = u32::try_from(index).unwrap_or(u32::MAX).to_le_bytes();
    let key = Key::new(&packed).unwrap_or_else(|| unreachable!("four bytes fit into a key"));
    Granted { key, len, rights }
}
