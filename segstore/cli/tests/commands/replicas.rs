//! Where a segment is kept, and how often: `replicas` and `drain`.

use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cluster::{Cluster, until};
use crate::run::send;

#[test]
fn the_number_of_replicas_is_changed() {
    let cluster = Cluster::start(3);
    cluster.put_with("s", b"state", 1);
    let told = cluster.json(&["replicas", "s", "2"]);
    let found = (&told["replicas_wanted"], &told["replicas_in_sync"], &told["is_owned"]);
    assert_eq!(found, (&Value::from(2), &Value::from(1), &Value::from(false)));
    cluster.put("s", b"another state");
    until("its next owner makes it", || cluster.json(&["status", "s"])["replicas_in_sync"] == 2);
    assert_eq!(cluster.code(&["replicas", "s", "0"]), 2);
    assert_eq!(cluster.code(&["replicas", "nothing", "1"]), 10);
}

/// Of segments that nobody owns; what can go nowhere else it names, and what keeps the directory may not be switched off.
#[test]
fn a_node_is_drained() {
    let cluster = Cluster::start(3);
    let names = ["a", "b", "c", "d", "e", "f"];
    for name in names {
        cluster.put_with(name, name.as_bytes(), 1);
    }
    let drained = cluster.run(&["drain", "n2"]);
    assert!(drained.status.success(), "{drained:?}");
    assert!(String::from_utf8(drained.stdout).unwrap().contains("may be switched off"));
    let nodes = cluster.json(&["nodes"]);
    assert_eq!(nodes.as_array().unwrap().iter().find(|node| node["name"] == "n2").unwrap()["draining"], true);
    for name in names {
        let status = cluster.json(&["status", name]);
        let replicas = status["replicas"].as_array().unwrap();
        let on: Vec<_> = replicas.iter().filter(|replica| replica["in_sync"] == true).collect();
        assert!(on.len() == 1 && on[0]["node"] != "n2", "{status}");
        assert_eq!(cluster.get(name), name.as_bytes());
    }
    let file = cluster.file("content");
    std::fs::write(&file, b"state").unwrap();
    assert_eq!(cluster.code(&["put", "here", file.to_str().unwrap(), "--require", "node=n3"]), 0);
    let nowhere = cluster.run(&["drain", "n3", "--wait", "20s"]);
    let said = String::from_utf8_lossy(&nowhere.stderr);
    assert!(nowhere.status.code() == Some(16) && said.contains("still keeps a replica of 1 segment"), "{nowhere:?}");
    assert!(said.contains("nobody has it open") && said.contains("n1: node=n3 is required"), "{nowhere:?}");
    let care = cluster.json(&["status", "here"])["care"].to_string();
    assert!(care.contains("no further node takes a replica"), "{care}");
    for node in ["n2", "n3"] {
        assert_eq!(cluster.json(&["drain", node, "--undo"])["draining"], false);
    }
    assert_eq!(cluster.code(&["drain", "nobody"]), 10);
    let directory = cluster.run(&["drain", "n1"]);
    let said = String::from_utf8_lossy(&directory.stderr);
    assert!(directory.status.code() == Some(17) && said.contains("the cluster's directory"), "{directory:?}");
}

/// On the node itself, where an application owns a segment: it is named as long as nobody stands by for it, and asked to let it go from then on.
#[test]
fn applications_are_moved_off_a_node_that_is_drained() {
    let cluster = Cluster::start(3);
    cluster.put_with("s", b"state", 1);
    let mut run = cluster.command(2, &["run", "job", "--", "sleep", "100"]).spawn().unwrap();
    until("it runs", || cluster.json(&["ls"]).to_string().contains("job"));
    let early = cluster.command(2, &["drain", "n2", "--wait", "10s"]).output().unwrap();
    let said = String::from_utf8_lossy(&early.stderr);
    assert!(early.status.code() == Some(17) && said.contains("which owns job: nobody stands by"), "{early:?}");
    let drain = cluster.command(2, &["drain", "n2", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut other = cluster.start_run(3, "job", "sleep 100");
    let drained = drain.wait_with_output().unwrap();
    assert!(drained.status.success(), "{drained:?}");
    assert_eq!(serde_json::from_slice::<Value>(&drained.stdout).unwrap()["draining"], true);
    assert_eq!(run.wait().unwrap().code(), Some(128 + 15), "it was asked to end");
    assert_eq!(cluster.json(&["status", "job"])["owner"]["node"], "n3");
    send(other.id(), Signal::SIGTERM);
    other.wait().unwrap();
}

#[test]
fn a_segment_is_where_it_was_asked_to_be() {
    let cluster = Cluster::start(3);
    let file = cluster.file("content");
    std::fs::write(&file, b"state").unwrap();
    let file = file.to_str().unwrap();
    let new = cluster.json(&["plan", "s", "--capacity", "1M", "--require", "node!=n2"]);
    assert_eq!((&new[0]["node"], &new[0]["verdict"]), (&"n3".into(), &"chosen".into()));
    assert_eq!(cluster.code(&["put", "s", file, "--require", "node!=n2"]), 0);
    assert_eq!(cluster.json(&["status", "s"])["replicas"][0]["node"], "n3");
    assert_eq!(cluster.json(&["status", "s"])["require"][0], "node!=n2");
    let plan = String::from_utf8(cluster.run(&["plan", "s"]).stdout).unwrap();
    assert!(plan.contains("keeps one") && plan.contains("node!=n2 is required"), "{plan}");
    for wrong in [
        &["plan", "other", "--require", "ssd"][..],
        &["plan", "other", "--capacity", "1M", "--require", "zone="],
        &["put", "s", file, "--require", "node=n2"],
        &["put", "s", file, "--replicas", "2"],
    ] {
        assert_eq!(cluster.code(wrong), 2, "{wrong:?}");
    }
    let other = cluster.run(&["put", "s", file, "--replicas", "2"]);
    assert!(String::from_utf8_lossy(&other.stderr).contains("segctl replicas s 2"), "{other:?}");
    assert_eq!(cluster.code(&["plan", "s", "--capacity", "1M"]), 1, "it is there");
    assert_eq!(cluster.code(&["plan", "nothing"]), 10);
    assert_eq!(cluster.code(&["put", "nowhere", file, "--require", "zone=a"]), 16);
}
