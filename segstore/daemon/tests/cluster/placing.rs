//! Where replicas go, by the labels of nodes.

use std::time::Duration;

use segstore::control::message::Verdict;
use segstore::{Error, LoadOptions, OpenOptions, Session};

use super::harness::{Cluster, until};
use super::roles::{check_state, opened, options, write_state};

/// Each node in a rack of its own, but the last two in one zone.
fn racks() -> Cluster {
    let mut cluster = Cluster::start(5, &["--labels", "rack=r{node},zone=a"]);
    for node in [3, 4] {
        cluster.label(node, "rack=r{node},zone=b");
    }
    cluster.until_up(5);
    let session = cluster.session(0);
    until("the labels are known", || {
        let nodes = session.nodes().unwrap();
        (nodes.iter().filter(|node| node.labels["zone"] == "b").count() == 2).then_some(())
    });
    cluster
}

/// The names of the nodes with a replica in sync, in order.
fn places(session: &Session, name: &str) -> Vec<String> {
    let mut names: Vec<_> = session.lookup(name).unwrap().places.into_iter().map(|place| place.node_name).collect();
    names.sort();
    names
}

/// When it is made, when a replica is replaced; where nothing is what is required, that is said, node by node.
#[test]
fn replicas_are_where_they_are_asked_for() {
    let mut cluster = racks();
    let session = cluster.session(0);
    let on = |condition: &str| options().replicas(1).require(condition.parse().unwrap());
    for (name, condition, node) in [("r2", "rack=r2", "n2"), ("n4", "node=n4", "n4")] {
        session.create(name, &on(condition)).unwrap();
        assert_eq!(places(&session, name), [node]);
    }
    session.create("apart", &options()).unwrap();
    let apart = places(&session, "apart");
    assert!(["n3", "n4"].contains(&apart[1].as_str()) && ["n1", "n2"].contains(&apart[0].as_str()), "{apart:?}");
    let preferred = options().replicas(1).spread("node").prefer("rack=r1".parse().unwrap());
    session.create("preferred", &preferred).unwrap();
    assert_eq!(places(&session, "preferred"), ["n1"]);
    let nowhere = session.create("nowhere", &on("rack=r9"));
    let Err(Error::NoRoom(why)) = nowhere else { panic!("{nowhere:?}") };
    assert!(why.contains("n2: rack=r9 is required"), "{why}");

    let made = options().require("zone=a".parse().unwrap());
    let mut segment = opened(&session, &made);
    assert_eq!(places(&session, "s"), ["n1", "n2"]);
    let crowded = session.lookup("s").unwrap().crowded.unwrap();
    assert!(crowded.contains("n1 and n2 are all in zone a"), "{crowded}");
    cluster.kill(1);
    let mut n = 1;
    until("the owner says why there is no other", || {
        n += 1;
        write_state(&mut segment, n);
        segment.checkpoint().unwrap();
        let warnings = session.status("s").unwrap().owner?.warnings;
        warnings.iter().any(|why| why.contains("n3: zone=a is required")).then_some(())
    });
    assert_eq!(places(&session, "s"), ["n2"]);
}

/// Of a segment that is there, and of one that is not.
#[test]
fn a_plan_says_what_would_be_chosen_and_why() {
    let cluster = racks();
    let session = cluster.session(0);
    let plan = |name: &str, make| -> Vec<(String, Verdict, String)> {
        let judged = session.plan(name, make).unwrap();
        judged.into_iter().map(|node| (node.node_name, node.verdict, node.why)).collect()
    };
    let make = options().require("node!=n2".parse().unwrap());
    let new = plan("s", Some(&make));
    let chosen: Vec<_> = new.iter().filter(|(_, verdict, _)| *verdict == Verdict::Chosen).collect();
    assert_eq!(chosen.len(), 2, "{new:?}");
    session.create("s", &make).unwrap();
    let mut names: Vec<_> = chosen.iter().map(|(name, ..)| name.clone()).collect();
    names.sort();
    assert_eq!(places(&session, "s"), names, "{new:?}");
    let there = plan("s", None);
    let verdict =
        |name: &str| there.iter().find(|(node, ..)| node == name).map(|(_, verdict, why)| (*verdict, why.as_str()));
    assert!(names.iter().all(|name| verdict(name) == Some((Verdict::Keeps, "in sync"))), "{there:?}");
    assert_eq!(verdict("n2"), Some((Verdict::Unfit, "node!=n2 is required")));
    assert_eq!(
        there.iter().filter(|(_, verdict, _)| *verdict == Verdict::Fits).count(),
        2,
        "nobody owns it: {there:?}"
    );
    session.set_replicas("s", 3).unwrap();
    assert_eq!(plan("s", None).iter().filter(|(_, verdict, _)| *verdict == Verdict::Chosen).count(), 1);
    assert!(matches!(session.plan("s", Some(&make)), Err(Error::Exists(_))));
    assert!(matches!(session.plan("nothing", None), Err(Error::NotFound(_))));
}

/// The last owner's node has no copy, so that its zone is as good as any.
#[test]
fn what_a_plan_chooses_of_what_nobody_owns_is_what_is_done() {
    let cluster = racks();
    let session = cluster.session(0);
    let make = options().replicas(1).prefer("zone=b".parse().unwrap());
    opened(&session, &make).release().unwrap();
    let first = places(&session, "s");
    assert!(["n3", "n4"].contains(&first[0].as_str()), "{first:?}");
    let plan = session.plan("s", None).unwrap();
    let next = plan.iter().find(|node| node.verdict == Verdict::Fits).unwrap();
    assert!(next.why.starts_with("alone in zone a"), "{plan:?}");
    let owners = plan.iter().find(|node| node.node_name == "n0").unwrap();
    assert!(owners.why.starts_with("its last owner's node, where it may be owned again"), "{plan:?}");
    session.set_replicas("s", 2).unwrap();
    until("it has two", || (places(&session, "s").len() == 2).then_some(()));
    assert_eq!(places(&session, "s"), [next.node_name.clone(), first[0].clone()], "{plan:?}");
}

/// It is there for replicas, which go there first; no application owns a segment there, and none is moved there.
#[test]
fn a_storage_node_keeps_replicas_and_has_no_owner() {
    let mut cluster = Cluster::start(4, &[]);
    cluster.restart_as(2, &["--storage"]);
    let session = cluster.session(0);
    until("it is known for what it is", || session.nodes().unwrap().iter().any(|node| node.storage).then_some(()));
    // Whoever asks, and however full it is in comparison.
    for (node, count) in [(0, 8), (1, 8), (3, 8)] {
        for number in 0..count {
            let name = format!("n{node}/{number}");
            cluster.session(node).create(&name, &options().replicas(1)).unwrap();
            assert_eq!(places(&session, &name), ["n2"]);
        }
    }
    let plan = session.plan("another", Some(&options())).unwrap();
    let storage = plan.iter().find(|node| node.node_name == "n2").unwrap();
    assert!(storage.verdict == Verdict::Chosen && storage.why.contains("only keeps replicas"), "{plan:?}");

    let mut segment = opened(&session, &options().require("storage=yes".parse().unwrap()).replicas(1));
    let here = cluster.session(2);
    for standby in [OpenOptions::new(), OpenOptions::new().stand_by(None)] {
        let refused = here.open("s", &standby);
        let Err(Error::Refused(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("n2 only keeps replicas"), "{why}");
    }
    let moved = session.move_to("s", Some("n2"), Duration::from_secs(5));
    let Err(Error::Refused(why)) = moved else { panic!("{moved:?}") };
    assert!(why.contains("n2 only keeps replicas"), "{why}");
    write_state(&mut segment, 2);
    segment.checkpoint().unwrap();
    // From its owner it is had there as well.
    assert_eq!(check_state(here.load("s", &LoadOptions::new()).unwrap().bytes()), 2);
    segment.release().unwrap();
    assert_eq!(check_state(cluster.session(3).open("s", &OpenOptions::new()).unwrap().bytes()), 2);
}
