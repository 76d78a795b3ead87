//! The commands as an operator types them, on a cluster that `dev up` starts.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

mod cluster;
mod dev;
mod files;
mod run;

use std::path::PathBuf;

use cluster::{Cluster, segctl, segstored, until};
use segstore::Session;
use serde_json::Value;

#[test]
fn a_cluster_is_measured_and_nothing_stays() {
    let cluster = Cluster::start(3);
    let measured = cluster.json(&["perf", "checkpoint"]);
    let rows = measured["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    for row in rows {
        let [p50, p99, p999] = ["p50", "p99", "p999"].map(|part| row["ours"][part].as_f64().unwrap());
        assert!(0.0 < p50 && p50 <= p99 && p99 <= p999, "{row}");
        assert!(row["cache_line"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(cluster.json(&["ls"]), Value::Array(Vec::new()));
    assert_eq!(cluster.code(&["perf", "size"]), 2);
    assert_eq!(cluster.code(&["perf", "load"]), 16, "no node has room for it");
    assert_eq!(cluster.json(&["ls"]), Value::Array(Vec::new()));
}

#[test]
fn what_does_not_fit_is_skipped() {
    let cluster = Cluster::start(2);
    let measured = cluster.json(&["perf", "load", "checkpoint"]);
    let count = |of: &str| measured[of].as_array().unwrap().len();
    assert_eq!((count("rows"), count("skipped")), (2, 3), "a load of 1 GiB, and two replicas elsewhere: {measured}");
    assert_eq!(cluster.json(&["ls"]), Value::Array(Vec::new()));
}

#[test]
fn completions_end_quietly_when_their_reader_does() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let done = segctl().args(["completions", "bash"]).stdout(writer).output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
}

#[test]
fn each_program_writes_its_manual_pages() {
    let place = tempfile::TempDir::new().unwrap();
    let [man1, man8] = ["man1", "man8"].map(|section| place.path().join(section));
    assert!(segctl().arg("man").arg(&man1).status().unwrap().success());
    assert!(segstored().arg("--man").arg(&man8).status().unwrap().success());
    let page = |file: PathBuf| std::fs::read_to_string(file).unwrap();
    assert!(page(man1.join("segctl-put.1")).contains("replicas"));
    let daemon = page(man8.join("segstored.8"));
    assert!(daemon.contains(".TH segstored 8") && daemon.contains("node\\-lease"), "{daemon}");
    let taken = segstored().arg("--man").arg(man8.join("segstored.8")).output().unwrap();
    assert!(
        taken.status.code() == Some(2) && String::from_utf8_lossy(&taken.stderr).contains("segstored.8"),
        "{taken:?}"
    );
}

/// Not where replicas usually are: what counts is where this daemon has its own.
#[test]
fn doctor_looks_where_the_nodes_memory_is() {
    let place = tempfile::TempDir::new_in("/var/tmp").unwrap();
    let [memory, data, socket, secret] = ["memory", "data", "sock", "secret"].map(|file| place.path().join(file));
    std::fs::write(&secret, [b's'; 64]).unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut daemon = segstored();
    daemon.args(["--name", "n1", "--directory", "self", "--listen", "127.0.0.1:0", "--metrics", "off"]);
    daemon.args(["--memory", "1000TiB"]).arg("--memory-dir").arg(&memory).arg("--data-dir").arg(&data);
    let mut daemon = daemon.arg("--socket").arg(&socket).arg("--secret-file").arg(&secret).spawn().unwrap();
    until("it serves", || Session::connect_to(&socket).is_ok());
    let doctor = segctl().arg("--socket").arg(&socket).args(["--json", "doctor"]).output().unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let findings: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let finding =
        |check: &str| findings.as_array().unwrap().iter().find(|found| found["check"] == check).unwrap().clone();
    let (at, shared) = (memory.to_str().unwrap(), finding("shared memory"));
    assert!(shared["found"].as_str().unwrap().starts_with(at) && shared["verdict"] == "warning", "{shared}");
    let budget = finding("replica memory");
    assert!(budget["remedy"].as_str().unwrap().starts_with(at) && budget["verdict"] == "warning", "{budget}");
    assert_eq!(finding("cluster")["found"], "1 of 1 node up");
}

#[test]
fn every_mistake_has_its_code() {
    let cluster = Cluster::start(2);
    let file = cluster.file("content");
    std::fs::write(&file, [1; 10_000]).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(cluster.code(&["get", "nothing", file]), 10);
    assert_eq!(cluster.code(&["rm", "nothing"]), 10);
    assert_eq!(cluster.code(&["put", "a name", file]), 2);
    assert_eq!(cluster.code(&["put", "a/../b", file]), 2);
    assert_eq!(cluster.code(&["put", "a", file, "--block-size", "3000"]), 2);
    assert_eq!(cluster.code(&["put", "a", file, "--capacity", "0"]), 2);
    assert_eq!(cluster.code(&["put", "a", file, "--capacity", "100G"]), 16);
    assert_eq!(cluster.code(&["put", "a", file, "--replicas", "99"]), 2);
    assert_eq!(cluster.code(&["put", "a", "/no/such/file"]), 2);
    assert_eq!(cluster.code(&["frobnicate"]), 2);
    assert_eq!(cluster.code(&["man", file]), 2, "this is no directory");
    assert_eq!(cluster.json(&["ls"]), Value::Array(Vec::new()), "nothing is half done");
    let nobody = segctl().args(["--socket", "/no/such.sock", "ls"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(15));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("/no/such.sock"));
    let doctor = segctl().args(["--socket", "/no/such.sock", "doctor"]).output().unwrap();
    assert_eq!(doctor.stderr, b"segctl: 1 problem\n", "{doctor:?}");
    assert_eq!(cluster.code(&["put", "small", file, "--capacity", "12K"]), 0);
    std::fs::write(file, [1; 20_000]).unwrap();
    let too_long = cluster.run(&["put", "small", file]);
    assert_eq!(too_long.status.code(), Some(2));
    assert_eq!(cluster.get("small"), [1; 10_000], "what was there stays");
    // Somebody else's: only root can be somebody else.
    if nix::unistd::Uid::effective().is_root() {
        let mut other = cluster.command(1, &["rm", "small"]);
        assert_eq!(std::os::unix::process::CommandExt::uid(&mut other, 65_534).status().unwrap().code(), Some(17));
    }
    cluster.spoil(1);
    assert_eq!(cluster.code(&["get", "small", file]), 14);
}
