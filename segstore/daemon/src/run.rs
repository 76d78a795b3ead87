//! Puts the daemon together, in the order in which its parts need each other.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use segstore_transport::{Provider, Server, ServerOptions, Wait, shm::Shm, tcp::Tcp};
use segstored::cluster::{Membership, NodeEntry, View};
use segstored::config::{Config, DirectoryAt, EtcdAt, Transport};
use segstored::directory::{Directory, Embedded, Remote};
use segstored::lease::Keeper;
use segstored::node::{Calls, Care, Draining, Node, forget_orphans, forget_removed, tend_unowned};
use segstored::peers::tls::Identity;
use segstored::peers::{Channels, Peers, server};
use segstored::replicas::{Domains, Options, Replicas, SHM};
use segstored::sessions::{self, Sessions};
use segstored::{identity, metrics};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
/// What the transport calls them.
const VERBS: &str = "verbs";
const TCP: &str = "tcp";
/// How often to look for a device that was not there.
const LATE_RDMA: Duration = Duration::from_secs(5);
/// The other node that has this one's name.
type Namesake = watch::Receiver<Option<NodeEntry>>;

/// Runs until it is asked to stop.
pub(crate) fn run(config: Config) -> Result<(), Failure> {
    // One thread: with two each wakes the other, and what is slow is not done by either.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let ended = runtime.block_on(serve(config));
    // What blocks in the background does not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended
}

async fn serve(config: Config) -> Result<(), Failure> {
    let _locked = lock(&config.data_dir)?;
    let id = identity::node_id(&config.data_dir)?;
    let host = identity::host()?;
    let secret = Identity::from_file(&config.secret_file)?;
    let channels = Channels::new(secret.clone());
    let listener = listen(config.listen, "listen").await?;
    let address = with_port(&config.advertise, listener.local_addr()?.port());

    let (domains, _servers) = open_domains(&config)?;
    let options = Options {
        directory: config.memory_dir.clone(),
        node: id,
        budget: config.memory,
        domains,
        boot: host.clone(),
        repair_bandwidth: config.repair_bandwidth,
    };
    // Replicas that somebody may still write are copied, which takes seconds where they are large.
    let opening = tokio::task::spawn_blocking(move || Replicas::open(options));
    let keeper_in = |directory| Keeper::new(directory, config.node_lease, config.data_dir.join("lease"));
    let (replicas, keeper, directory, served) = match &config.directory {
        DirectoryAt::Own => {
            // Its leases begin when it is opened: not before those who hold them can be heard.
            let replicas = opening.await??;
            let own = open_directory(&config, &channels)?;
            (replicas, keeper_in(own.clone()), own.clone(), Some(own))
        }
        DirectoryAt::Other(_) | DirectoryAt::Etcd(_) => {
            let other = open_directory(&config, &channels)?;
            let keeper = keeper_in(other.clone());
            (keeper.meanwhile(opening).await??, keeper, other, None)
        }
    };
    let node = Arc::new(Node {
        id,
        name: config.name.clone(),
        host,
        storage: config.storage,
        keeps_directory: served.is_some(),
        draining: Draining::read(config.data_dir.join("draining")),
        care: Care::default(),
        rdma: config.rdma.clone(),
        directory: directory.clone(),
        view: View::new(config.node_gone_after),
        replicas: Arc::new(replicas),
        repairs_yield: AtomicBool::new(true),
        peers: Peers::new(id, channels),
        sessions: Sessions::open(config.data_dir.join("sessions.json")),
        lease_time: config.node_lease,
        lease: keeper.subscribe(),
        standing: keeper.standing(),
        changed: keeper.bell(),
    });

    let calls = Arc::new(Calls::new(node.clone()));
    let serving = tokio::spawn(server::run(listener, secret, calls, served));
    let memory_dir = std::path::absolute(&config.memory_dir)?;
    let entry = describe(node.clone(), address, memory_dir.display().to_string(), config.labels.clone());
    let membership = Membership::new(id, config.name.clone(), &config.memory_dir);
    let namesake = keeper.namesake();
    let mut keeping = tokio::spawn(keeper.run(membership, entry));
    tokio::spawn(node.view.clone().follow(directory));
    tokio::spawn(serve_late_rdma(node.clone()));
    tokio::spawn(forget_orphans(node.clone()));
    tokio::spawn(forget_removed(node.clone()));
    tokio::spawn(tend_unowned(node.clone()));
    tokio::spawn(node.sessions.clone().hold_again(node.clone()));
    tokio::spawn(node.sessions.clone().tell_of_unwanted(node.clone()));

    if let Some(address) = config.metrics {
        tokio::spawn(metrics::serve(listen(address, "metrics").await?, node.clone()));
    }
    tokio::select! {
        () = join(&node, &config, namesake) => {}
        ended = &mut keeping => return Err(ended.unwrap_or_else(|error| error.to_string()).into()),
    }
    let socket = sessions::bind(&config.socket, config.socket_mode)?;
    tokio::spawn(sessions::serve(socket, node.clone()));
    // Only from now on can they come back.
    tokio::spawn(node.sessions.clone().expect_former(node.clone(), config.node_lease));
    if let Some(file) = &config.pid_file {
        std::fs::write(file, format!("{}\n", std::process::id()))
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    tracing::info!(node = config.name, %id, socket = %config.socket.display(), "serving");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

    let ended = until_asked(serving, keeping).await;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let _ = std::fs::remove_file(&config.socket);
    if let Some(file) = &config.pid_file {
        let _ = std::fs::remove_file(file);
    }
    tracing::info!("stopped; the node's lease stands for {}", humantime::format_duration(config.node_lease));
    ended
}

/// Waits until the node is in the directory and has read who else is: before that it can serve nobody.
async fn join(node: &Node, config: &Config, namesake: Namesake) {
    let mut lease = node.lease.clone();
    let mut joined = std::pin::pin!(async {
        let _ = lease.wait_for(Option::is_some).await;
        node.view.until_seen(node.id).await;
    });
    if tokio::time::timeout(Duration::from_secs(2), &mut joined).await.is_ok() {
        return;
    }
    let other = namesake.borrow().clone();
    let whom = match (other, &config.directory) {
        (Some(other), _) => format!(
            "the name {}: a node whose daemon is at {} has it, until its lease is over or that daemon is stopped",
            other.name, other.address
        ),
        (None, DirectoryAt::Own) => "this daemon's own directory".to_owned(),
        (None, DirectoryAt::Other(address)) => format!("the directory that the daemon at {address} keeps"),
        (None, DirectoryAt::Etcd(etcd)) => format!("the directory in etcd ({})", etcd.endpoints.join(", ")),
    };
    tracing::warn!("waiting for {whom}");
    joined.await;
}

async fn until_asked(
    serving: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
    keeping: tokio::task::JoinHandle<String>,
) -> Result<(), Failure> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = keeping => Err(ended.unwrap_or_else(|error| error.to_string()).into()),
        ended = serving => Err(match ended {
            Ok(Ok(())) => "the server for other daemons has ended".into(),
            Ok(Err(error)) => format!("the server for other daemons: {error}").into(),
            Err(error) => format!("the server for other daemons: {error}").into(),
        }),
    }
}

/// One daemon to a data directory: nobody else uses it as long as this is held.
pub(crate) fn lock(data_dir: &Path) -> Result<Flock<File>, Failure> {
    let saying = |error: &dyn std::fmt::Display| format!("data_dir {}: {error}", data_dir.display());
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(|error| saying(&error))?;
    let path = data_dir.join("lock");
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|error| saying(&error))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut locked) => {
            locked.set_len(0)?;
            writeln!(locked, "{}", std::process::id())?;
            Ok(locked)
        }
        Err((_, _)) => {
            let pid = std::fs::read_to_string(&path).unwrap_or_default();
            Err(saying(&format!("another daemon uses it (process {}): stop that one, or set `data_dir`", pid.trim()))
                .into())
        }
    }
}

async fn listen(address: SocketAddr, key: &str) -> Result<TcpListener, Failure> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| {
        let ask = match error.kind() {
            ErrorKind::AddrInUse => "; which process listens there? (ss -ltnp)",
            ErrorKind::AddrNotAvailable => "; it is to be an address of this machine",
            _ => "",
        };
        format!("{key} {address}: {error}{ask}").into()
    })
}

/// An advertised address with the port that is listened on, where it names none.
fn with_port(advertise: &str, port: u16) -> String {
    match advertise.strip_suffix(":0") {
        Some(host) => format!("{host}:{port}"),
        None => advertise.to_owned(),
    }
}

fn open_domains(config: &Config) -> Result<(Domains, Vec<Server>), Failure> {
    let mut domains = Vec::new();
    let mut servers = Vec::new();
    let mut former = None;
    let directory = config.memory_dir.join("peers");
    if matches!(config.transport, Transport::Auto | Transport::Shm) {
        DirBuilder::new().recursive(true).mode(0o700).create(&config.memory_dir)?;
        domains.push((SHM.to_owned(), Shm::in_directory(directory).open()?));
    } else if directory.exists() {
        former = Some(Shm::in_directory(directory).open()?);
    }
    let rdma = config.rdma.wanted.then(|| config.rdma.open());
    match rdma {
        Some(Ok(rdma)) => domains.push((VERBS.to_owned(), rdma)),
        Some(Err(error)) if config.transport == Transport::Verbs => {
            return Err(format!("transport = \"verbs\": {error}").into());
        }
        Some(Err(error)) => tracing::info!("no RDMA, so other nodes are reached over TCP: {error}"),
        None => {}
    }
    if matches!(config.transport, Transport::Auto | Transport::Tcp) {
        let ended =
            |ended: &segstore_transport::tcp::Ended<'_>| tracing::debug!(from = %ended.from, "data: {}", ended.error);
        let tcp = Tcp::listening_on(config.data_listen).advertising(&[config.data_advertise]).telling(ended);
        let tcp = if config.encrypt_data { tcp.encrypted() } else { tcp }.open()?;
        let options = ServerOptions { name: "segstored-data".into(), cpus: Vec::new(), wait: Wait::default() };
        servers.push(Server::start(&tcp, &options)?);
        domains.push((TCP.to_owned(), tcp));
    }
    let domains = Domains::new(domains);
    Ok((former.map_or(domains.clone(), |shm| domains.with_former(shm)), servers))
}

/// Where the directory stands that this daemon keeps.
pub(crate) fn directory_file(config: &Config) -> PathBuf {
    config.data_dir.join("directory.redb")
}

/// The directory that is configured.
pub(crate) fn open_directory(config: &Config, channels: &Channels) -> Result<Arc<dyn Directory>, Failure> {
    Ok(match &config.directory {
        DirectoryAt::Own => Arc::new(Embedded::open(&directory_file(config))?),
        DirectoryAt::Other(address) => Arc::new(Remote::new(channels, address)?),
        DirectoryAt::Etcd(etcd) => open_etcd(etcd)?,
    })
}

/// What the configuration says of an etcd, in which nothing is asked so far.
#[cfg(feature = "etcd")]
pub(crate) fn open_etcd(etcd: &EtcdAt) -> Result<Arc<dyn Directory>, Failure> {
    let access = segstored::directory::etcd::Access::read(etcd)?;
    Ok(Arc::new(segstored::directory::Etcd::new(&access, &etcd.prefix)?))
}

#[cfg(not(feature = "etcd"))]
pub(crate) fn open_etcd(_: &EtcdAt) -> Result<Arc<dyn Directory>, Failure> {
    Err("directory = \"etcd\": this program was built without it; build it with --features segstored/etcd".into())
}

/// Opens the RDMA device when it comes later than the daemon, or its port or its address does.
async fn serve_late_rdma(node: Arc<Node>) {
    let is_served = || node.replicas.domains().names().iter().any(|name| name == VERBS);
    while cfg!(feature = "verbs") && node.rdma.wanted && !is_served() {
        tokio::time::sleep(LATE_RDMA).await;
        let rdma = node.rdma.clone();
        match tokio::task::spawn_blocking(move || rdma.open()).await {
            Ok(Ok(domain)) => {
                node.replicas.domains().add_before(TCP, VERBS, domain);
                node.changed.notify_one();
                tracing::info!("the RDMA device is there: other nodes are reached over it from here on");
            }
            Ok(Err(error)) => tracing::debug!("still no RDMA: {error}"),
            Err(error) => tracing::warn!("opening the RDMA device: {error}"),
        }
    }
}

/// The node's entry as it is now.
fn describe(
    node: Arc<Node>,
    address: String,
    memory_dir: String,
    labels: BTreeMap<String, String>,
) -> impl Fn() -> NodeEntry + Send {
    move || {
        let usage = node.replicas.usage();
        NodeEntry {
            node: node.id,
            name: node.name.clone(),
            address: address.clone(),
            host: node.host.clone(),
            providers: node.replicas.domains().names(),
            storage: node.storage,
            used: usage.used,
            budget: usage.budget,
            memory_dir: memory_dir.clone(),
            replicas: usage.replicas,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            directory: node.keeps_directory,
            labels: labels.clone(),
            draining: node.draining.is_on(),
        }
    }
}
