//! `move`, and what it makes of `run`.

use std::process::Child;

use segstore::{OpenOptions, Session};

use crate::cluster::{Cluster, until};

/// A script that counts how often it was asked to end: with its last breath it makes a checkpoint of that.
fn counting(cluster: &Cluster, node: usize) -> Child {
    let segctl = env!("CARGO_BIN_EXE_segctl");
    let script = format!(
        "cd {}/n{node}; n=0; if {segctl} get job state; then n=$(cat state); fi
         trap 'echo $((n + 1)) > state; {segctl} put job state; exit 0' TERM
         echo {node} $n >> ../marks; while :; do sleep 0.02; done",
        cluster.dir()
    );
    cluster.start_run(node, "job", &script)
}

#[test]
fn what_runs_is_moved_to_who_stands_by() {
    let cluster = Cluster::start(3);
    let marks = || std::fs::read_to_string(cluster.file("marks")).unwrap_or_default();
    assert_eq!(cluster.code(&["move", "job"]), 10, "nobody holds it");
    let mut first = counting(&cluster, 1);
    until("the first runs", || marks() == "1 0\n");
    let alone = cluster.run(&["move", "job", "n2"]);
    let why = String::from_utf8(alone.stderr).unwrap();
    assert!(alone.status.code() == Some(17) && why.contains("nobody stands by for job on node n2"), "{why}");
    let mut third = counting(&cluster, 3);
    let mut second = counting(&cluster, 2);
    until("it can be moved", || cluster.code(&["move", "job", "n2"]) == 0);
    assert_eq!(first.wait().unwrap().code(), Some(0), "the program ended by itself");
    until("the second runs", || marks() == "1 0\n2 1\n");
    let mut first = counting(&cluster, 1);
    let waiting = || cluster.json(&["status", "job"])["standby"].as_array().unwrap().len();
    until("both others stand by", || waiting() == 2);
    let text = String::from_utf8(cluster.run(&["status", "job"]).stdout).unwrap();
    assert_eq!(
        text.lines().filter(|line| line.starts_with("stands by") && line.contains("segctl")).count(),
        2,
        "{text}"
    );
    let moved = cluster.json(&["move", "job"]);
    assert_eq!((&moved["name"], &moved["program"]), (&"job".into(), &"segctl".into()));
    let node = moved["node"].as_str().unwrap().trim_start_matches('n');
    until("a third one runs", || marks() == format!("1 0\n2 1\n{node} 2\n"));
    assert_eq!(second.wait().unwrap().code(), Some(0));
    for run in [&mut first, &mut third] {
        crate::run::send(run.id(), nix::sys::signal::Signal::SIGTERM);
        run.wait().unwrap();
    }
}

/// An application that cannot be asked goes on, and so does one that is asked and does not let go in time.
#[test]
fn what_does_not_let_go_goes_on() {
    let cluster = Cluster::start(2);
    cluster.put_with("s", b"state", 1);
    let session = Session::connect_to(cluster.socket(1)).unwrap();
    let mut owned = session.open("s", &OpenOptions::new()).unwrap();
    let mut standby = cluster.start_run(2, "s", "sleep 600");
    until("it stands by", || !cluster.json(&["status", "s"])["standby"].as_array().unwrap().is_empty());
    let deaf = cluster.run(&["move", "s", "n2"]);
    let why = String::from_utf8(deaf.stderr).unwrap();
    assert!(deaf.status.code() == Some(17) && why.contains("does not hear of moves"), "{why}");
    let moves = owned.moves().unwrap();
    let late = cluster.run(&["move", "s", "n2", "--wait", "200ms"]);
    let why = String::from_utf8(late.stderr).unwrap();
    assert!(late.status.code() == Some(15) && why.contains("has not done it within 200ms"), "{why}");
    owned.write(0, b"STATE").unwrap();
    owned.checkpoint().unwrap();
    drop((moves, owned));
    until("the other one has it", || cluster.json(&["status", "s"])["owner"]["node"] == "n2");
    crate::run::send(standby.id(), nix::sys::signal::Signal::SIGTERM);
    standby.wait().unwrap();
}
