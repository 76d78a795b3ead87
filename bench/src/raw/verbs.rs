//! The raw verbs: a write or a read posted to a queue pair by hand and its completion polled for, with nothing between. A device's
//! address is the first of RoCE v2 with an IPv4 address.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ptr;

use ibverbs_sys as ib;
use segstore_transport::verbs::{Verbs, devices};
use segstore_transport::{Memory, Provider};

use crate::second::relax;
use crate::stream::Pipe;
use crate::{Result, Way};

/// So many bytes travel in the request itself, as over the provider.
const INLINE: usize = 128;
/// Reads that a queue pair has in flight: as many as every device serves.
const READS: u8 = 16;

const WRITE: ib::ibv_wr_opcode::Type = ib::ibv_wr_opcode::IBV_WR_RDMA_WRITE;
const READ: ib::ibv_wr_opcode::Type = ib::ibv_wr_opcode::IBV_WR_RDMA_READ;
/// What the other side may do.
const REMOTE: u32 = ib::ibv_access_flags::IBV_ACCESS_REMOTE_WRITE.0 | ib::ibv_access_flags::IBV_ACCESS_REMOTE_READ.0;

/// One end. What it is made of is left to the process's end.
struct Side {
    context: *mut ib::ibv_context,
    ops: ib::ibv_context_ops,
    cq: *mut ib::ibv_cq,
    qp: *mut ib::ibv_qp,
    mr: *mut ib::ibv_mr,
    memory: Memory,
    gid: ib::ibv_gid_entry,
}

/// The device that the provider takes unless it is told another.
///
/// # Errors
/// There is none with an active port.
pub fn first_device() -> Result<String> {
    let is_active = |name: &String| Verbs::new().device(name).open().is_ok();
    Ok(devices()?.into_iter().find(is_active).ok_or("no RDMA device has an active port")?)
}

/// Writes of `len` bytes to `count` places of another device, each until the completions are there.
///
/// # Errors
/// No such devices, or what they refuse.
pub fn write(from: &str, to: &str, len: usize, count: usize) -> Result<Way<'static>> {
    let mut lines: Vec<_> = (0..count).map(|_| Line::open(from, to, WRITE, len, len)).collect::<Result<_>>()?;
    let act = move || {
        lines.iter_mut().try_for_each(Line::post)?;
        lines.iter_mut().try_for_each(Line::complete)
    };
    Ok(Way { what: "raw verbs", other: None, act: Box::new(act) })
}

/// Reads of `len` bytes from another device, each until the completion is there.
///
/// # Errors
/// As [`write()`].
pub fn read(from: &str, to: &str, len: usize) -> Result<Way<'static>> {
    let mut line = Line::open(from, to, READ, len, len)?;
    let act = move || line.post().and_then(|()| line.complete());
    Ok(Way { what: "raw verbs", other: None, act: Box::new(act) })
}

/// Reads of `len` bytes from another device, into one place after the other of as much memory as `in_flight` of them need.
///
/// # Errors
/// As [`write()`].
pub fn reads(from: &str, to: &str, len: usize, in_flight: usize) -> Result<impl Pipe> {
    Line::open(from, to, READ, len, len * in_flight)
}

/// Two ends, and what goes over them.
struct Line {
    near: Side,
    far: Side,
    opcode: ib::ibv_wr_opcode::Type,
    len: usize,
    at: usize,
}

impl Line {
    fn open(from: &str, to: &str, opcode: ib::ibv_wr_opcode::Type, len: usize, memory: usize) -> Result<Self> {
        let (near, far) = (Side::open(from, memory)?, Side::open(to, memory)?);
        near.connect(&far)?;
        far.connect(&near)?;
        Ok(Self { near, far, opcode, len, at: 0 })
    }
}

impl Pipe for Line {
    fn post(&mut self) -> Result<()> {
        if self.at + self.len > self.near.memory.len() {
            self.at = 0;
        }
        self.near.post(&self.far, self.opcode, self.at, self.len)?;
        self.at += self.len;
        Ok(())
    }

    fn complete(&mut self) -> Result<()> {
        self.near.complete()
    }
}

fn made<T>(what: &str, pointer: *mut T) -> Result<*mut T> {
    if pointer.is_null() {
        return Err(format!("{what}: {}", std::io::Error::last_os_error()).into());
    }
    Ok(pointer)
}

fn done(what: &str, code: i32) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(format!("{what}: {code}").into()) }
}

fn device(name: &str) -> Result<*mut ib::ibv_context> {
    let mut len = 0;
    // SAFETY: the number goes into a local.
    let list = made("listing devices", unsafe { ib::ibv_get_device_list(&raw mut len) })?;
    for index in 0..usize::try_from(len)? {
        // SAFETY: the list has so many entries, and is never freed.
        let device = unsafe { *list.wrapping_add(index) };
        // SAFETY: a device of the list.
        let text = unsafe { ib::ibv_get_device_name(device) };
        // SAFETY: a string that ends with a zero.
        if unsafe { CStr::from_ptr(text) }.to_str() == Ok(name) {
            // SAFETY: a device of the list.
            return made("opening a device", unsafe { ib::ibv_open_device(device) });
        }
    }
    Err(format!("no RDMA device {name}").into())
}

fn address(context: *mut ib::ibv_context) -> Result<ib::ibv_gid_entry> {
    let mut table = vec![ib::ibv_gid_entry::default(); 64];
    let size = size_of::<ib::ibv_gid_entry>();
    // SAFETY: the context is open, and the table has room for so many entries of that size.
    let found = unsafe { ib::_ibv_query_gid_table(context, table.as_mut_ptr(), table.len(), 0, size) };
    // SAFETY: every bit pattern is sixteen bytes.
    let mapped = |gid: &ib::ibv_gid_entry| unsafe { gid.gid.raw }.starts_with(b"\0\0\0\0\0\0\0\0\0\0\xff\xff");
    let usable = |gid: &&ib::ibv_gid_entry| gid.gid_type == ib::IBV_GID_TYPE_ROCE_V2 && mapped(gid);
    table.iter().take(usize::try_from(found)?).find(usable).copied().ok_or_else(|| "no address of RoCE v2".into())
}

impl Side {
    fn open(name: &str, len: usize) -> Result<Self> {
        let (context, memory) = (device(name)?, Memory::anonymous(len)?);
        memory.write_at(0, &vec![1; len])?;
        let gid = address(context)?;
        // SAFETY: the context is open, and its table does not change.
        let ops = unsafe { (*context).ops };
        // SAFETY: the context is open.
        let pd = made("a protection domain", unsafe { ib::ibv_alloc_pd(context) })?;
        // SAFETY: as above; there is no channel.
        let cq = unsafe { ib::ibv_create_cq(context, 16, ptr::null_mut(), ptr::null_mut(), 0) };
        let cq = made("a completion queue", cq)?;
        let access = ib::ibv_access_flags::IBV_ACCESS_LOCAL_WRITE.0 | REMOTE;
        // SAFETY: the range is mapped as long as this side lives.
        let mr = unsafe { ib::ibv_reg_mr(pd, memory.as_ptr().cast(), len, access.cast_signed()) };
        let mr = made("registering memory", mr)?;
        let max_inline_data = u32::try_from(INLINE)?;
        let cap = ib::ibv_qp_cap { max_send_wr: 16, max_recv_wr: 1, max_send_sge: 1, max_recv_sge: 1, max_inline_data };
        let qp_type = ib::ibv_qp_type::IBV_QPT_RC;
        let mut wanted = ib::ibv_qp_init_attr { send_cq: cq, recv_cq: cq, cap, qp_type, ..Default::default() };
        // SAFETY: everything named is of this context.
        let qp = made("a queue pair", unsafe { ib::ibv_create_qp(pd, &raw mut wanted) })?;
        Ok(Self { context, ops, cq, qp, mr, memory, gid })
    }

    fn connect(&self, there: &Self) -> Result<()> {
        use ib::ibv_qp_attr_mask as mask;
        // SAFETY: the other queue pair lives; its number was set when it was made.
        let dest_qp_num = unsafe { (*there.qp).qp_num };
        let sgid_index = u8::try_from(self.gid.gid_index)?;
        let grh = ib::ibv_global_route { dgid: there.gid.gid, sgid_index, hop_limit: 64, ..Default::default() };
        let ah_attr = ib::ibv_ah_attr { grh, is_global: 1, port_num: 1, ..Default::default() };
        let mut port = ib::ibv_port_attr::default();
        // SAFETY: the context is open; the older structure is the beginning of the newer.
        done("a port", unsafe { ib::ibv_query_port(self.context, 1, (&raw mut port).cast()) })?;
        let path_mtu = port.active_mtu;
        let state = |qp_state| ib::ibv_qp_attr { qp_state, ..Default::default() };
        let prepared =
            ib::ibv_qp_attr { port_num: 1, qp_access_flags: REMOTE, ..state(ib::ibv_qp_state::IBV_QPS_INIT) };
        let receiving = ib::ibv_qp_attr {
            path_mtu,
            dest_qp_num,
            ah_attr,
            max_dest_rd_atomic: READS,
            min_rnr_timer: 12,
            ..state(ib::ibv_qp_state::IBV_QPS_RTR)
        };
        let sending = ib::ibv_qp_attr {
            timeout: 14,
            retry_cnt: 6,
            rnr_retry: 6,
            max_rd_atomic: READS,
            ..state(ib::ibv_qp_state::IBV_QPS_RTS)
        };
        let steps = [
            (prepared, mask::IBV_QP_PKEY_INDEX | mask::IBV_QP_PORT | mask::IBV_QP_ACCESS_FLAGS),
            (
                receiving,
                mask::IBV_QP_AV
                    | mask::IBV_QP_PATH_MTU
                    | mask::IBV_QP_DEST_QPN
                    | mask::IBV_QP_RQ_PSN
                    | mask::IBV_QP_MAX_DEST_RD_ATOMIC
                    | mask::IBV_QP_MIN_RNR_TIMER,
            ),
            (
                sending,
                mask::IBV_QP_SQ_PSN
                    | mask::IBV_QP_TIMEOUT
                    | mask::IBV_QP_RETRY_CNT
                    | mask::IBV_QP_RNR_RETRY
                    | mask::IBV_QP_MAX_QP_RD_ATOMIC,
            ),
        ];
        for (mut attributes, which) in steps {
            let which = (mask::IBV_QP_STATE | which).0.cast_signed();
            // SAFETY: the queue pair lives; the attributes are a local.
            done("changing a queue pair", unsafe { ib::ibv_modify_qp(self.qp, &raw mut attributes, which) })?;
        }
        Ok(())
    }

    fn post(&self, there: &Self, opcode: ib::ibv_wr_opcode::Type, at: usize, len: usize) -> Result<()> {
        // SAFETY: the registration lives; the key was set when it was made.
        let lkey = unsafe { (*self.mr).lkey };
        // SAFETY: as above.
        let rkey = unsafe { (*there.mr).rkey };
        let addr = self.memory.as_ptr().addr() as u64 + at as u64;
        let mut piece = ib::ibv_sge { addr, length: u32::try_from(len)?, lkey };
        let is_inline = opcode == WRITE && len <= INLINE;
        let inline = if is_inline { ib::ibv_send_flags::IBV_SEND_INLINE.0 } else { 0 };
        let mut request = ib::ibv_send_wr {
            sg_list: &raw mut piece,
            num_sge: 1,
            opcode,
            send_flags: ib::ibv_send_flags::IBV_SEND_SIGNALED.0 | inline,
            ..Default::default()
        };
        request.wr.rdma.remote_addr = there.memory.as_ptr().addr() as u64 + at as u64;
        request.wr.rdma.rkey = rkey;
        let mut refused = ptr::null_mut();
        let post = self.ops.post_send.ok_or("the driver has no queue pairs")?;
        // SAFETY: the driver copies the request; the memory it names lives as long as this side.
        done("posting a request", unsafe { post(self.qp, &raw mut request, &raw mut refused) })
    }

    fn complete(&self) -> Result<()> {
        let poll = self.ops.poll_cq.ok_or("the driver has no completion queues")?;
        let mut found = MaybeUninit::<ib::ibv_wc>::uninit();
        // SAFETY: there is room for one completion.
        while unsafe { poll(self.cq, 1, found.as_mut_ptr()) } == 0 {
            relax();
        }
        // SAFETY: the driver filled it.
        let found = unsafe { found.assume_init() };
        found.error().map_or(Ok(()), |(status, _)| Err(format!("a raw request failed: {status}").into()))
    }
}
