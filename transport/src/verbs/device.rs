//! An open device: its port, its address there, and its limits.

use std::ffi::CStr;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use ibverbs_sys as ib;

use super::events::{Events, Health};
use super::gid::{self, Entry, Kind, Wanted};
use super::options::Options;
use super::sys::{Driver, check, made};
use super::wire::packet;
use crate::{Error, ErrorKind, Result};

/// The longest single transfer that is asked of a device, in bytes, even if it takes longer ones.
const MAX_MESSAGE: u32 = 1 << 30;
/// So many addresses of a device are looked at.
const MAX_GIDS: usize = 1024;

/// An open context. Everything that is made from a device holds it open.
pub(super) struct Context(NonNull<ib::ibv_context>);

// SAFETY: verbs may be called from any thread; the pointer is only given to them.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    pub(super) fn as_ptr(&self) -> *mut ib::ibv_context {
        self.0.as_ptr()
    }

    /// The device's name.
    fn name(&self) -> String {
        // SAFETY: the context is open; the field was set before it was given out.
        let device = unsafe { (*self.0.as_ptr()).device };
        NonNull::new(device).map(name).unwrap_or_default()
    }

    /// Readable when the device has something to say.
    pub(super) fn events(&self) -> BorrowedFd<'_> {
        // SAFETY: the context is open; the field was set before it was given out.
        let fd = unsafe { (*self.0.as_ptr()).async_fd };
        // SAFETY: the descriptor is open as long as the context.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was opened by `ibv_open_device`, and whatever was made from it held it, so is gone.
        let _ = unsafe { ib::ibv_close_device(self.0.as_ptr()) };
    }
}

/// The port that is used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Port {
    pub(super) number: u8,
    pub(super) lid: u16,
    pub(super) link: u8,
    pub(super) mtu: u8,
    pub(super) gid: Entry,
    pub(super) max_message: u32,
}

impl Port {
    fn is_ethernet(&self) -> bool {
        u32::from(self.link) == ib::IBV_LINK_LAYER_ETHERNET
    }
}

/// What of a device's limits matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Reads that a queue pair has in flight, and that it serves.
    pub(super) reads: (u8, u8),
    pub(super) windows: bool,
    pub(super) atomics: ib::ibv_atomic_cap,
}

pub(super) struct Device {
    // Field order is drop order: the thread ends before the context closes.
    _events: Events,
    pub(super) context: Arc<Context>,
    pub(super) driver: Driver,
    /// As it was when it was opened.
    pub(super) port: Port,
    /// Which of its addresses is used.
    wanted: Wanted,
    pub(super) limits: Limits,
    pub(super) health: Arc<Health>,
}

impl Device {
    pub(super) fn open(options: &Options) -> Result<Device> {
        let list = List::new()?;
        let (context, port) = match &options.device {
            Some(name) => list.open(name)?,
            None => list.first_active()?,
        };
        // SAFETY: the context is open, and the device that keeps the functions keeps it.
        let driver = unsafe { Driver::of(context.0) }?;
        let limits = limits(&context, &driver)?;
        check_service_level(&port, options.service_level)?;
        let port = addressed(&context, port, options.gid)?;
        let health = Arc::new(Health::new(&context.name(), port.number));
        let context = Arc::new(context);
        let _events = Events::start(context.clone(), health.clone())?;
        Ok(Device { _events, context, driver, port, wanted: options.gid, limits, health })
    }

    /// The port as it is now: its addresses come and go, with those of its interface, or with the subnet's manager.
    pub(super) fn port_now(&self) -> Result<Port> {
        let port = query(&self.context, self.port.number)?.unwrap_or(self.port);
        addressed(&self.context, port, self.wanted)
    }
}

/// On Ethernet it is the priority of a VLAN, of which there are eight.
fn check_service_level(port: &Port, level: u8) -> Result<()> {
    if port.is_ethernet() && level > 7 {
        return Err(Error::invalid(format!("service level {level}: RoCE has 0 to 7 (`rdma_service_level`)")));
    }
    Ok(())
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Port { number, mtu, gid, .. } = self.port;
        let device = self.context.name();
        let link = if self.port.is_ethernet() { "Ethernet" } else { "InfiniBand" };
        let windows = if self.limits.windows { "with" } else { "without" };
        let packet = packet(mtu);
        write!(f, "{device} port {number}, {link}, address {gid}, packets of {packet} bytes, {windows} memory windows")
    }
}

/// The names of this machine's devices.
pub(super) fn names() -> Result<Vec<String>> {
    let list = List::new()?;
    Ok(list.devices().map(name).collect())
}

/// The devices there are.
struct List {
    first: NonNull<*mut ib::ibv_device>,
    len: usize,
}

impl List {
    fn new() -> Result<List> {
        let mut len = 0;
        // SAFETY: the number goes into a local.
        let first = made("listing the RDMA devices", unsafe { ib::ibv_get_device_list(&raw mut len) })?;
        Ok(List { first, len: usize::try_from(len).unwrap_or(0) })
    }

    fn devices(&self) -> impl Iterator<Item = NonNull<ib::ibv_device>> {
        let entry = |index| {
            // SAFETY: the list has so many entries.
            let entry = unsafe { self.first.add(index) };
            // SAFETY: the list lives as long as `self`.
            unsafe { entry.read() }
        };
        (0..self.len).map(entry).filter_map(NonNull::new)
    }

    fn open(&self, wanted: &str) -> Result<(Context, Port)> {
        let found = self.devices().find(|device| name(*device) == wanted).ok_or_else(|| {
            let names: Vec<String> = self.devices().map(name).collect();
            let there = if names.is_empty() { "it has none".into() } else { names.join(", ") };
            Error::invalid(format!("no RDMA device {wanted} on this machine; what it has: {there}"))
        })?;
        let context = open(found)?;
        let port = active(&context)?.ok_or_else(|| {
            let text = format!("no port of {wanted} is active: look at its link (ibv_devinfo shows it)");
            Error::operation(ErrorKind::PeerGone, text)
        })?;
        Ok((context, port))
    }

    /// The first device that has a link. One that cannot be opened stands in the way of none after it.
    fn first_active(&self) -> Result<(Context, Port)> {
        let mut broken = None;
        for device in self.devices() {
            match open(device).and_then(|context| Ok(active(&context)?.map(|port| (context, port)))) {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(error) => broken = broken.or(Some(error)),
            }
        }
        let text = "no RDMA device with an active port on this machine: ibv_devinfo shows what there is";
        Err(broken.unwrap_or_else(|| Error::operation(ErrorKind::Unsupported, text)))
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: it came from `ibv_get_device_list`, and is freed once. Devices that were opened stay.
        unsafe { ib::ibv_free_device_list(self.first.as_ptr()) };
    }
}

fn name(device: NonNull<ib::ibv_device>) -> String {
    // SAFETY: the device is of a list that lives.
    let name = unsafe { ib::ibv_get_device_name(device.as_ptr()) };
    // SAFETY: it is a string that ends with a zero, and lives as long as the device.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

fn open(device: NonNull<ib::ibv_device>) -> Result<Context> {
    // SAFETY: the device is of a list that lives.
    let context = unsafe { ib::ibv_open_device(device.as_ptr()) };
    made(&format!("opening the RDMA device {}", name(device)), context).map(Context)
}

/// The first active port, without an address yet.
fn active(context: &Context) -> Result<Option<Port>> {
    for number in 1..=attributes(context)?.phys_port_cnt {
        if let Some(port) = query(context, number)? {
            return Ok(Some(port));
        }
    }
    Ok(None)
}

/// A port, if it is active, without an address yet.
fn query(context: &Context, number: u8) -> Result<Option<Port>> {
    let mut port = ib::ibv_port_attr::default();
    // SAFETY: the context is open. The older structure that the function fills is the beginning of the newer.
    let code = unsafe { ib::ibv_query_port(context.as_ptr(), number, (&raw mut port).cast()) };
    check("asking for a port's state", code)?;
    let unknown = Entry { index: 0, kind: Kind::RoceV2, gid: [0; 16] };
    Ok((port.state == ib::ibv_port_state::IBV_PORT_ACTIVE).then(|| Port {
        number,
        lid: port.lid,
        // Devices from before there was a choice say nothing.
        link: port.link_layer.max(1),
        mtu: u8::try_from(port.active_mtu).unwrap_or(1),
        gid: unknown,
        max_message: port.max_msg_sz.min(MAX_MESSAGE),
    }))
}

/// The same with its address.
fn addressed(context: &Context, port: Port, wanted: Wanted) -> Result<Port> {
    Ok(Port { gid: gid::choose(&table(context, &port)?, wanted)?, ..port })
}

fn attributes(context: &Context) -> Result<ib::ibv_device_attr> {
    let mut attributes = ib::ibv_device_attr::default();
    // SAFETY: the context is open; the attributes are a local.
    let code = unsafe { ib::ibv_query_device(context.as_ptr(), &raw mut attributes) };
    check("asking for a device's limits", code).map(|()| attributes)
}

fn limits(context: &Context, driver: &Driver) -> Result<Limits> {
    let about = attributes(context)?;
    let type_2 = ib::IBV_DEVICE_MEM_WINDOW_TYPE_2A | ib::IBV_DEVICE_MEM_WINDOW_TYPE_2B;
    let reads = |limit| u8::try_from(limit).unwrap_or(u8::MAX);
    let reads = (reads(about.max_qp_init_rd_atom), reads(about.max_qp_rd_atom));
    if reads.0 == 0 || reads.1 == 0 {
        return Err(Error::operation(ErrorKind::Unsupported, "the device has no one-sided reads"));
    }
    Ok(Limits {
        reads,
        windows: about.device_cap_flags & type_2 != 0 && driver.has_windows(),
        atomics: about.atomic_cap,
    })
}

/// The addresses of a port.
fn table(context: &Context, port: &Port) -> Result<Vec<Entry>> {
    let mut entries = vec![ib::ibv_gid_entry::default(); MAX_GIDS];
    let size = size_of::<ib::ibv_gid_entry>();
    // SAFETY: the context is open, and there is room for so many entries of that size.
    let found = unsafe { ib::_ibv_query_gid_table(context.as_ptr(), entries.as_mut_ptr(), entries.len(), 0, size) };
    let found = usize::try_from(found).map_err(|_| {
        let code = i32::try_from(found.unsigned_abs()).unwrap_or(0);
        Error::system("asking for a device's addresses", std::io::Error::from_raw_os_error(code))
    })?;
    let of_port = entries.iter().take(found).filter(|entry| entry.port_num == u32::from(port.number));
    Ok(of_port.filter_map(entry).collect())
}

fn entry(raw: &ib::ibv_gid_entry) -> Option<Entry> {
    let kind = match raw.gid_type {
        ib::IBV_GID_TYPE_IB => Kind::InfiniBand,
        ib::IBV_GID_TYPE_ROCE_V1 => Kind::RoceV1,
        ib::IBV_GID_TYPE_ROCE_V2 => Kind::RoceV2,
        _ => return None,
    };
    // SAFETY: every bit pattern is sixteen bytes.
    let gid = unsafe { raw.gid.raw };
    Some(Entry { index: u8::try_from(raw.gid_index).ok()?, kind, gid })
}
