//! `dev`: clusters on this machine.

use crate::cluster::{Cluster, has_ended};

#[test]
fn a_cluster_that_is_down_leaves_nothing_behind() {
    let cluster = Cluster::start(2);
    let again = cluster.run(&["dev", "up", "--nodes", "2", "--dir", cluster.dir()]);
    assert!(again.status.success(), "up again is no mistake: {again:?}");
    let daemon = std::fs::read_to_string(cluster.file("n1/segstored.pid")).unwrap();
    let memory = cluster.memory(1);
    assert!(memory.is_dir());
    assert_eq!(cluster.code(&["dev", "down", "--dir", cluster.dir()]), 0);
    assert!(!memory.exists() && !cluster.socket(1).exists());
    assert!(has_ended(&daemon));
    // Up again, so that the end of the test has something to take down; what was on disk is still known.
    let up = cluster.run(&["dev", "up", "--nodes", "2", "--dir", cluster.dir()]);
    assert!(up.status.success(), "{up:?}");
}
