//! `run`, when its name may be another's: on two nodes at once a program runs at no time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use segstore::{Error, Session};

use crate::cluster::{Cluster, segstored, until};
use crate::link::Link;
use crate::run::send;

/// A program that does not end when it is asked to. It notes whether another one runs beside it.
fn stubborn(marks: &Path) -> String {
    let marks = marks.display();
    format!(
        "exec 9>{marks}.lock; if flock -n 9; then echo alone; else echo beside; fi >> {marks}; trap '' TERM; \
         while :; do sleep 0.02; done"
    )
}

fn lines(marks: &Path) -> Vec<String> {
    std::fs::read_to_string(marks).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The process of a node's daemon; none while that is just being written.
fn daemon_if_known(cluster: &Cluster, node: usize) -> Option<u32> {
    std::fs::read_to_string(cluster.file(&format!("n{node}/segstored.pid"))).unwrap().trim().parse().ok()
}

fn daemon(cluster: &Cluster, node: usize) -> u32 {
    daemon_if_known(cluster, node).unwrap()
}

/// Has node 2 reach the directory over a link.
fn behind_a_link(cluster: &Cluster) -> (Link, Child) {
    let config = cluster.file("n2/segstored.toml");
    let said = std::fs::read_to_string(&config).unwrap();
    let directory = said.lines().find_map(|line| line.strip_prefix("directory = ")).unwrap().trim_matches('"');
    let link = Link::to(directory.to_owned());
    std::fs::write(&config, said.replace(directory, &link.address())).unwrap();
    let former = daemon(cluster, 2);
    send(former, Signal::SIGKILL);
    until("it is gone", || crate::cluster::has_ended(&former.to_string()));
    let log = File::options().append(true).open(cluster.file("n2/segstored.log")).unwrap();
    let again = segstored().arg("--config").arg(&config).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    until("it serves again", || {
        daemon_if_known(cluster, 2) == Some(again.id())
            && Session::connect_to(cluster.socket(2)).is_ok_and(|n2| n2.nodes().is_ok())
    });
    (link, again)
}

/// Two who run the same program: the first on node 2, which is cut off from the directory until the second has begun.
struct Partition {
    first: Child,
    second: Child,
    behind: Child,
    link: Link,
    marks: PathBuf,
    said: PathBuf,
    _cluster: Cluster,
}

impl Partition {
    /// The first run has these options.
    fn begin(options: &[&str]) -> Self {
        let cluster = Cluster::start(2);
        let (link, behind) = behind_a_link(&cluster);
        let (marks, said) = (cluster.file("marks"), cluster.file("said"));
        let script = stubborn(&marks);
        let mut first = cluster.command(2, &["run", "job"]);
        let first =
            first.args(options).args(["--", "sh", "-c", &script]).stderr(File::create(&said).unwrap()).spawn().unwrap();
        until("the first runs", || lines(&marks).len() == 1);
        let second = cluster.start_run(1, "job", &script);
        link.cut();
        until("the second runs", || lines(&marks).len() == 2);
        Self { first, second, behind, link, marks, said, _cluster: cluster }
    }

    /// What the first runner has said.
    fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        send(self.second.id(), Signal::SIGTERM);
        let _ = self.second.wait();
        let _ = self.behind.kill();
        let _ = self.behind.wait();
    }
}

/// The node's daemon answers its runner all the time, and loses the lease.
#[test]
fn a_program_on_the_wrong_side_of_a_partition_ends_before_another_begins() {
    let mut partition = Partition::begin(&[]);
    assert_eq!(lines(&partition.marks), ["alone", "alone"]);
    assert_eq!(partition.first.wait().unwrap().code(), Some(12));
    let said = partition.said();
    assert!(said.contains("the directory has not answered") && !said.contains("does not answer"), "{said}");
}

/// From the node that looks the same: whether others have a directory nobody there can tell.
#[test]
fn a_program_whose_directory_is_silent_ends() {
    let cluster = Cluster::start(2);
    let marks = cluster.file("marks");
    let mut run = cluster.start_run(2, "job", &stubborn(&marks));
    until("it runs", || lines(&marks).len() == 1);
    let directory = daemon(&cluster, 1);
    send(directory, Signal::SIGSTOP);
    let ended = run.wait().unwrap();
    send(directory, Signal::SIGCONT);
    assert_eq!(ended.code(), Some(12));
    until("it runs again", || cluster.command(2, &["run", "job", "--", "true"]).status().unwrap().success());
}

/// Who says so runs on, until it is known that another one runs.
#[test]
fn a_program_that_may_go_on_ends_when_another_is_known_to_run() {
    let mut partition = Partition::begin(&["--when-cut-off", "go-on"]);
    assert_eq!(lines(&partition.marks), ["alone", "beside"]);
    until("the runner says it", || partition.said().contains("the program goes on"));
    assert_eq!(partition.first.try_wait().unwrap(), None);
    partition.link.join();
    assert_eq!(partition.first.wait().unwrap().code(), Some(12));
}

/// Nobody has wanted the name while the node was taken for dead: it is held again.
#[test]
fn a_program_that_may_go_on_does_where_nobody_else_has_the_name() {
    let cluster = Cluster::start(2);
    let (marks, said) = (cluster.file("marks"), cluster.file("said"));
    let arguments = ["run", "job", "--when-cut-off", "go-on", "--", "sh", "-c", &stubborn(&marks)];
    let mut first = cluster.command(2, &arguments).stderr(File::create(&said).unwrap()).spawn().unwrap();
    until("it runs", || lines(&marks).len() == 1);
    let silent = daemon(&cluster, 2);
    send(silent, Signal::SIGSTOP);
    let listed = || String::from_utf8(cluster.run(&["ls"]).stdout).unwrap();
    until("its node is taken for dead", || !listed().contains("job"));
    send(silent, Signal::SIGCONT);
    until("the name is held again", || listed().contains("job"));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(first.try_wait().unwrap(), None, "{}", std::fs::read_to_string(&said).unwrap());
    assert_eq!(cluster.code(&["put", "job", "/etc/hostname", "--wait", "0s"]), 11, "the name is held");
    send(first.id(), Signal::SIGKILL);
    first.wait().unwrap();
}

/// A node that hangs for longer than its lease counts as dead: what runs there ends.
#[test]
fn a_program_whose_node_was_given_up_ends() {
    let cluster = Cluster::start(2);
    let marks = cluster.file("marks");
    let script = stubborn(&marks);
    let started = || lines(&marks).len();
    let mut first = cluster.start_run(2, "job", &script);
    until("the first runs", || started() == 1);
    let mut second = cluster.start_run(1, "job", &script);
    let silent = daemon(&cluster, 2);
    send(silent, Signal::SIGSTOP);
    until("the second runs", || started() == 2);
    send(silent, Signal::SIGCONT);
    assert_eq!(lines(&marks), ["alone", "alone"]);
    assert_eq!(first.wait().unwrap().code(), Some(12));
    send(second.id(), Signal::SIGTERM);
    second.wait().unwrap();
}

/// A node whose daemon is gone and does not come back is given up after its lease: nothing of it may run on then.
#[test]
fn a_program_whose_daemon_is_gone_ends() {
    let cluster = Cluster::start(2);
    let (marks, said) = (cluster.file("marks"), cluster.file("said"));
    let script = stubborn(&marks);
    let started = || lines(&marks).len();
    let mut first = cluster.command(2, &["run", "job", "--", "sh", "-c", &script]);
    let mut first = first.stderr(File::create(&said).unwrap()).spawn().unwrap();
    until("the first runs", || started() == 1);
    let mut second = cluster.start_run(1, "job", &script);
    send(daemon(&cluster, 2), Signal::SIGKILL);
    assert_eq!(first.wait().unwrap().code(), Some(12));
    let said = std::fs::read_to_string(&said).unwrap();
    let at = |what: &str| said.lines().position(|line| line.contains(what));
    let order = ["does not answer", "ending the program", "killing it"].map(at);
    assert!(
        order.is_sorted() && order[0] < order[1],
        "a daemon that is started again within its lease costs nothing: {said}"
    );
    until("the second runs", || started() == 2);
    assert_eq!(lines(&marks), ["alone", "alone"], "ten seconds of grace are more than is left of the lease");
    send(second.id(), Signal::SIGTERM);
    second.wait().unwrap();
}

/// The name may be free again before anybody looks: it was another's all the same.
#[test]
fn a_program_whose_name_was_taken_by_force_ends() {
    let cluster = Cluster::start(2);
    let marks = cluster.file("marks");
    for how in [&["put", "job", "/etc/hostname", "--takeover"][..], &["get", "job", "/dev/null", "--takeover"]] {
        let mut run = cluster.start_run(2, "job", &stubborn(&marks));
        until("it runs", || !lines(&marks).is_empty());
        assert_eq!(cluster.code(how), 0);
        assert_eq!(run.wait().unwrap().code(), Some(12), "{how:?}");
        std::fs::remove_file(&marks).unwrap();
    }
}

/// A daemon that has no connection left for this user keeps the node's lease all the same.
#[test]
fn a_program_whose_daemon_takes_no_more_connections_goes_on() {
    let cluster = Cluster::start(1);
    let socket = cluster.file("n1/segstored.sock");
    let mut run = cluster.start_run(1, "job", "sleep 600");
    until("it is held", || cluster.code(&["put", "job", "/etc/hostname", "--wait", "0s"]) == 11);
    let (mut sessions, began) = (Vec::new(), Instant::now());
    // What the runner itself lets go for a moment is taken, too.
    while began.elapsed() < Duration::from_secs(5) {
        match Session::connect_to(&socket) {
            Ok(session) => sessions.push(session),
            Err(error) => assert!(matches!(error, Error::NoRoom(_)), "{error}"),
        }
    }
    assert_eq!(run.try_wait().unwrap(), None);
    drop(sessions);
    send(run.id(), Signal::SIGTERM);
    assert_eq!(run.wait().unwrap().code(), Some(128 + 15));
}
