//! A device that goes while it is in use.

use hwtests::lab::program;

use super::cluster::{Cluster, Set};

/// Gives a node's RDMA device an interface of its own, dev0, which can go while eth0's network stays. The hub knows a node by the
/// last byte of its card's address.
const OWN_INTERFACE: &str = "rdma link delete rxe0; \
    echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore; echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce; \
    ip link add br0 type bridge; \
    ip link set br0 address $(cat /sys/class/net/eth0/address); \
    ip addr flush dev eth0; ip link set eth0 master br0; ip addr add 10.9.0.$NODE/24 dev br0; ip link set br0 up; \
    ip link add dev0 address 52:54:01:00:00:0$((NODE + 1)) type veth peer name port0; ip link set port0 master br0 up; \
    ip addr add 10.9.1.$NODE/24 dev dev0; ip link set dev0 up; rdma link add rxe1 type rxe netdev dev0; \
    until grep -q 0a09:010$NODE /sys/class/infiniband/rxe1/ports/1/gids/*; do sleep 0.1; done";

#[test]
fn a_device_that_goes_under_load_is_replaced_by_tcp_until_it_is_back() {
    let mut cluster = Cluster::start(&Set { at_boot: OWN_INTERFACE, ..Set::default() });
    cluster.owner(2, 32);
    cluster.acked(2, 2..);
    cluster.links_after(2, |links| links == ["verbs", "verbs"]);
    // A replica's, and then the owner's own.
    for (node, over_tcp) in [(3, 1), (2, 2)] {
        goes_and_comes_back(&mut cluster, node, over_tcp);
    }
}

/// `over_tcp`: how many replicas are reached by it meanwhile.
fn goes_and_comes_back(cluster: &mut Cluster, node: usize, over_tcp: usize) {
    cluster.lab.tell(node, "ip link set dev0 down");
    cluster.links_after(2, |links| links.iter().filter(|link| *link == "tcp").count() == over_tcp);
    let metrics = "exec 9<>/dev/tcp/127.0.0.1/9464; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&9; grep links{ <&9 | paste -sd' '";
    let metrics = cluster.ask(2, metrics);
    assert!(metrics.contains(&format!("provider=\"tcp\"}} {over_tcp}")), "{metrics}");
    let before = cluster.last_acked(2);
    assert!(cluster.acked(2, 2..) > before);
    cluster.lab.tell(node, "ip link set dev0 up");
    cluster.links_after(2, |links| links == ["verbs", "verbs"]);
    let before = cluster.last_acked(2);
    assert!(cluster.acked(2, 2..) > before);
}

/// The daemon began without it, and so did the owner's link.
#[test]
fn a_device_that_comes_late_is_used() {
    let late = format!("{OWN_INTERFACE}; [ $NODE != 3 ] || ip link set dev0 down");
    let mut cluster = Cluster::start(&Set { at_boot: &late, ..Set::default() });
    cluster.owner(2, 32);
    cluster.acked(2, 2..);
    cluster.links_after(2, |links| links.contains(&"tcp".into()));
    cluster.lab.tell(3, "ip link set dev0 up");
    cluster.links_after(2, |links| links == ["verbs", "verbs"]);
}

/// One whose RoCE alone is dead, while a device may take up to 80 s to say so: the owner waits for none of that.
#[test]
fn a_node_without_roce_is_reached_by_tcp_in_time() {
    let mut cluster = Cluster::start(&Set { daemons: "--rdma-patience 20s", ..Set::default() });
    cluster.owner(2, 32);
    cluster.acked(2, 2..);
    cluster.lab.order("roce 1 255");
    let cut = std::time::Instant::now();
    cluster.links_after(2, |links| links.contains(&"tcp".into()));
    println!("over TCP {:?} after RoCE died", cut.elapsed());
    assert!(cut.elapsed() < std::time::Duration::from_secs(6));
    let events = cluster.events(2);
    assert!(!events.iter().any(|what| what == "removed"), "{events:?}");
}

/// Registered memory is locked, and what cannot be locked goes over TCP: checkpoints, and a load.
#[test]
fn an_application_that_may_lock_little_memory_goes_over_tcp() {
    const LITTLE: &str = "prlimit --memlock=65536 setpriv --inh-caps=-ipc_lock --bounding-set=-ipc_lock";
    let mut cluster = Cluster::start(&Set::default());
    cluster.owner_under(LITTLE, 2, 32);
    cluster.held(2);
    cluster.acked(2, 2..);
    cluster.links_after(2, |links| links == ["tcp", "tcp"]);
    let status = cluster.json(2, "status s");
    assert!(status.contains("LimitMEMLOCK="), "{status}");
    let doctor = cluster.ask(2, &format!("{LITTLE} {} doctor", program("segctl").display()));
    assert!(doctor.contains("64.00 KiB here, unlimited for the daemon"), "{doctor}");
    cluster.owner_under(LITTLE, 3, 32);
    cluster.lab.tell(2, "kill -KILL $owner");
    cluster.taken_over(3, 2);
    cluster.acked(3, 2..);
}

/// A fabric that passes what has the traffic class that daemons and applications were given, and nothing else.
#[test]
fn what_is_sent_has_the_traffic_class() {
    let mut cluster = Cluster::start(&Set { daemons: "--rdma-traffic-class 96", ..Set::default() });
    for node in 1..=3 {
        cluster.lab.order(&format!("roce {node} 96"));
    }
    cluster.owner(2, 32);
    cluster.acked(2, 2..);
    assert!(cluster.is_over_verbs(2), "{:?}", cluster.links(2));
    cluster.lab.order("roce 3 97");
    cluster.links_after(2, |links| links.contains(&"tcp".into()));
}
