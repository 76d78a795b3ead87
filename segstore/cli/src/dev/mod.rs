//! A cluster on this machine: daemons as processes of their own, which stay when `segctl` has gone.

mod node;

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

/// A daemon that is up.
#[derive(Serialize)]
pub(crate) struct Started {
    pub(crate) name: String,
    pub(crate) pid: i32,
    pub(crate) socket: PathBuf,
}

/// Starts what is not running.
pub(crate) fn up(up: &Up) -> Result<Vec<Started>, Failure> {
    if !(1..=64).contains(&up.nodes) {
        return Err(Failure::Usage(format!("--nodes {}: 1 to 64", up.nodes)));
    }
    let saying = |error: std::io::Error| Failure::File(format!("{}: {error}", up.dir.display()));
    std::fs::create_dir_all(&up.dir).map_err(saying)?;
    let dir = up.dir.canonicalize().map_err(saying)?;
    secret(&dir)?;
    let address = directory_address(&dir)?;
    let nodes: Vec<_> = (1..=up.nodes).map(|number| Node::new(&dir, number)).collect();
    for node in &nodes {
        if node.pid().is_none() {
            node.start(up, &address)?;
        }
    }
    let spinner = progress::spinner("waiting for the nodes to see each other");
    let started = until_up(&nodes);
    spinner.finish_and_clear();
    started
}

/// Stops every daemon of the directory, and removes their memory; gives how many there were.
pub(crate) fn down(dir: &Path) -> Result<usize, Failure> {
    let dir = dir.canonicalize().map_err(|error| Failure::File(format!("{}: {error}", dir.display())))?;
    let nodes: Vec<_> = (1..=64).map(|number| Node::new(&dir, number)).filter(Node::exists).collect();
    if nodes.is_empty() {
        return Err(Failure::Usage(format!("{}: no cluster was started here", dir.display())));
    }
    let stopping: Vec<_> = nodes.iter().map(|node| (node, node.terminate())).collect();
    let stopped = stopping.iter().filter(|(_, pid)| pid.is_some()).count();
    for (node, pid) in stopping {
        if let Some(pid) = pid {
            node.await_end(pid);
        }
        node.clear()?;
    }
    Ok(stopped)
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

/// Where the first node listens for the others: chosen once, so that they find it again after a restart.
fn directory_address(dir: &Path) -> Result<String, Failure> {
    let file = dir.join("directory-address");
    let saying = |error: std::io::Error| Failure::File(format!("{}: {error}", file.display()));
    if let Ok(address) = std::fs::read_to_string(&file) {
        return Ok(address.trim().to_owned());
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(saying)?;
    std::fs::write(&file, free.to_string()).map_err(saying)?;
    Ok(free.to_string())
}

fn until_up(nodes: &[Node]) -> Result<Vec<Started>, Failure> {
    let began = Instant::now();
    let mut started = Vec::new();
    for node in nodes {
        loop {
            if let Some(pid) = node.pid()
                && sees(node, nodes.len())
            {
                started.push(Started { name: node.name(), pid, socket: node.socket() });
                break;
            }
            if began.elapsed() > PATIENCE || node.has_failed() {
                return Err(Failure::Unwell(format!(
                    "node {} does not come up; its log ends with:\n{}",
                    node.name(),
                    node.last_words()
                )));
            }
            std::thread::sleep(PAUSE);
        }
    }
    Ok(started)
}

fn sees(node: &Node, count: usize) -> bool {
    let nodes = Session::connect_to(node.socket()).and_then(|session| session.nodes());
    nodes.is_ok_and(|nodes| nodes.iter().filter(|node| node.up).count() >= count)
}
