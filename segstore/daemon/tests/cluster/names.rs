//! Nodes that are called like another.

use segstore::{CreateOptions, Error, OpenOptions};

use super::harness::{Cluster, until};

/// A node has one name, and a name one node.
#[test]
fn a_second_node_of_a_name_is_refused_and_one_that_left_can_be_forgotten() {
    let mut cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let mut second = cluster.command(3).args(["--name", "n1"]).spawn().unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(1));
    let told = std::fs::read_to_string(cluster.log(3)).unwrap();
    assert!(told.contains("another node is called n1") && told.contains("127.0.0.1:"), "{told}");
    assert!(session.nodes().unwrap().iter().any(|node| node.name == "n1" && node.up));
    let mut segment =
        session.open_or_create("s", &CreateOptions::new(1 << 20).replicas(2), &OpenOptions::new()).unwrap();
    segment.set_len(4096).unwrap();
    segment.checkpoint().unwrap();
    let refused = |name: &str, why: &str| {
        let Err(Error::Refused(text)) = session.forget_node(name) else { panic!("{name} is needed") };
        assert!(text.contains(why), "{text}");
    };
    refused("n2", "is up");
    cluster.kill(2);
    until("it is down", || session.nodes().unwrap().iter().any(|node| node.name == "n2" && !node.up).then_some(()));
    if session.lookup("s").unwrap().places.iter().any(|place| place.node_name == "n2") {
        refused("n2", "replicas in sync of s");
    }
    segment.write(0, b"on").unwrap();
    until("it is left out", || {
        segment.checkpoint().unwrap();
        session.forget_node("n2").ok()
    });
    assert!(!cluster.session(1).nodes().unwrap().iter().any(|node| node.name == "n2"));
}

/// For as long as the other one may be this node's own former life, it waits for that one and says so.
#[test]
fn a_node_that_waits_for_its_name_says_who_has_it() {
    let mut cluster = Cluster::start(1, &["--node-lease", "2s"]);
    let address = cluster.session(0).nodes().unwrap()[0].address.clone();
    let second = cluster.spawn_named("n0");
    until("it is refused", || (!cluster.runs(second)).then_some(()));
    let told = std::fs::read_to_string(cluster.log(second)).unwrap();
    assert!(told.contains(&format!("waiting for the name n0: a node whose daemon is at {address} has it")), "{told}");
    assert!(!told.contains("waiting for the directory"), "{told}");
}

#[test]
fn of_two_nodes_of_one_name_that_start_together_one_stays() {
    let mut cluster = Cluster::start(1, &[]);
    let twins: Vec<_> = (0..6).map(|n| cluster.spawn_named(&format!("twin{}", n / 2))).collect();
    for pair in twins.chunks(2) {
        until("one of them ends", || pair.iter().any(|twin| !cluster.runs(*twin)).then_some(()));
    }
    let nodes = cluster.session(0).nodes().unwrap();
    for (number, pair) in twins.chunks(2).enumerate() {
        let name = format!("twin{number}");
        let running = pair.iter().filter(|twin| cluster.runs(**twin)).count();
        let named = nodes.iter().filter(|node| node.name == name && node.up).count();
        assert_eq!((running, named), (1, 1), "{name} in {nodes:?}");
    }
}

/// A node that is started again under another name, within its lease, has the former one no longer: another may have that.
#[test]
fn a_name_that_a_node_had_is_free() {
    let mut cluster = Cluster::start(2, &[]);
    cluster.rename(1, "renamed");
    let node = cluster.spawn_named("n1");
    until("it has joined, or was refused", || {
        let is_up = cluster.session(0).nodes().unwrap().iter().any(|node| node.name == "n1" && node.up);
        (is_up || !cluster.runs(node)).then_some(())
    });
    assert!(cluster.runs(node));
    cluster.until_up(3);
}
