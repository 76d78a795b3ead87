//! A cluster whose directory is in an etcd of three members: it outlives any of its nodes, and any member.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use segstore::{CreateOptions, Error, OpenOptions};
use serde_json::Value;

use super::etcd_server::{EtcdServer, QUICK};
use super::harness::{Cluster, until};
use super::roles::{check_state, opened, options, write_state};

/// Three members, which elect a leader.
fn three() -> EtcdServer {
    let server = EtcdServer::start(3, &QUICK);
    server.leader();
    server
}

/// Owners are killed with their daemons, and the leader of etcd sometimes with them: what was acknowledged is there, whole.
#[test]
fn everything_acknowledged_survives_nodes_and_leaders() {
    let mut etcd = three();
    let mut cluster = Cluster::on_etcd(&etcd.endpoints(), 3, &[]);
    let mut acknowledged = 0;
    for round in 0..6_usize {
        let node = round % 3;
        let mut owner = cluster.client(node, "standby", &["s"]);
        let found = owner.line("owner").expect("it becomes the owner").parse().unwrap();
        assert!(found >= acknowledged, "{found} was loaded, {acknowledged} had been acknowledged");
        until("both replicas are in sync", || {
            // One on the owner's own node is beside them.
            (cluster.session(node).status("s").ok()?.owner?.elsewhere == 2).then_some(())
        });
        std::thread::sleep(Duration::from_millis(50 + 37 * (round as u64 % 5)));
        let leader = (round % 2 == 1).then(|| etcd.leader());
        leader.into_iter().for_each(|leader| etcd.signal(leader, Signal::SIGKILL));
        cluster.kill(node);
        owner.kill();
        let killed = Instant::now();
        acknowledged = owner.last_number("acknowledged").unwrap_or(found);
        let mut next = cluster.client((node + 1) % 3, "standby", &["s"]);
        let found = next.line("owner").expect("it becomes the owner").parse().unwrap();
        println!("taken over after {:?}, with etcd's leader: {}", killed.elapsed(), leader.is_some());
        assert!(found >= acknowledged, "{found} was loaded, {acknowledged} had been acknowledged");
        next.kill();
        acknowledged = next.last_number("acknowledged").unwrap_or(found);
        leader.into_iter().for_each(|leader| etcd.boot(leader, &QUICK));
        cluster.restart(node);
    }
    assert!(acknowledged > 6, "hardly anything was acknowledged: {acknowledged}");
}

/// One of three that is killed, or neither answers nor refuses, whether it leads or not: commits go on, nobody's lease ends, and whoever stands by
/// has the segment soon after its owner has died.
#[test]
fn one_member_of_etcd_can_be_done_without() {
    let mut etcd = three();
    let cluster = Cluster::on_etcd(&etcd.endpoints(), 3, &[]);
    for (beside, signal) in [(0, Signal::SIGKILL), (0, Signal::SIGSTOP), (1, Signal::SIGSTOP)] {
        let mut owner = cluster.client(0, "standby", &["s"]);
        owner.line("owner").expect("it becomes the owner");
        let mut next = cluster.client(1, "standby", &["s"]);
        until("both replicas are in sync", || {
            (cluster.session(0).status("s").ok()?.owner?.elsewhere == 2).then_some(())
        });
        let member = (etcd.leader() + beside) % 3;
        let holder = cluster.session(2).lookup("s").unwrap().holder;
        etcd.signal(member, signal);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            owner.line("acknowledged").expect("it goes on");
        }
        assert_eq!(cluster.session(2).lookup("s").unwrap().holder, holder, "three leases later");
        owner.kill();
        let killed = Instant::now();
        let acknowledged = owner.last_number("acknowledged").expect("it has said so for three seconds");
        let found: u64 = next.line("owner").expect("it becomes the owner").parse().unwrap();
        println!("{signal} to {beside} beside the leader: taken over after {:?}", killed.elapsed());
        assert!(killed.elapsed() < Duration::from_secs(3));
        assert!(found >= acknowledged, "{found} was loaded, {acknowledged} had been acknowledged");
        next.kill();
        match signal {
            Signal::SIGKILL => etcd.boot(member, &QUICK),
            _ => etcd.signal(member, Signal::SIGCONT),
        }
        etcd.leader();
    }
}

/// Without a majority of etcd nothing can be agreed on: commits go on, whoever wants the segment waits and is told for what.
#[test]
fn without_a_majority_of_etcd_commits_go_on_and_takeovers_wait() {
    let mut etcd = three();
    let cluster = Cluster::on_etcd(&etcd.endpoints(), 3, &[]);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options());
    let standby = cluster.client(1, "standby", &["s"]);
    std::thread::sleep(Duration::from_millis(300));
    [0, 1].into_iter().for_each(|member| etcd.signal(member, Signal::SIGKILL));
    for n in 2..20 {
        write_state(&mut segment, n);
        segment.checkpoint().unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    let taken = cluster.session(2).open("s", &OpenOptions::new());
    let Err(Error::Unreachable(why)) = taken else { panic!("{taken:?}") };
    assert!(why.contains("the directory") && why.contains(&etcd.endpoints()[2]), "{why}");
    until("the standby's daemon says for what it waits", || {
        std::fs::read_to_string(cluster.log(1)).unwrap().contains("goes on waiting: the directory").then_some(())
    });
    [0, 1].into_iter().for_each(|member| etcd.boot(member, &QUICK));
    write_state(&mut segment, 20);
    segment.checkpoint().unwrap();
    drop(segment);
    drop(session);
    let mut standby = standby;
    let found: u64 = standby.line("owner").expect("it becomes the owner").parse().unwrap();
    assert_eq!(found, 20);
    standby.kill();
    let segment = until("it is free", || cluster.session(2).open("s", &OpenOptions::new()).ok());
    assert!(check_state(segment.bytes()) >= 20);
}

/// Whatever it holds: nothing is polled.
#[test]
fn a_node_at_rest_hardly_wakes() {
    let etcd = three();
    let cluster = Cluster::on_etcd(&etcd.endpoints(), 3, &["--node-lease", "3s"]);
    let session = cluster.session(0);
    for number in 0..150 {
        session.create(&format!("s{number}"), &CreateOptions::new(64 << 10).replicas(2)).unwrap();
    }
    // What was made is looked after once, and then no more.
    std::thread::sleep(Duration::from_secs(3));
    let before = [0, 1, 2].map(|node| cluster.sleeps(node));
    std::thread::sleep(Duration::from_secs(20));
    for (node, before) in before.into_iter().enumerate() {
        let since = |(thread, count)| count - before.get(&thread).copied().unwrap_or(0);
        let wakes: u64 = cluster.sleeps(node).into_iter().map(since).sum();
        println!("n{node} has woken {wakes} times in 20 s");
        // Ten times a second, and room for a machine that does other things as well.
        assert!(wakes > 0 && wakes < 15 * 20, "n{node} has woken {wakes} times in 20 s");
    }
}

/// They are told apart by the names of their keys alone.
#[test]
fn two_clusters_live_in_one_etcd() {
    let etcd = three();
    let clusters = ["one/", "two/"].map(|prefix| Cluster::on_etcd(&etcd.endpoints(), 2, &["--etcd-prefix", prefix]));
    for cluster in &clusters {
        opened(&cluster.session(0), &options().replicas(1));
    }
    let keys = etcd.control(&["get", "--prefix", "", "--keys-only"]);
    let of = |prefix: &str| keys.lines().filter(|key| key.starts_with(prefix)).count();
    assert!(of("one/") > 3 && of("one/") == of("two/"), "{keys}");
}

/// Every field that stands there, and no other, is in the example of the documentation.
#[test]
fn what_stands_in_etcd_is_documented() {
    let etcd = three();
    let mut cluster = Cluster::on_etcd(&etcd.endpoints(), 4, &["--labels", "zone=a", "--transport", "tcp"]);
    let session = cluster.session(0);
    let make = options().require("zone=a".parse().unwrap()).prefer("ssd".parse().unwrap()).spread("rack");
    let mut segment = opened(&session, &make);
    let replica = session.lookup("s").unwrap().places.remove(0);
    cluster.kill(replica.node_name[1..].parse().unwrap());
    let mut n = 1;
    until("another replica has taken its place", || {
        n += 1;
        write_state(&mut segment, n);
        segment.checkpoint().unwrap();
        let places = session.lookup("s").unwrap().places;
        (places.len() == 2 && !places.iter().any(|place| place.member == replica.member)).then_some(())
    });
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/directory.md")).unwrap();
    let example = text.split("```json").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let example: serde_json::Map<String, Value> = serde_json::from_str(example).unwrap();
    let kind = |key: &str| key.split('/').next().unwrap().to_owned();
    let documented: BTreeMap<_, _> = example.iter().map(|(key, value)| (kind(key), value)).collect();
    let all = etcd.control(&["get", "--prefix", "segstore/"]);
    let lines: Vec<_> = all.lines().collect();
    let mut found = BTreeSet::new();
    for pair in lines.chunks_exact(2) {
        let kind = kind(pair[0].strip_prefix("segstore/").unwrap());
        let described = if kind == "names" { "nodes" } else { &kind };
        let value = serde_json::from_str(pair[1]).unwrap();
        assert_eq!(differs(documented[described], &value), None, "{}", pair[0]);
        found.insert(kind);
    }
    assert_eq!(found, documented.into_keys().collect(), "{all}");
}

/// Where two values have not the same fields, of the same kinds. Of lists the first are compared.
fn differs(one: &Value, other: &Value) -> Option<String> {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let names = |fields: &serde_json::Map<_, _>| fields.keys().cloned().collect::<BTreeSet<String>>();
            if names(one) != names(other) {
                return Some(format!("{:?} and {:?}", names(one), names(other)));
            }
            let below = one.iter().find_map(|(name, one)| Some((name, differs(one, &other[name])?)));
            below.map(|(name, how)| format!("{name}: {how}"))
        }
        (Value::Array(one), Value::Array(other)) => one.first().zip(other.first()).and_then(|(a, b)| differs(a, b)),
        _ => (std::mem::discriminant(one) != std::mem::discriminant(other)).then(|| format!("{one} and {other}")),
    }
}

/// The way back, with every daemon stopped.
#[test]
fn a_cluster_goes_back_from_etcd_to_a_file() {
    let etcd = three();
    let mut cluster = Cluster::on_etcd(&etcd.endpoints(), 3, &[]);
    let mut segment = opened(&cluster.session(1), &options());
    write_state(&mut segment, 2);
    segment.checkpoint().unwrap();
    segment.release().unwrap();
    cluster.move_to_file();
    let mut segment = cluster.session(2).open("s", &OpenOptions::new()).unwrap();
    assert_eq!((check_state(segment.bytes()), segment.term().0), (2, 2));
    write_state(&mut segment, 3);
    assert_eq!(segment.checkpoint().unwrap().in_sync, 2);
}

/// The application is not ended by it, whatever it is about to change: a replica on the node of the directory is lost while that is
/// stopped, and etcd counts far less than a directory that has lived for long.
#[test]
fn a_cluster_grows_from_a_file_to_etcd() {
    let mut cluster = Cluster::start(3, &["--transport", "tcp"]);
    let session = cluster.session(1);
    for number in 0..100 {
        let name = format!("passing{number}");
        session.create(&name, &options().replicas(1)).unwrap();
        session.remove(&name, false).unwrap();
    }
    let mut owner = cluster.client(1, "writer", &["s"]);
    owner.line("owner").expect("it becomes the owner");
    until("both replicas are in sync", || {
        (cluster.session(1).lookup("s").ok()?.record.record.in_sync.len() == 2).then_some(())
    });
    let etcd = three();
    cluster.move_to_etcd(&etcd.endpoints());
    until("the owner has its two replicas again, in its term", || {
        owner.line("acknowledged").expect("it goes on");
        let record = cluster.session(2).lookup("s").ok()?.record.record;
        (record.term.0 == 1 && record.in_sync.len() == 2).then_some(())
    });
    // More than a pipe holds of what it said before.
    for _ in 0..6000 {
        owner.line("acknowledged").expect("it goes on");
    }
    let mut acknowledged = 0;
    // The record is changed, and changes hands.
    let places = cluster.session(1).lookup("s").unwrap().places;
    let gone = places.into_iter().find(|place| place.node_name != "n1").unwrap();
    let gone = usize::from(gone.node_name != "n0") * 2;
    cluster.kill(gone);
    until("it goes on without that node", || {
        acknowledged = owner.line("acknowledged").expect("it goes on").parse().unwrap();
        let places = cluster.session(1).lookup("s").ok()?.places;
        places.iter().all(|place| place.node_name != format!("n{gone}")).then_some(())
    });
    owner.kill();
    let acknowledged = owner.last_number("acknowledged").unwrap_or(acknowledged);
    let standby = OpenOptions::new().stand_by(Some(Duration::from_secs(30)));
    let segment = cluster.session(2 - gone).open("s", &standby).unwrap();
    assert!(check_state(segment.bytes()) >= acknowledged);
}
