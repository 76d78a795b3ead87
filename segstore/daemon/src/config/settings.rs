//! The settings as somebody wrote them, and what is made of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use segstore::control::message::{OWN_LABELS, is_label};
use segstore::control::rdma::RdmaDevice;
use serde::{Deserialize, Deserializer};

use super::units::{duration, size};
use super::{Config, DirectoryAt, EtcdAt, LogFormat, Transport};

/// Every key. What is not said has a default.
#[derive(Args, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The node's name in the cluster [default: the host's name]
    #[arg(long, env = "SEGSTORED_NAME", value_name = "NAME")]
    pub name: Option<String>,
    /// Directory for what must survive a reboot [default: /var/lib/segstore]
    #[arg(long, env = "SEGSTORED_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Directory on tmpfs for replica memory [default: /dev/shm/segstore-NAME]
    #[arg(long, env = "SEGSTORED_MEMORY_DIR", value_name = "DIR")]
    pub memory_dir: Option<PathBuf>,
    /// Memory that replicas may take, as bytes (8GiB) or as a part of the machine's (50%) [default: 50%]
    #[arg(long, env = "SEGSTORED_MEMORY", value_name = "SIZE")]
    #[serde(default, deserialize_with = "size_or_number")]
    pub memory: Option<String>,
    /// Socket for the applications of this node [default: /run/segstore/segstored.sock]
    #[arg(long, env = "SEGSTORED_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Permission bits of that socket, octal [default: 666]
    #[arg(long, env = "SEGSTORED_SOCKET_MODE", value_name = "BITS")]
    pub socket_mode: Option<String>,
    /// Address for other daemons [default: 0.0.0.0:7420]
    #[arg(long, env = "SEGSTORED_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// How other daemons reach it, if not by the address that it listens on
    #[arg(long, env = "SEGSTORED_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Address for data over TCP [default: the host of `listen`, any port]
    #[arg(long, env = "SEGSTORED_DATA_LISTEN", value_name = "ADDRESS")]
    pub data_listen: Option<String>,
    /// How peers reach it, if not by the address that it listens on
    #[arg(long, env = "SEGSTORED_DATA_ADVERTISE", value_name = "ADDRESS")]
    pub data_advertise: Option<String>,
    /// Whether data over TCP is encrypted: a small write takes a little longer, a large one twice as long [default: false]
    #[arg(long, env = "SEGSTORED_ENCRYPT_DATA", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub encrypt_data: Option<bool>,
    /// Where the cluster's directory is kept: `self`, the address of the daemon that keeps it, or `etcd`
    #[arg(long, env = "SEGSTORED_DIRECTORY", value_name = "self|HOST:PORT|etcd")]
    pub directory: Option<String>,
    /// etcd's members, such as `https://192.0.2.1:2379`
    #[arg(long, env = "SEGSTORED_ETCD_ENDPOINTS", value_name = "URL,...", value_delimiter = ',')]
    pub etcd_endpoints: Option<Vec<String>>,
    /// What the names of this cluster's keys begin with: clusters that share an etcd have each their own [default: segstore/]
    #[arg(long, env = "SEGSTORED_ETCD_PREFIX", value_name = "TEXT")]
    pub etcd_prefix: Option<String>,
    /// File with the authority that etcd's certificates are of, in PEM
    #[arg(long, env = "SEGSTORED_ETCD_CA_FILE", value_name = "FILE")]
    pub etcd_ca_file: Option<PathBuf>,
    /// File with this node's certificate for etcd, in PEM
    #[arg(long, env = "SEGSTORED_ETCD_CERT_FILE", value_name = "FILE")]
    pub etcd_cert_file: Option<PathBuf>,
    /// File with the key of that certificate
    #[arg(long, env = "SEGSTORED_ETCD_KEY_FILE", value_name = "FILE")]
    pub etcd_key_file: Option<PathBuf>,
    /// A user of etcd
    #[arg(long, env = "SEGSTORED_ETCD_USER", value_name = "NAME")]
    pub etcd_user: Option<String>,
    /// File with the password of that user
    #[arg(long, env = "SEGSTORED_ETCD_PASSWORD_FILE", value_name = "FILE")]
    pub etcd_password_file: Option<PathBuf>,
    /// File with the cluster's secret, mode 600 [default: /etc/segstore/secret]
    #[arg(long, env = "SEGSTORED_SECRET_FILE", value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Whether the node only keeps replicas, and no application owns a segment here [default: false]
    #[arg(long, env = "SEGSTORED_STORAGE", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub storage: Option<bool>,
    /// What is said of the node, such as `zone=a,rack=3`: by it segments say where their replicas are to be
    #[arg(long, env = "SEGSTORED_LABELS", value_name = "KEY=VALUE,...", value_delimiter = ',')]
    pub labels: Option<Vec<String>>,
    /// Address for Prometheus, or `off` [default: 127.0.0.1:7421]
    #[arg(long, env = "SEGSTORED_METRICS", value_name = "ADDRESS|off")]
    pub metrics: Option<String>,
    /// After how long without a sign of life the node counts as dead [default: 3s]
    #[arg(long, env = "SEGSTORED_NODE_LEASE", value_name = "TIME")]
    pub node_lease: Option<String>,
    /// After how long a node that is down counts as gone for good, so that nothing is kept there any more, and nobody is waited for who
    /// owned a segment there, or `off` [default: 10m]
    #[arg(long, env = "SEGSTORED_NODE_GONE_AFTER", value_name = "TIME|off")]
    pub node_gone_after: Option<String>,
    /// Bytes in a second that replicas which are filled here may take together, such as 500MiB; 0 for no limit [default: 0]
    #[arg(long, env = "SEGSTORED_REPAIR_BANDWIDTH", value_name = "SIZE")]
    #[serde(default, deserialize_with = "size_or_number")]
    pub repair_bandwidth: Option<String>,
    /// What replicas are reached over: `auto`, `verbs`, `tcp` or `shm` [default: auto]
    #[arg(long, env = "SEGSTORED_TRANSPORT", value_name = "KIND")]
    pub transport: Option<String>,
    /// RDMA device, if not the first with an active port
    #[arg(long, env = "SEGSTORED_RDMA_DEVICE", value_name = "NAME")]
    pub rdma_device: Option<String>,
    /// Its address that peers find it by, if not the first one of RoCE v2
    #[arg(long, env = "SEGSTORED_RDMA_ADDRESS", value_name = "ADDRESS")]
    pub rdma_address: Option<String>,
    /// After how long without an answer by RDMA a node counts as out of reach; a device may take four times as long [default: 500ms]
    #[arg(long, env = "SEGSTORED_RDMA_PATIENCE", value_name = "TIME")]
    pub rdma_patience: Option<String>,
    /// Traffic class of what is sent by RDMA, by which switches choose what is lossless: 0 to 255 (on RoCE four times the DSCP) [default: 0]
    #[arg(long, env = "SEGSTORED_RDMA_TRAFFIC_CLASS", value_name = "NUMBER")]
    pub rdma_traffic_class: Option<u8>,
    /// Service level of what is sent by RDMA: 0 to 15 on InfiniBand, 0 to 7 on RoCE [default: 0]
    #[arg(long, env = "SEGSTORED_RDMA_SERVICE_LEVEL", value_name = "NUMBER")]
    pub rdma_service_level: Option<u8>,
    /// Which logs are written: error, warn, info, debug, trace, or a filter [default: info]
    #[arg(long, env = "SEGSTORED_LOG", value_name = "LEVEL")]
    pub log: Option<String>,
    /// How: `text` or `json` [default: text]
    #[arg(long, env = "SEGSTORED_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// File for the process number
    #[arg(long, env = "SEGSTORED_PID_FILE", value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
}

/// A size as text, or a plain number of bytes.
fn size_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "write it as a number of bytes, \"8GiB\" or \"50%\"")]
    enum Size {
        Text(String),
        Bytes(u64),
    }
    Ok(Some(match Size::deserialize(deserializer)? {
        Size::Text(text) => text,
        Size::Bytes(bytes) => bytes.to_string(),
    }))
}

macro_rules! lay_over {
    ($over:ident, $below:ident, $($key:ident),*) => {
        Settings { $($key: $over.$key.or($below.$key)),* }
    };
}

impl Settings {
    pub(super) fn from_file(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        toml::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// These, and where nothing is said, those.
    #[must_use]
    pub(super) fn over(self, below: Self) -> Self {
        let over = self;
        lay_over!(
            over,
            below,
            name,
            data_dir,
            memory_dir,
            memory,
            socket,
            socket_mode,
            listen,
            advertise,
            data_listen,
            data_advertise,
            encrypt_data,
            directory,
            etcd_endpoints,
            etcd_prefix,
            etcd_ca_file,
            etcd_cert_file,
            etcd_key_file,
            etcd_user,
            etcd_password_file,
            secret_file,
            storage,
            labels,
            metrics,
            node_lease,
            node_gone_after,
            repair_bandwidth,
            transport,
            rdma_device,
            rdma_address,
            rdma_patience,
            rdma_traffic_class,
            rdma_service_level,
            log,
            log_format,
            pid_file
        )
    }
}

/// Collects what is wrong, so that all of it can be told at once.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn take<T>(&mut self, key: &str, value: Result<T, String>, or: T) -> T {
        value.unwrap_or_else(|why| {
            self.0.push(format!("{key}: {why}"));
            or
        })
    }
}

pub(super) fn check(settings: Settings) -> Result<Config, Vec<String>> {
    let mut problems = Problems::default();
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    let directory = problems.take("directory", directory(&settings), DirectoryAt::Own);
    let name = problems.take("name", settings.name.map_or_else(host_name, Ok).and_then(check_name), String::new());
    let listen = settings.listen.unwrap_or_else(|| "0.0.0.0:7420".into());
    let listen = problems.take("listen", address(&listen), any);
    let data_listen = settings.data_listen.map_or(Ok(SocketAddr::new(listen.ip(), 0)), |text| address(&text));
    let data_listen = problems.take("data_listen", data_listen, any);
    let advertise = match settings.advertise {
        Some(advertise) => with_port(advertise),
        None => reachable(listen).map(|address| address.to_string()),
    };
    let advertise = problems.take("advertise", advertise, String::new());
    let data_advertise = match settings.data_advertise {
        Some(advertise) => address(&advertise),
        None => reachable(data_listen),
    };
    let data_advertise = problems.take("data_advertise", data_advertise, any);
    let metrics = settings.metrics.unwrap_or_else(|| "127.0.0.1:7421".into());
    let metrics = if metrics == "off" { Ok(None) } else { address(&metrics).map(Some) };
    let lease = settings.node_lease.unwrap_or_else(|| "3s".into());
    let transport = problems.take("transport", transport(settings.transport.as_deref()), Transport::Auto);
    let config = Config {
        data_dir: settings.data_dir.unwrap_or_else(|| "/var/lib/segstore".into()),
        memory_dir: settings.memory_dir.unwrap_or_else(|| format!("/dev/shm/segstore-{name}").into()),
        memory: problems.take("memory", size(settings.memory.as_deref().unwrap_or("50%")), 0),
        socket: settings.socket.unwrap_or_else(|| "/run/segstore/segstored.sock".into()),
        socket_mode: problems.take("socket_mode", octal(settings.socket_mode.as_deref().unwrap_or("666")), 0o666),
        secret_file: settings.secret_file.unwrap_or_else(|| "/etc/segstore/secret".into()),
        encrypt_data: settings.encrypt_data.unwrap_or(false),
        storage: settings.storage.unwrap_or(false),
        labels: problems.take("labels", labels(settings.labels.unwrap_or_default()), BTreeMap::new()),
        metrics: problems.take("metrics", metrics, None),
        node_lease: problems.take("node_lease", duration(&lease, Config::SHORTEST_LEASE), Config::SHORTEST_LEASE),
        node_gone_after: problems.take("node_gone_after", gone_after(settings.node_gone_after.as_deref()), None),
        repair_bandwidth: problems.take(
            "repair_bandwidth",
            size(settings.repair_bandwidth.as_deref().unwrap_or("0")),
            0,
        ),
        transport,
        rdma: RdmaDevice {
            wanted: matches!(transport, Transport::Auto | Transport::Verbs),
            name: settings.rdma_device,
            address: problems.take(
                "rdma_address",
                settings.rdma_address.as_deref().map(rdma_address).transpose(),
                None,
            ),
            patience: problems.take("rdma_patience", settings.rdma_patience.as_deref().map(patience).transpose(), None),
            traffic_class: settings.rdma_traffic_class.unwrap_or(0),
            service_level: problems.take("rdma_service_level", service_level(settings.rdma_service_level), 0),
        },
        log: settings.log.unwrap_or_else(|| "info".into()),
        log_format: problems.take("log_format", log_format(settings.log_format.as_deref()), LogFormat::Text),
        pid_file: settings.pid_file,
        name,
        directory,
        listen,
        advertise,
        data_listen,
        data_advertise,
    };
    if problems.0.is_empty() { Ok(config) } else { Err(problems.0) }
}

fn host_name() -> Result<String, String> {
    let name = nix::unistd::gethostname().map_err(|error| format!("the host has no name ({error}): set one"))?;
    name.into_string().map_err(|name| format!("{} is no text: set a name", name.display()))
}

fn check_name(name: String) -> Result<String, String> {
    let is_good = (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if is_good { Ok(name) } else { Err(format!("{name:?}: 1 to 63 letters, digits, and . _ -")) }
}

fn labels(texts: Vec<String>) -> Result<BTreeMap<String, String>, String> {
    let mut labels = BTreeMap::new();
    for text in texts {
        let (key, value) = text
            .split_once('=')
            .filter(|(key, value)| is_label(key) && is_label(value))
            .ok_or_else(|| format!("{text:?}: write it as zone=a, each side 1 to 63 letters, digits, and . _ / -"))?;
        if OWN_LABELS.contains(&key) {
            return Err(format!("{text:?}: every node has a label {key} of its own"));
        }
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(format!("{key} is said twice"));
        }
    }
    Ok(labels)
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no address: write it as 192.0.2.1:7420"))
}

fn rdma_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is no address: write it as 192.0.2.1, or as the address table shows it (fe80::1)")
    })
}

fn patience(text: &str) -> Result<Duration, String> {
    let (shortest, longest) = (Duration::from_millis(10), Duration::from_secs(60));
    let patience = duration(text, shortest)?;
    if patience <= longest { Ok(patience) } else { Err(format!("{text:?}: at most a minute")) }
}

fn service_level(level: Option<u8>) -> Result<u8, String> {
    match level.unwrap_or(0) {
        level @ 0..=15 => Ok(level),
        level => Err(format!("{level}: 0 to 15 on InfiniBand, 0 to 7 on RoCE")),
    }
}

fn with_port(text: String) -> Result<String, String> {
    let is_good = text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if is_good { Ok(text) } else { Err(format!("{text:?}: write it as host:7420")) }
}

/// An address that others can connect to; of an unspecified one, the host's own.
fn reachable(listen: SocketAddr) -> Result<SocketAddr, String> {
    if !listen.ip().is_unspecified() {
        return Ok(listen);
    }
    let own = own_address().ok_or("this host's address cannot be told: say how others reach it")?;
    Ok(SocketAddr::new(own, listen.port()))
}

/// The first address of an interface that is up and is not the loopback's; failing that, the loopback's.
fn own_address() -> Option<IpAddr> {
    let all: Vec<IpAddr> = nix::ifaddrs::getifaddrs()
        .ok()?
        .filter_map(|interface| interface.address?.as_sockaddr_in().map(|address| IpAddr::from(address.ip())))
        .collect();
    all.iter().find(|address| !address.is_loopback()).or(all.first()).copied()
}

fn octal(text: &str) -> Result<u32, String> {
    let bits = u32::from_str_radix(text.trim_start_matches("0o"), 8).ok().filter(|bits| *bits <= 0o777);
    bits.ok_or_else(|| format!("{text:?}: three octal digits, such as 660"))
}

fn directory(settings: &Settings) -> Result<DirectoryAt, String> {
    if settings.etcd_endpoints.is_some() && settings.directory.as_deref() != Some("etcd") {
        return Err("etcd's members are named: say directory = \"etcd\", or leave etcd_endpoints out".into());
    }
    match settings.directory.as_deref() {
        Some("self") => Ok(DirectoryAt::Own),
        Some("etcd") => EtcdAt::check(settings).map(DirectoryAt::Etcd),
        Some(other) => with_port(other.to_owned()).map(DirectoryAt::Other),
        None => {
            Err("say where the directory is: `self` on one node of the cluster, and that node's address on the others; or `etcd`"
                .into())
        }
    }
}

fn gone_after(text: Option<&str>) -> Result<Option<Duration>, String> {
    match text.unwrap_or("10m") {
        "off" => Ok(None),
        text => duration(text, Duration::from_secs(1)).map(Some).map_err(|why| format!("{why}; or off")),
    }
}

fn transport(text: Option<&str>) -> Result<Transport, String> {
    match text.unwrap_or("auto") {
        "auto" => Ok(Transport::Auto),
        "verbs" => Ok(Transport::Verbs),
        "shm" => Ok(Transport::Shm),
        "tcp" => Ok(Transport::Tcp),
        other => Err(format!("{other:?}: one of auto, verbs, tcp, shm")),
    }
}

fn log_format(text: Option<&str>) -> Result<LogFormat, String> {
    match text.unwrap_or("text") {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(format!("{other:?}: one of text, json")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_beats_the_file() {
        let flag = Settings { name: Some("a".into()), ..Settings::default() };
        let file = Settings { name: Some("b".into()), log: Some("debug".into()), ..Settings::default() };
        let both = flag.over(file);
        assert_eq!((both.name.as_deref(), both.log.as_deref()), (Some("a"), Some("debug")));
    }

    #[test]
    fn memory_may_be_a_number() {
        let memory = |text: &str| toml::from_str::<Settings>(text).map(|settings| settings.memory);
        assert_eq!(memory("memory = 5").unwrap_or_default().as_deref(), Some("5"));
        assert_eq!(memory("memory = \"8GiB\"").unwrap_or_default().as_deref(), Some("8GiB"));
        assert!(memory("memory = -5").is_err_and(|error| error.to_string().contains("a number of bytes")));
    }

    #[test]
    fn what_is_shown_is_read_as_the_same() {
        let some = Settings {
            name: Some("a".into()),
            directory: Some("self".into()),
            advertise: Some("host:1".into()),
            socket_mode: Some("660".into()),
            metrics: Some("off".into()),
            transport: Some("verbs".into()),
            rdma_device: Some("mlx5_0".into()),
            rdma_address: Some("192.0.2.1".into()),
            rdma_patience: Some("1s".into()),
            rdma_traffic_class: Some(106),
            rdma_service_level: Some(3),
            pid_file: Some("/run/a \"b\".pid".into()),
            node_lease: Some("1500ms".into()),
            labels: Some(vec!["zone=a".into(), "rack=3".into()]),
            node_gone_after: Some("1h".into()),
            repair_bandwidth: Some("5MiB".into()),
            ..Settings::default()
        };
        let config = check(some).expect("it is right");
        let again = check(toml::from_str(&config.to_toml()).expect("it is TOML")).expect("it is right");
        assert_eq!(again, config);
    }

    #[test]
    fn an_etcd_is_shown_and_read_as_the_same() {
        let some = Settings {
            name: Some("a".into()),
            advertise: Some("host:1".into()),
            directory: Some("etcd".into()),
            etcd_endpoints: Some(vec!["https://a:2379".into(), "https://b:2379".into()]),
            etcd_prefix: Some("one/".into()),
            etcd_ca_file: Some("/ca".into()),
            etcd_cert_file: Some("/cert".into()),
            etcd_key_file: Some("/key".into()),
            etcd_user: Some("u".into()),
            etcd_password_file: Some("/password".into()),
            ..Settings::default()
        };
        let config = check(some.clone()).expect("it is right");
        let again = check(toml::from_str(&config.to_toml()).expect("it is TOML")).expect("it is right");
        assert_eq!(again, config);
        let wrong: [fn(&mut Settings); 5] = [
            |settings| settings.etcd_endpoints = None,
            |settings| settings.etcd_prefix = Some("one".into()),
            |settings| settings.etcd_key_file = None,
            |settings| settings.etcd_user = None,
            |settings| settings.directory = Some("self".into()),
        ];
        for change in wrong {
            let mut settings = some.clone();
            change(&mut settings);
            let problems = check(settings).expect_err("it is wrong");
            assert!(problems.len() == 1 && problems[0].starts_with("directory: "), "{problems:?}");
        }
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let wrong = Settings {
            name: Some("a b".into()),
            listen: Some("here".into()),
            memory: Some("lots".into()),
            node_lease: Some("1ms".into()),
            transport: Some("pigeon".into()),
            rdma_address: Some("192.0.2.1:1".into()),
            rdma_patience: Some("5m".into()),
            rdma_service_level: Some(16),
            labels: Some(vec!["node=a".into()]),
            node_gone_after: Some("never".into()),
            repair_bandwidth: Some("fast".into()),
            ..Settings::default()
        };
        let problems = check(wrong).expect_err("all of it is wrong");
        for key in [
            "name",
            "listen",
            "memory",
            "node_lease",
            "transport",
            "rdma_address",
            "rdma_patience",
            "rdma_service_level",
            "labels",
            "node_gone_after",
            "repair_bandwidth",
            "directory",
        ] {
            assert!(problems.iter().any(|problem| problem.starts_with(&format!("{key}: "))), "{key} in {problems:?}");
        }
    }
}
