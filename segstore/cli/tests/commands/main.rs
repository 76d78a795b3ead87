//! The commands as an operator types them, on a cluster that `dev up` starts.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

mod cluster;
mod dev;
mod files;
mod run;

use cluster::{Cluster, segctl};
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
