//! A reliable connection to one other queue pair: made, connected, stopped and taken away.

use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use ibverbs_sys as ib;

use super::completions::Completions;
use super::device::{Device, Port};
use super::options::{Options, RETRIES, timeout_code};
use super::registration::{Access, ProtectionDomain, Registration};
use super::requests::Requests;
use super::sys::{check, made};
use super::wire::Address;
use crate::random::random;
use crate::{Error, ErrorKind, Result};

/// So many bytes travel in the request itself, if the device can; else fewer, but never less than a message.
const INLINE: [u32; 3] = [128, 64, 32];
/// A peer that has no room for a message tries again after 0.64 ms: so long does a correct one never wait.
const NO_ROOM: u8 = 12;
/// Routers on the way: as many as an IP packet usually passes.
const HOPS: u8 = 64;

/// How long the queues are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Depth {
    pub(super) requests: u32,
    pub(super) messages: u32,
}

/// What two sides agree on beside their addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// What the other side may do with this one's memory.
    pub(super) access: Access,
    /// Reads in flight from here, and served here.
    pub(super) reads: (u8, u8),
    /// After how long without an answer the other side is gone.
    pub(super) patience: Duration,
    /// What switches choose by.
    pub(super) traffic_class: u8,
    pub(super) service_level: u8,
}

impl Terms {
    pub(super) fn new(access: Access, reads: (u8, u8), options: &Options) -> Terms {
        let &Options { patience, traffic_class, service_level, .. } = options;
        Terms { access, reads, patience, traffic_class, service_level }
    }
}

pub(super) struct QueuePair {
    /// `None` once it was taken away.
    qp: Option<NonNull<ib::ibv_qp>>,
    address: Address,
    /// The longest write that may travel in the request itself.
    pub(super) inline: usize,
    /// Of the port's table, where its own address is.
    gid_index: u8,
    device: Arc<Device>,
    // What it was made from goes after it.
    _domain: Arc<ProtectionDomain>,
    completions: Arc<Completions>,
}

// SAFETY: verbs may be called from any thread; the pointer is only given to them.
unsafe impl Send for QueuePair {}

impl QueuePair {
    /// A queue pair that receives into nothing yet, and that nobody can reach.
    pub(super) fn new(
        domain: &Arc<ProtectionDomain>,
        completions: &Arc<Completions>,
        depth: Depth,
    ) -> Result<QueuePair> {
        let device = domain.device.clone();
        let (qp, inline) = make(domain, completions, depth)?;
        // SAFETY: the queue pair lives; the field was set before it was given out.
        let number = unsafe { (*qp.as_ptr()).qp_num };
        // They may have changed since the device was opened.
        let Port { gid, lid, link, mtu, .. } = device.port_now()?;
        let [a, b, c, ..] = random()?;
        let first_packet = u32::from_le_bytes([a, b, c, 0]);
        let (number, first_packet) = (number.into(), first_packet.into());
        let address = Address { gid: gid.gid, lid: lid.into(), link, mtu, number, first_packet };
        let (_domain, completions) = (domain.clone(), completions.clone());
        let made = QueuePair {
            qp: Some(qp),
            address,
            inline: inline as usize,
            gid_index: gid.index,
            device,
            _domain,
            completions,
        };
        made.prepare()?;
        Ok(made)
    }

    /// Where the other side finds it.
    pub(super) fn address(&self) -> Address {
        self.address
    }

    pub(super) fn completions(&self) -> &Arc<Completions> {
        &self.completions
    }

    /// Room for messages may be posted from here on.
    fn prepare(&self) -> Result<()> {
        let mut to = ib::ibv_qp_attr {
            qp_state: ib::ibv_qp_state::IBV_QPS_INIT,
            port_num: self.device.port.number,
            ..Default::default()
        };
        let mask = ib::ibv_qp_attr_mask::IBV_QP_STATE
            | ib::ibv_qp_attr_mask::IBV_QP_PKEY_INDEX
            | ib::ibv_qp_attr_mask::IBV_QP_PORT
            | ib::ibv_qp_attr_mask::IBV_QP_ACCESS_FLAGS;
        self.modify("preparing a queue pair", &mut to, mask)
    }

    /// From here on the queue pair of that address reaches this one, and this one sends to it.
    pub(super) fn connect(&self, there: &Address, terms: Terms) -> Result<()> {
        let here = &self.address;
        if here.link != there.link {
            let text = "one side's device is on InfiniBand, the other's on Ethernet: they cannot reach each other";
            return Err(Error::operation(ErrorKind::Incompatible, text));
        }
        let mut to = ib::ibv_qp_attr {
            qp_state: ib::ibv_qp_state::IBV_QPS_RTR,
            path_mtu: here.mtu.min(there.mtu).into(),
            dest_qp_num: there.number.get(),
            rq_psn: there.first_packet.get(),
            max_dest_rd_atomic: terms.reads.1,
            min_rnr_timer: NO_ROOM,
            qp_access_flags: terms.access,
            ah_attr: self.route(there, terms),
            ..Default::default()
        };
        let mask = ib::ibv_qp_attr_mask::IBV_QP_STATE
            | ib::ibv_qp_attr_mask::IBV_QP_AV
            | ib::ibv_qp_attr_mask::IBV_QP_PATH_MTU
            | ib::ibv_qp_attr_mask::IBV_QP_DEST_QPN
            | ib::ibv_qp_attr_mask::IBV_QP_RQ_PSN
            | ib::ibv_qp_attr_mask::IBV_QP_MAX_DEST_RD_ATOMIC
            | ib::ibv_qp_attr_mask::IBV_QP_MIN_RNR_TIMER
            | ib::ibv_qp_attr_mask::IBV_QP_ACCESS_FLAGS;
        self.modify("connecting a queue pair (is there a route to the other side?)", &mut to, mask)?;
        let mut to = ib::ibv_qp_attr {
            qp_state: ib::ibv_qp_state::IBV_QPS_RTS,
            sq_psn: here.first_packet.get(),
            timeout: timeout_code(terms.patience),
            retry_cnt: RETRIES,
            rnr_retry: RETRIES,
            max_rd_atomic: terms.reads.0,
            ..Default::default()
        };
        let mask = ib::ibv_qp_attr_mask::IBV_QP_STATE
            | ib::ibv_qp_attr_mask::IBV_QP_SQ_PSN
            | ib::ibv_qp_attr_mask::IBV_QP_TIMEOUT
            | ib::ibv_qp_attr_mask::IBV_QP_RETRY_CNT
            | ib::ibv_qp_attr_mask::IBV_QP_RNR_RETRY
            | ib::ibv_qp_attr_mask::IBV_QP_MAX_QP_RD_ATOMIC;
        self.modify("letting a queue pair send", &mut to, mask)
    }

    /// On Ethernet by global address; on InfiniBand by the subnet's own, unless the other side is in another subnet.
    fn route(&self, there: &Address, terms: Terms) -> ib::ibv_ah_attr {
        let same_subnet = self.address.gid[..8] == there.gid[..8] && there.lid.get() != 0;
        let is_global = u8::from(u32::from(there.link) == ib::IBV_LINK_LAYER_ETHERNET || !same_subnet);
        let grh = ib::ibv_global_route {
            dgid: ib::ibv_gid { raw: there.gid },
            sgid_index: self.gid_index,
            hop_limit: HOPS,
            traffic_class: terms.traffic_class,
            ..Default::default()
        };
        ib::ibv_ah_attr {
            grh,
            dlid: there.lid.get(),
            sl: terms.service_level,
            is_global,
            port_num: self.device.port.number,
            ..Default::default()
        }
    }

    /// Posts what was collected, as one list of which only the last says when it is done, by this number.
    ///
    /// # Safety
    /// Every place that the requests name stays as they need it until a later completion, or until this was taken away.
    pub(super) unsafe fn post(&self, requests: &mut Requests, id: u64) -> Result<()> {
        let qp = self.living()?;
        let first = requests.link(id);
        // SAFETY: the list is linked, of this device's kind, and the caller promises for its places.
        unsafe { self.device.driver.post_send(qp, first) }
    }

    /// Room for one message of at most so many bytes, at that offset of registered memory; its arrival says this number.
    pub(super) fn post_room(&self, memory: &Registration, offset: usize, length: u32, id: u64) -> Result<()> {
        let qp = self.living()?;
        debug_assert!(memory.memory.check(offset, length as usize).is_ok());
        let addr = memory.base() + offset as u64;
        let mut piece = ib::ibv_sge { addr, length, lkey: memory.local_key() };
        let mut room = ib::ibv_recv_wr { wr_id: id, next: ptr::null_mut(), sg_list: &raw mut piece, num_sge: 1 };
        // SAFETY: the driver copies the request; its place is registered memory, which whoever holds this queue pair
        // holds longer.
        unsafe { self.device.driver.post_recv(qp, &raw mut room) }
    }

    /// Nothing that arrives from here on is taken, and what waits is done with an error.
    pub(super) fn stop(&self) -> Result<()> {
        let mut to = ib::ibv_qp_attr { qp_state: ib::ibv_qp_state::IBV_QPS_ERR, ..Default::default() };
        self.modify("stopping a queue pair", &mut to, ib::ibv_qp_attr_mask::IBV_QP_STATE)
    }

    /// When it returns `Ok`, the device neither reads nor writes memory for this queue pair any more. It may be called again.
    pub(super) fn take_away(&mut self) -> Result<()> {
        let Some(qp) = self.qp else { return Ok(()) };
        // SAFETY: it was made by `ibv_create_qp`, and is destroyed once: where it fails it is as it was.
        match check("destroying a queue pair", unsafe { ib::ibv_destroy_qp(qp.as_ptr()) }) {
            Err(error) if !self.device.health.has_taken(&error) => return Err(error),
            // The library's own few bytes of one that went with its device are lost: it frees them only with the device's help.
            Ok(()) | Err(_) => self.qp = None,
        }
        Ok(())
    }

    fn modify(&self, doing: &str, to: &mut ib::ibv_qp_attr, mask: ib::ibv_qp_attr_mask) -> Result<()> {
        let qp = self.living()?;
        // SAFETY: the queue pair lives; the attributes are a local.
        check(doing, unsafe { ib::ibv_modify_qp(qp.as_ptr(), to, mask.0.cast_signed()) })
    }

    fn living(&self) -> Result<NonNull<ib::ibv_qp>> {
        self.qp.ok_or_else(|| Error::endpoint(ErrorKind::Aborted, "the queue pair was taken away"))
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        // What fails here fails because the device is gone, and then it touches nothing.
        let _ = self.take_away();
    }
}

/// Gives the queue pair, and how many bytes travel in a request.
fn make(domain: &ProtectionDomain, completions: &Completions, depth: Depth) -> Result<(NonNull<ib::ibv_qp>, u32)> {
    let mut refused = Error::operation(ErrorKind::Unsupported, "no way to make a queue pair");
    for inline in INLINE {
        let cap = ib::ibv_qp_cap {
            max_send_wr: depth.requests,
            max_recv_wr: depth.messages,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline_data: inline,
        };
        let mut wanted = ib::ibv_qp_init_attr {
            send_cq: completions.as_ptr(),
            recv_cq: completions.as_ptr(),
            cap,
            qp_type: ib::ibv_qp_type::IBV_QPT_RC,
            ..Default::default()
        };
        // SAFETY: the protection domain and the queue live, and are of one device; the attributes are a local.
        let qp = unsafe { ib::ibv_create_qp(domain.as_ptr().as_ptr(), &raw mut wanted) };
        match made("making a queue pair", qp) {
            Ok(qp) => return Ok((qp, wanted.cap.max_inline_data)),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}
