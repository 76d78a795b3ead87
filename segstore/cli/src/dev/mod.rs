//! A cluster on this machine: daemons as processes of their own, which stay when `segctl` has gone.

mod config;
mod node;
mod ports;

pub(crate) use node::daemon;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use segstore::Session;
use serde::Serialize;

use crate::arguments::Up;
use crate::exit::Failure;
use crate::output::progress;
use node::Node;

/// How long daemons may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
/// The most nodes of a cluster.
const MOST: usize = 64;

/// A daemon that is up.
#[derive(Serialize)]
pub(crate) struct Started {
    pub(crate) name: String,
    pub(crate) pid: i32,
    pub(crate) socket: PathBuf,
    /// Where it serves Prometheus.
    pub(crate) metrics: Option<String>,
}

impl Started {
    fn of(node: &Node) -> Option<Self> {
        Some(Self { name: node.name(), pid: node.pid()?, socket: node.socket(), metrics: node.metrics() })
    }
}

/// Starts what is not running. After a failure nothing runs that did not before.
pub(crate) fn up(up: &Up) -> Result<Vec<Started>, Failure> {
    if !(1..=MOST).contains(&up.nodes) {
        return Err(Failure::Usage(format!("--nodes {}: 1 to {MOST}", up.nodes)));
    }
    // Its folders, and the first file in it.
    let secret = up.dir.join("secret");
    let is_new = |path: &&Path| !path.as_os_str().is_empty() && path.symlink_metadata().is_err();
    let new: Vec<_> = secret.ancestors().take_while(is_new).collect();
    let prepared = prepare(up);
    if prepared.is_err() {
        for path in new {
            let _ = if path.is_dir() { std::fs::remove_dir(path) } else { std::fs::remove_file(path) };
        }
    }
    let (dir, mut nodes) = prepared?;
    let address = ports::directory(&dir)?;
    let mut ours = Vec::new();
    let started = start(&mut nodes, up, &address, &mut ours);
    if started.is_err() {
        for at in ours {
            if let Err(failure) = nodes[at].stop() {
                eprintln!("segctl: {failure}");
            }
        }
    }
    started
}

/// Makes the folder and the cluster's secret, and checks what the user chose.
fn prepare(up: &Up) -> Result<(PathBuf, Vec<Node>), Failure> {
    let saying = |error: std::io::Error| Failure::Usage(format!("--dir {}: {error}", up.dir.display()));
    std::fs::create_dir_all(&up.dir).map_err(saying)?;
    let dir = up.dir.canonicalize().map_err(saying)?;
    let nodes: Vec<_> = (1..=up.nodes).map(|number| Node::new(&dir, number)).collect();
    nodes.iter().try_for_each(Node::check_socket)?;
    secret(&dir)?;
    config::check(up, &dir)?;
    Ok((dir, nodes))
}

/// Notes those that were started here.
fn start(nodes: &mut [Node], up: &Up, address: &str, ours: &mut Vec<usize>) -> Result<Vec<Started>, Failure> {
    for (at, node) in nodes.iter_mut().enumerate() {
        if node.pid().is_some() {
            node.tell_what_differs(up);
        } else {
            ours.push(at);
            node.start(up, address)?;
        }
    }
    let spinner = progress::spinner("waiting for the nodes to see each other");
    let started = until_up(nodes);
    spinner.finish_and_clear();
    started
}

/// Stops every daemon of the directory, and removes what they know and have in memory; gives how many there were.
pub(crate) fn down(dir: &Path) -> Result<usize, Failure> {
    let dir = dir.canonicalize().map_err(|error| Failure::Usage(format!("--dir {}: {error}", dir.display())))?;
    let nodes: Vec<_> = (1..=MOST).map(|number| Node::new(&dir, number)).filter(Node::exists).collect();
    if nodes.is_empty() {
        return Err(Failure::Usage(format!("{}: no cluster was started here", dir.display())));
    }
    // All are asked before any is waited for.
    let asked: Vec<_> = nodes.iter().map(Node::terminate).collect::<Result<_, _>>()?;
    for (node, pid) in nodes.iter().zip(&asked) {
        if let Some(pid) = *pid {
            node.await_end(pid)?;
        }
        node.clear()?;
    }
    // Without the memory there is no segment: its name would only be in the way of the next one.
    nodes.iter().try_for_each(Node::forget)?;
    Ok(asked.iter().flatten().count())
}

/// The cluster's secret, made once.
fn secret(dir: &Path) -> Result<(), Failure> {
    let file = dir.join("secret");
    let saying = |error: std::io::Error| Failure::File(format!("{}: {error}", file.display()));
    if file.exists() {
        return Ok(());
    }
    let mut random = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| std::io::Read::read_exact(&mut source, &mut random))
        .map_err(saying)?;
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
    made.and_then(|mut made| made.write_all(text.as_bytes())).map_err(saying)
}

fn until_up(nodes: &[Node]) -> Result<Vec<Started>, Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        let is_late = Instant::now() > until;
        let waits = nodes.iter().find(|node| node.pid().is_none() || !sees(node, nodes.len()));
        let Some(waits) = waits else { break };
        // Whoever has ended is why another one waits.
        if let Some(failed) = nodes.iter().find(|node| node.has_failed()).or(is_late.then_some(waits)) {
            return Err(Failure::Unwell(format!(
                "node {} does not come up; its log ends with:\n{}",
                failed.name(),
                failed.last_words()
            )));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(nodes.iter().filter_map(Started::of).collect())
}

fn sees(node: &Node, count: usize) -> bool {
    let nodes = Session::connect_to(node.socket()).and_then(|session| session.nodes());
    nodes.is_ok_and(|nodes| nodes.iter().filter(|node| node.up).count() >= count)
}
