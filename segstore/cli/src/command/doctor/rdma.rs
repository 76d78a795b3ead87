//! Whether nodes can reach each other by RDMA, and what is missing: the device is opened as the daemon does it, and what the kernel says of
//! it is read from sysfs.

use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use segstore::Session;
use segstore::control::rdma::RdmaDevice;

use super::{Finding, Verdict};
use crate::output::units;

const DEVICES: &str = "/sys/class/infiniband";
const FILES: &str = "/dev/infiniband";
/// What gives devices to programs, as a module, and what it shows of them.
const MODULE: &str = "/sys/module/ib_uverbs";
const CLASS: &str = "/sys/class/infiniband_verbs";
/// What an interface needs for packets of 4 KiB, the most that RoCE has.
const LARGE_PACKETS: u32 = 4200;

/// A port, as the kernel tells of it.
struct Port {
    device: String,
    number: String,
    folder: PathBuf,
}

/// What there is to say of this machine, and of the daemon behind `socket` that `session` is with.
pub(super) fn look(session: Option<&Session>, socket: &Path) -> Vec<Finding> {
    let socket = session.map(|_| socket);
    let ports = ports();
    let wanted = session.map(Session::rdma).unwrap_or_default();
    let opened = wanted.describe();
    let mut findings = vec![device(&opened, &wanted, &ports)];
    if ports.is_empty() {
        return findings;
    }
    findings.extend(ports.iter().flat_map(|port| [port.look(), port.addresses()]));
    findings.extend([library(), locked_memory(socket)]);
    if let (Ok(_), Some(session)) = (&opened, session)
        && !session.providers().iter().any(|provider| provider == "verbs")
    {
        let remedy = "set `transport` to auto or verbs; build it with --features segstored/verbs; or, if the device is newer than it, \
                      restart it";
        findings.push(Finding::bad(
            "rdma in use",
            Verdict::Warning,
            "the daemon does not use the device".into(),
            remedy,
        ));
    }
    findings
}

fn device(opened: &Result<String, impl ToString>, wanted: &RdmaDevice, ports: &[Port]) -> Finding {
    let error = match opened {
        Ok(found) => return Finding::ok("rdma", found.clone()),
        Err(_) if ports.is_empty() && wanted.name.is_none() => {
            let modules = if is_loaded() { "" } else { " and ib_uverbs, which is not loaded" };
            let text = format!(
                "no device, so other nodes are reached over TCP; a card needs its kernel module (mlx5_ib, irdma, bnxt_re){modules}, and \
                 scripts/softroce up makes a device of an interface"
            );
            return Finding::ok("rdma", text);
        }
        Err(error) => error,
    };
    let remedy = if !cfg!(feature = "verbs") {
        "build it in: README.md says what that needs"
    } else if !is_loaded() {
        "modprobe ib_uverbs"
    } else if !Path::new(FILES).exists() {
        "/dev/infiniband is missing: in a container, pass it in (--device=/dev/infiniband); elsewhere udev makes it"
    } else if nix::unistd::access(&files(), nix::unistd::AccessFlags::R_OK | nix::unistd::AccessFlags::W_OK).is_err() {
        "let this user open /dev/infiniband/uverbs*: a udev rule (KERNEL==\"uverbs*\", MODE=\"0666\"), or its group"
    } else if wanted.name.is_some() || wanted.address.is_some() {
        "the daemon's configuration names it: correct `rdma_device` or `rdma_address`, by the ports and addresses below"
    } else {
        "see the ports below; the device's part of libibverbs is in the package ibverbs-providers (ibv_devinfo shows what it finds)"
    };
    Finding::bad("rdma", Verdict::Warning, error.to_string(), remedy)
}

/// Whether the kernel gives devices to programs; it may be built in.
fn is_loaded() -> bool {
    Path::new(MODULE).exists() || Path::new(CLASS).exists()
}

/// The first device file, or the folder where there is none.
fn files() -> PathBuf {
    let found = std::fs::read_dir(FILES).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut verbs: Vec<_> = found.filter(|path| path.to_string_lossy().contains("uverbs")).collect();
    verbs.sort();
    verbs.into_iter().next().unwrap_or_else(|| FILES.into())
}

/// The names in a folder, in order.
fn within(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Every port of every device, by name.
fn ports() -> Vec<Port> {
    let of_device = |device: String| {
        let folder = Path::new(DEVICES).join(&device).join("ports");
        let numbers = within(&folder);
        numbers.into_iter().map(move |number| Port { device: device.clone(), folder: folder.join(&number), number })
    };
    within(Path::new(DEVICES)).into_iter().flat_map(of_device).collect()
}

impl Port {
    /// The value of a file; empty where there is none.
    fn says(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.join(file)).unwrap_or_default().trim().to_owned()
    }

    /// Its state and its packets.
    fn look(&self) -> Finding {
        let (state, link, rate) = (self.says("state"), self.says("link_layer"), self.says("rate"));
        let state = state.split_once(": ").map_or(state.as_str(), |(_, state)| state);
        let name = format!("{} port {}: {}, {link}, {rate}", self.device, self.number, state.to_lowercase());
        let interface = self.says("gid_attrs/ndevs/0");
        if state != "ACTIVE" {
            let remedy = match (link.as_str(), state) {
                ("InfiniBand", "INIT") => {
                    "it waits for a subnet manager: start opensm on one node, or on the switch".to_owned()
                }
                ("InfiniBand", _) => "look at the cable and at the switch (ibstat)".to_owned(),
                _ => format!("ip link set {interface} up, and look at the cable and at the switch"),
            };
            return Finding::bad("rdma port", Verdict::Warning, name, remedy);
        }
        let mtu = std::fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).unwrap_or_default();
        match mtu.trim().parse::<u32>() {
            Ok(mtu) if link == "Ethernet" && mtu < LARGE_PACKETS => {
                let remedy = format!(
                    "ip link set {interface} mtu {LARGE_PACKETS} or more, on every node and switch: larger packets"
                );
                Finding::bad("rdma port", Verdict::Warning, format!("{name}; MTU {mtu} of {interface}"), remedy)
            }
            Ok(mtu) => Finding::ok("rdma port", format!("{name}; MTU {mtu} of {interface}")),
            Err(_) => Finding::ok("rdma port", name),
        }
    }

    /// Its table of addresses, of which the first line says which one is used.
    fn addresses(&self) -> Finding {
        let entry = |index: usize| {
            let address = short(&self.says(&format!("gids/{index}")))?;
            let kind = self.says(&format!("gid_attrs/types/{index}"));
            Some(format!("{index}: {address}{}", if kind.is_empty() { kind } else { format!(" ({kind})") }))
        };
        let found: Vec<_> = (0..within(&self.folder.join("gids")).len()).filter_map(entry).collect();
        let name = format!("{} port {}", self.device, self.number);
        if found.is_empty() {
            let remedy = "give the interface an IP address, or wait for the subnet manager";
            return Finding::bad("rdma addresses", Verdict::Warning, format!("{name}: none"), remedy);
        }
        Finding::ok("rdma addresses", format!("{name}: {}", found.join(", ")))
    }
}

/// The address as one writes it: the kernel writes every IPv4 one as if it were of IPv6.
fn short(gid: &str) -> Option<IpAddr> {
    let address: Ipv6Addr = gid.parse().ok()?;
    (!address.is_unspecified()).then(|| address.to_canonical())
}

/// What devices are reached by; it was found, or this program would not run.
fn library() -> Finding {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let path = maps.split_whitespace().find(|word| word.contains("/libibverbs.so"));
    Finding::ok("libibverbs", path.unwrap_or("this program was built without it").to_owned())
}

/// Registered memory is locked: what applications of this user may lock, and what the daemon may.
fn locked_memory(socket: Option<&Path>) -> Finding {
    let limits = [("here", Some("self".to_owned())), ("for the daemon", socket.and_then(daemon))];
    let limits = limits.into_iter().filter_map(|(whose, process)| Some((whose, lockable(&process?)?)));
    let (least, all): (Vec<_>, Vec<_>) = limits
        .map(|(whose, limit)| (limit, format!("{} {whose}", limit.map_or("unlimited".into(), units::size))))
        .unzip();
    let found = all.join(", ");
    if least.iter().all(Option::is_none) {
        return Finding::ok("locked memory", found);
    }
    Finding::bad(
        "locked memory",
        Verdict::Warning,
        format!("{found}: segments that go over RDMA are locked, and what cannot be goes over TCP"),
        "LimitMEMLOCK=infinity in the unit (scripts/segstored.service has it), or ulimit -l unlimited; of an application as well",
    )
}

/// The process that serves a socket.
fn daemon(socket: &Path) -> Option<String> {
    let stream = UnixStream::connect(socket).ok()?;
    let peer = getsockopt(&stream, PeerCredentials).ok()?;
    Some(peer.pid().to_string())
}

/// How many bytes a process may lock: `Some(None)` without a limit.
fn lockable(process: &str) -> Option<Option<u64>> {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).ok()?;
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?.split_whitespace().next()?;
    if soft == "unlimited" { Some(None) } else { soft.parse().ok().map(Some) }
}
