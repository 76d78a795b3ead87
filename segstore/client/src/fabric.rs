//! The bare way to a replica: for measuring what checkpoints and loads go over.

use std::sync::Arc;
use std::time::Duration;

use segstore_core::replica::Request as ReplicaRequest;
use segstore_transport::{Endpoint, Region};

use crate::control::message::Place;
use crate::domains::{Destination, Dialled, PATIENCE};
use crate::error::{Error, Result};
use crate::name::HeldName;
use crate::session::{self, Inner as Session};
use crate::takeover::{self, Taken};
use crate::way::Way;

/// The endpoint to a replica on another node, opened as its owner's checkpoints have it, with nothing of the protocol between: for
/// measuring the fabric. What is written through it damages the replica, so the segment has to be one that was made for this.
///
/// The session owns the segment as long as this lives.
pub struct Fabric {
    /// Writes and reads go to its grant 0: the replica's slots, more than twice the segment's capacity.
    pub endpoint: Endpoint,
    /// Memory of this process, registered for the endpoint: as long as the segment's capacity.
    pub local: Region,
    /// The replica's node.
    pub node_name: String,
    /// The transport's provider that the library chose for it.
    pub provider: &'static str,
    /// The RDMA device on this side, in words, if it goes over one.
    pub device: Option<String>,
    _held: HeldName,
}

impl Fabric {
    /// Takes the segment over, and connects to its first replica on another node.
    pub(crate) fn open(session: &Arc<Session>, name: &str) -> Result<Self> {
        let held = HeldName::acquire(session, name, Some(Duration::ZERO), false)?;
        let info = session.lookup(name)?;
        let geometry = session::geometry(&info)?;
        let Taken { start, working, info, .. } =
            takeover::take_over(session, info, geometry, "opened to be measured", None)?;
        let here = session.channel.welcome().node;
        let is_there =
            |place: &&Place| place.member.node != here && start.record.record.in_sync.contains(&place.member);
        let nobody = || Error::NoRoom("the fabric is measured to another node: none has room for a replica".into());
        let place = info.places.iter().find(is_there).ok_or_else(nobody)?;
        let incarnation = place.member.incarnation;
        let request = ReplicaRequest { segment: start.segment, incarnation, asker: start.ownership };
        let (channel, writer) = (&session.channel, Some(request));
        let to = Destination { channel, name, place, writer, limit: PATIENCE };
        let dialled = session.domains.dial(&to, [working.memory()]);
        let Dialled { way, endpoint, regions: [local], .. } =
            dialled.map_err(|error| Error::Unreachable(error.to_string()))?;
        let device = match way {
            Way::Verbs => session.channel.welcome().rdma.describe().ok(),
            Way::OwnNode | Way::Shm | Way::Tcp => None,
        };
        let (node_name, provider) = (place.node_name.clone(), way.provider());
        Ok(Self { endpoint, local, node_name, provider, device, _held: held })
    }
}
