//! Three guests with a daemon each, the directory on node 1, which always stays.

use std::ops::RangeBounds;
use std::time::{Duration, Instant};

use hwtests::lab::{Lab, program};
use tempfile::TempDir;

/// A node counts as dead when its daemon was not heard for so long.
pub(super) const NODE_LEASE: Duration = Duration::from_secs(2);

/// How the daemons run, and what else the guests do at each boot.
pub(super) struct Set<'a> {
    /// Options of every daemon.
    pub(super) daemons: &'a str,
    pub(super) at_boot: &'a str,
}

impl Default for Set<'_> {
    fn default() -> Self {
        Set { daemons: "", at_boot: "true" }
    }
}

pub(super) struct Cluster {
    pub(super) lab: Lab,
    /// The last state that each node's owner said is acknowledged.
    acked: [u64; 4],
    _secret: TempDir,
}

impl Cluster {
    pub(super) fn start(set: &Set<'_>) -> Cluster {
        let place = TempDir::new().unwrap();
        let secret = place.path().join("secret");
        std::fs::write(&secret, "an altogether secret sentence").unwrap();
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let commands: Vec<_> = (1..=3).map(|node| command(node, &secret, set)).collect();
        let mut cluster = Cluster { lab: Lab::start(&commands), acked: [0; 4], _secret: place };
        for node in 1..=3 {
            cluster.serves(node);
        }
        cluster
    }

    /// Waits until a node's daemon serves.
    pub(super) fn serves(&mut self, node: usize) {
        self.lab.expect(node, "serves");
    }

    /// Starts an owner, or one who stands by, of the segment `s`, of so many blocks.
    pub(super) fn owner(&mut self, node: usize, blocks: usize) {
        self.owner_under("", node, blocks);
    }

    /// The same by a command that runs it.
    pub(super) fn owner_under(&mut self, runner: &str, node: usize, blocks: usize) {
        self.lab.tell(node, &format!("{runner} {} s {blocks} & owner=$!", program("proven-owner").display()));
        self.lab.expect(node, "stands by");
    }

    /// The term and the state that an owner began with.
    pub(super) fn held(&mut self, node: usize) -> (u64, u64) {
        two(&self.lab.expect(node, "holds"))
    }

    /// Waits for a state that so many replicas have acknowledged, and returns its number.
    pub(super) fn acked(&mut self, node: usize, replicas: impl RangeBounds<u64>) -> u64 {
        loop {
            let (state, in_sync) = two(&self.lab.expect(node, "acked"));
            self.acked[node] = state;
            if replicas.contains(&in_sync) {
                return state;
            }
        }
    }

    /// The number of the last state that it has said is acknowledged.
    pub(super) fn last_acked(&mut self, node: usize) -> u64 {
        if let Some(line) = self.lab.last(node, "acked") {
            self.acked[node] = two(&line).0;
        }
        self.acked[node]
    }

    /// Waits until one node has taken over from another, and returns the state that it found: none older than what the other
    /// has said is acknowledged.
    pub(super) fn taken_over(&mut self, by: usize, from: usize) -> u64 {
        let (term, found) = self.held(by);
        let acked = self.last_acked(from);
        assert!(found >= acked, "state {acked} was acknowledged, and node {by} found {found}");
        println!("acknowledged {acked}, found {found} in term {term}");
        found
    }

    /// What a command prints on a node, in one line.
    pub(super) fn ask(&mut self, node: usize, command: &str) -> String {
        self.lab.tell(node, &format!("echo answer $({command} 2>&1)"));
        self.lab.expect(node, "answer")
    }

    /// What `segctl` prints as one line of JSON, without spaces.
    pub(super) fn json(&mut self, node: usize, arguments: &str) -> String {
        self.ask(node, &format!("{} --json {arguments}", program("segctl").display())).replace(' ', "")
    }

    /// What the owner on this node reaches each replica over.
    pub(super) fn links(&mut self, node: usize) -> Vec<String> {
        let status = self.json(node, "status s");
        let links = status.split("\"over\":\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
        links.collect()
    }

    /// The same, once they are as wanted.
    pub(super) fn links_after(&mut self, node: usize, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let links = self.links(node);
            if wanted(&links) {
                return links;
            }
            assert!(Instant::now() < until, "a minute later the links are {links:?}");
        }
    }

    /// Whether the owner on this node reaches other nodes by RDMA alone.
    pub(super) fn is_over_verbs(&mut self, node: usize) -> bool {
        let links = self.links(node);
        links.iter().any(|link| link == "verbs") && !links.iter().any(|link| link == "tcp")
    }

    /// Waits until this is the last that has happened to the replica on a node, as the owner's node tells it.
    pub(super) fn happens(&mut self, owner: usize, what: &str, node: usize) {
        let until = Instant::now() + Duration::from_secs(60);
        let replica = format!("\"why\":\"thereplicaonn{node}:");
        loop {
            let events = self.json(owner, "events s");
            let last = events.split('{').rfind(|event| event.contains(&replica));
            if last.is_some_and(|event| event.contains(&format!("\"what\":\"{what}\""))) {
                return;
            }
            assert!(Instant::now() < until, "in a minute the replica on node {node} was not {what}: {last:?}");
        }
    }

    /// The owner's events, by what they are.
    pub(super) fn events(&mut self, node: usize) -> Vec<String> {
        let events = self.json(node, "events s");
        let whats = events.split("\"what\":\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
        whats.collect()
    }
}

fn command(node: usize, secret: &std::path::Path, set: &Set<'_>) -> String {
    let directory = if node == 1 { "self" } else { "10.9.0.1:7420" };
    let (segstored, segctl) = (program("segstored"), program("segctl"));
    let Set { daemons, at_boot } = set;
    format!(
        "export SEGSTORE_SOCKET=/run/segstored.sock; {at_boot}; \
         {segstored} --name n{node} --directory {directory} --listen 10.9.0.{node}:7420 --metrics 127.0.0.1:9464 --memory 256MiB \
         --node-lease {lease}ms {daemons} --data-dir /tmp/data --memory-dir /dev/shm/replicas \
         --socket $SEGSTORE_SOCKET --secret-file {secret} 2>/tmp/log & export daemon=$!; \
         until {segctl} nodes >/dev/null 2>&1; do \
           kill -0 $daemon && [ $SECONDS -lt 50 ] || {{ echo no daemon; tail -n 20 /tmp/log; {segctl} nodes; }}; sleep 0.2; \
         done; echo serves; cat | bash",
        segstored = segstored.display(),
        segctl = segctl.display(),
        secret = secret.display(),
        lease = NODE_LEASE.as_millis(),
    )
}

fn two(line: &str) -> (u64, u64) {
    let mut numbers = line.split(' ').map(|word| word.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}
