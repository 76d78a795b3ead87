//! How a daemon is set up: a TOML file; every key is also a flag and an environment variable. A flag beats the environment, the environment
//! beats the file.

mod etcd;
mod secret;
mod settings;
mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use segstore::control::rdma::RdmaDevice;

pub use etcd::EtcdAt;
pub use secret::read_secret;
pub use settings::Settings;
pub(crate) use units::shown;

/// Where the directory is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DirectoryAt {
    /// Here, on this daemon's disk.
    Own,
    /// With the daemon at this address.
    Other(String),
    /// In an etcd.
    Etcd(EtcdAt),
}

/// What replicas can be reached over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// Shared memory on one machine; otherwise RDMA where there is a device, and TCP where there is none, or it fails.
    Auto,
    /// RDMA only.
    Verbs,
    /// Shared memory only.
    Shm,
    /// TCP only.
    Tcp,
}

/// How logs are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// A daemon's configuration, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The node's name.
    pub name: String,
    /// What must survive a reboot.
    pub data_dir: PathBuf,
    /// Replica memory: on tmpfs.
    pub memory_dir: PathBuf,
    /// Bytes that replicas may take.
    pub memory: u64,
    /// The socket for clients.
    pub socket: PathBuf,
    /// Its permission bits.
    pub socket_mode: u32,
    /// Where other daemons come in.
    pub listen: SocketAddr,
    /// How they reach it; a port of zero: the one that is listened on.
    pub advertise: String,
    /// Where data comes in over TCP.
    pub data_listen: SocketAddr,
    /// How peers reach it; a port of zero: the one that is listened on.
    pub data_advertise: SocketAddr,
    /// Where the directory is.
    pub directory: DirectoryAt,
    /// The file with the cluster's secret.
    pub secret_file: PathBuf,
    /// Whether data over TCP is encrypted.
    pub encrypt_data: bool,
    /// Which RDMA device is used.
    pub rdma: RdmaDevice,
    /// Whether the node only keeps replicas.
    pub storage: bool,
    /// What is said of the node.
    pub labels: BTreeMap<String, String>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// After how long without a sign of life the node counts as dead.
    pub node_lease: Duration,
    /// After how long a node that is down counts as gone for good; none: never.
    pub node_gone_after: Option<Duration>,
    /// Bytes in a second that replicas which are filled here may take together; zero: without a limit.
    pub repair_bandwidth: u64,
    /// What replicas can be reached over.
    pub transport: Transport,
    /// Which logs are written.
    pub log: String,
    /// How.
    pub log_format: LogFormat,
    /// Where the process number is written.
    pub pid_file: Option<PathBuf>,
}

impl Config {
    /// The shortest time after which a node may count as dead.
    pub const SHORTEST_LEASE: Duration = Duration::from_millis(500);

    /// The values in effect, as they would stand in a file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let text = |value: &dyn std::fmt::Display| toml::Value::String(value.to_string());
        let path = |path: &Path| text(&path.display());
        let time = |time: Duration| text(&humantime::format_duration(time).to_string().replace(' ', ""));
        let number = |key, number: u8| (number > 0).then(|| (key, toml::Value::Integer(number.into())));
        let directory = match &self.directory {
            DirectoryAt::Own => "self",
            DirectoryAt::Other(address) => address,
            DirectoryAt::Etcd(_) => "etcd",
        };
        let (transport, log_format) = (format!("{:?}", self.transport), format!("{:?}", self.log_format));
        let keys = [
            ("name", text(&self.name)),
            ("data_dir", path(&self.data_dir)),
            ("memory_dir", path(&self.memory_dir)),
            ("memory", text(&self.memory)),
            ("socket", path(&self.socket)),
            ("socket_mode", text(&format_args!("{:o}", self.socket_mode))),
            ("listen", text(&self.listen)),
            ("advertise", text(&self.advertise)),
            ("data_listen", text(&self.data_listen)),
            ("data_advertise", text(&self.data_advertise)),
            ("directory", text(&directory)),
            ("secret_file", path(&self.secret_file)),
            ("encrypt_data", self.encrypt_data.into()),
            ("storage", self.storage.into()),
            ("metrics", self.metrics.map_or_else(|| text(&"off"), |address| text(&address))),
            ("node_lease", time(self.node_lease)),
            ("node_gone_after", self.node_gone_after.map_or_else(|| text(&"off"), time)),
            ("repair_bandwidth", text(&self.repair_bandwidth)),
            ("transport", text(&transport.to_lowercase())),
            ("log", text(&self.log)),
            ("log_format", text(&log_format.to_lowercase())),
        ];
        let rdma = [
            self.rdma.name.as_ref().map(|name| ("rdma_device", text(name))),
            self.rdma.address.as_ref().map(|address| ("rdma_address", text(address))),
            self.rdma.patience.map(|patience| ("rdma_patience", time(patience))),
            number("rdma_traffic_class", self.rdma.traffic_class),
            number("rdma_service_level", self.rdma.service_level),
        ];
        let labels = self.labels.iter().map(|(key, value)| text(&format_args!("{key}={value}"))).collect::<Vec<_>>();
        let labels = (!labels.is_empty()).then_some(("labels", toml::Value::Array(labels)));
        let pid_file = self.pid_file.as_deref().map(|file| ("pid_file", path(file)));
        let etcd = match &self.directory {
            DirectoryAt::Etcd(etcd) => etcd.to_toml(),
            DirectoryAt::Own | DirectoryAt::Other(_) => Vec::new(),
        };
        keys.into_iter()
            .chain(etcd)
            .chain(rdma.into_iter().flatten())
            .chain(labels)
            .chain(pid_file)
            .map(|(key, value)| format!("{key} = {value}\n"))
            .collect()
    }

    /// Reads the file, lays the other settings over it, and checks.
    ///
    /// # Errors
    /// Every problem, each with the key, its value and what to do.
    pub fn load(file: Option<&Path>, over: Settings) -> Result<Self, Vec<String>> {
        let below = match file {
            Some(file) => Settings::from_file(file).map_err(|error| vec![error])?,
            None => Settings::default(),
        };
        settings::check(over.over(below))
    }
}
