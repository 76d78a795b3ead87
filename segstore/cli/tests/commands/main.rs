//! The commands as an operator types them, on a cluster that `dev up` starts.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

mod cluster;
mod dev;
mod files;
mod link;
mod moves;
mod replicas;
mod run;
mod tenure;

use std::path::PathBuf;
use std::process::Stdio;

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

/// Each row against what it says of itself: what one provider takes nobody knows here.
#[test]
fn the_fabric_to_another_node_is_measured_and_nothing_stays() {
    for over in ["shm", "tcp"] {
        let cluster = Cluster::start_over(2, over);
        let measured = cluster.json(&["perf", "move"]);
        let fabric = &measured["fabric"];
        let nodes = ["from", "to", "provider", "device"].map(|fact| fabric[fact].clone());
        assert_eq!(nodes, [Value::from("n1"), Value::from("n2"), Value::from(over), Value::Null]);
        let rows = |of: &str| fabric[of].as_array().unwrap().clone();
        let what = |row: &Value| (row["operation"].as_str().unwrap().to_owned(), row["bytes"].as_u64().unwrap());
        let of_each = |sizes: &[u64]| -> Vec<_> {
            ["write", "read"].iter().flat_map(|name| sizes.iter().map(|size| ((*name).to_owned(), *size))).collect()
        };
        assert_eq!(rows("latency").iter().map(what).collect::<Vec<_>>(), of_each(&[64, 4096, 1 << 20]));
        assert_eq!(rows("bandwidth").iter().map(what).collect::<Vec<_>>(), of_each(&[1 << 16, 1 << 20]));
        let number = |row: &Value, field: &str| row[field].as_f64().unwrap();
        for row in rows("latency") {
            let order = ["t_min_usec", "t_typical_usec", "percentile_99_usec", "percentile_99_9_usec", "t_max_usec"];
            let times = order.map(|field| number(&row, field));
            assert!(times[0] > 0.0 && times.is_sorted(), "{row}");
        }
        for row in rows("bandwidth") {
            let [peak, average] = ["peak_mib_per_sec", "average_mib_per_sec"].map(|field| number(&row, field));
            assert!(0.0 < average && average <= peak, "{row}");
            let bytes = number(&row, "message_rate_mpps") * 1e6 * number(&row, "bytes");
            assert!((bytes / (average * f64::from(1 << 20)) - 1.0).abs() < 1e-6, "{row}");
        }
        let table = cluster.run(&["perf", "move"]);
        let table = String::from_utf8(table.stdout).unwrap();
        assert!(table.starts_with(&format!("From node n1 to node n2 over {over}\n")), "{table}");
        assert_eq!(table.matches("t_typical[usec]").count(), 2, "{table}");
        assert_eq!(table.matches("BW average[MB/sec]").count(), 2, "{table}");
        assert_eq!(cluster.json(&["ls"]), Value::Array(Vec::new()));
    }
}

#[test]
fn a_node_alone_has_no_fabric_to_be_measured() {
    let cluster = Cluster::start(1);
    assert_eq!(cluster.code(&["perf", "move"]), 16);
    assert_eq!(cluster.code(&["perf", "cpu"]), 2);
    assert_eq!(cluster.json(&["ls"]), Value::Array(Vec::new()));
}

/// By a signal, in the middle of it.
#[test]
fn measuring_that_is_ended_leaves_nothing() {
    let cluster = Cluster::start(2);
    let mut perf = cluster.command(1, &["perf", "move", "checkpoint"]).stdout(Stdio::null()).spawn().unwrap();
    until("it measures", || cluster.json(&["ls"]) != Value::Array(Vec::new()));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(perf.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(perf.wait().unwrap().code(), Some(130));
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
    let empty = segctl().env("SEGSTORE_SOCKET", "").arg("ls").output().unwrap();
    assert!(
        String::from_utf8_lossy(&empty.stderr).contains(segstore::DEFAULT_SOCKET),
        "as if it were not set: {empty:?}"
    );
    let endless = cluster.run(&["put", "endless", "/dev/zero", "--capacity", "1M"]);
    assert!(String::from_utf8_lossy(&endless.stderr).contains("more than --capacity 1.00 MiB"), "{endless:?}");
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

/// Out of a file that nobody has open, and into one where nothing stands.
#[test]
fn a_directory_is_moved_into_a_file_and_out_of_it() {
    let cluster = Cluster::start(2);
    cluster.put("s", b"state");
    let config = cluster.file("n1/segstored.toml");
    let config = config.to_str().unwrap();
    let document = cluster.file("directory.json");
    let document = document.to_str().unwrap();
    let in_use = cluster.run(&["directory", "export", document, "--config", config]);
    assert_eq!(in_use.status.code(), Some(1));
    let why = String::from_utf8(in_use.stderr).unwrap();
    assert!(why.contains("stop that one") && why.contains("On another node it can be exported meanwhile"), "{why}");
    let elsewhere = cluster.file("n2/segstored.toml");
    let meanwhile = cluster.run(&["directory", "export", "-", "--config", elsewhere.to_str().unwrap()]);
    let meanwhile: Value = serde_json::from_slice(&meanwhile.stdout).unwrap();
    let pid = std::fs::read_to_string(cluster.file("n1/segstored.pid")).unwrap();
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    until("it is exported", || cluster.run(&["directory", "export", document, "--config", config]).status.success());
    let exported: Value = serde_json::from_slice(&std::fs::read(document).unwrap()).unwrap();
    let entries = exported["entries"].as_array().unwrap();
    let has = |name: &str| entries.iter().any(|entry| entry[0] == name);
    assert!(has("cluster") && has("segments/s"), "{exported}");
    let keys = |document: &Value| {
        let entries = document["entries"].as_array().unwrap().iter();
        entries.map(|entry| entry[0].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&meanwhile), keys(&exported));
    assert!(!entries.iter().any(|entry| entry[0].as_str().unwrap().starts_with("holders/")), "{exported}");

    let other = cluster.file("other.toml");
    let text = std::fs::read_to_string(config).unwrap();
    let line = text.lines().find(|line| line.starts_with("data_dir")).unwrap();
    let place = format!("data_dir = {:?}", cluster.file("other"));
    std::fs::write(&other, text.replace(line, &place)).unwrap();
    let other = other.to_str().unwrap();
    let nothing = cluster.run(&["directory", "export", "-", "--config", other]);
    let why = String::from_utf8(nothing.stderr).unwrap();
    assert!(nothing.status.code() == Some(1) && why.contains("there is no directory"), "{why}");
    for _ in 0..2 {
        assert_eq!(cluster.code(&["directory", "import", document, "--config", other]), 0);
    }
    let again = cluster.run(&["directory", "export", "-", "--config", other]);
    assert_eq!(serde_json::from_slice::<Value>(&again.stdout).unwrap(), exported);
    std::fs::write(document, b"{}").unwrap();
    let wrong = cluster.run(&["directory", "import", document, "--config", other]);
    let why = String::from_utf8(wrong.stderr).unwrap();
    assert!(wrong.status.code() == Some(1) && why.contains("no exported directory"), "{why}");
}
