//! What a daemon tells Prometheus, against what happened.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};

use segstore::{CreateOptions, OpenOptions};

use super::harness::{Cluster, until};

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: n0\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The value of one line of a scrape.
fn value(port: u16, series: &str) -> Option<f64> {
    let text = get(port, "/metrics");
    assert!(text.starts_with("HTTP/1.1 200") && text.trim_end().ends_with("# EOF"), "{text}");
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

/// The first of ten free ports in a row, which no other test here is given.
fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    let is_free = |first: &u16| (*first..first + 10).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    std::iter::repeat_with(|| NEXT.fetch_add(10, Ordering::Relaxed)).find(is_free).unwrap()
}

/// Its owner would notice with its next checkpoint.
#[test]
fn a_replica_whose_node_dies_is_missed_while_the_owner_rests() {
    let first = free_ports();
    let mut cluster = Cluster::start(3, &["--metrics", &format!("127.0.0.1:{}{{node}}", first / 10)]);
    let session = cluster.session(0);
    let make = CreateOptions::new(1 << 20).replicas(2);
    let mut segment = session.open_or_create("a/b", &make, &OpenOptions::new()).unwrap();
    segment.checkpoint().unwrap();
    let of = |what: &str| value(first, &format!("segstore_segment_{what}{{segment=\"a/b\"}}"));
    assert_eq!((of("under_replicated"), of("replicas_in_sync")), (Some(0.0), Some(2.0)));
    assert_eq!(session.status("a/b").unwrap().trouble(), None);
    cluster.kill(1);
    let is_missed = || {
        let trouble = session.status("a/b").unwrap().trouble();
        let is_missed = (of("under_replicated"), of("replicas_in_sync")) == (Some(1.0), Some(1.0));
        (is_missed && trouble?.contains("n1: its node is down")).then_some(())
    };
    until("it is missed", is_missed);
    assert_eq!(session.status("a/b").unwrap().owner.unwrap().elsewhere, 2, "the owner has not noticed");
    // Nor is there one while the name is only held, as `segctl run` does between its programs.
    session.acquire("a/b", None, false).unwrap();
    segment.release().unwrap();
    assert!(session.status("a/b").unwrap().owner.is_none());
    until("it is missed still", is_missed);
}

#[test]
fn metrics_tell_what_happened() {
    let first = free_ports();
    // The last digit of the port is the node's number.
    let mut cluster = Cluster::start(3, &["--metrics", &format!("127.0.0.1:{}{{node}}", first / 10)]);
    let make = CreateOptions::new(1 << 20).replicas(2);
    let mut segment = cluster.session(0).open_or_create("a/b", &make, &OpenOptions::new()).unwrap();
    segment.set_len(100_000).unwrap();
    for _ in 0..7 {
        segment.bytes_mut(..10).unwrap().fill(1);
        segment.checkpoint().unwrap();
    }
    let of = |what: &str| value(first, &format!("segstore_segment_{what}{{segment=\"a/b\"}}"));
    let epoch = segment.epoch().0 as f64;
    assert_eq!((of("epoch_newest"), of("epoch_acknowledged")), (Some(epoch), Some(epoch)));
    assert_eq!((of("unsafe_age_seconds"), of("unsafe_bytes")), (Some(0.0), Some(0.0)));
    assert_eq!((of("replicas_in_sync"), of("replicas_wanted")), (Some(2.0), Some(2.0)));
    assert_eq!(of("length_bytes"), Some(100_000.0));
    let over = |provider| value(first, &format!("segstore_segment_links{{segment=\"a/b\",provider=\"{provider}\"}}"));
    assert_eq!((over("shm"), over("tcp")), (Some(2.0), None));
    let status = cluster.session(0).status("a/b").unwrap();
    assert!(status.replicas.iter().all(|replica| replica.over.as_deref() == Some("shm")), "{:?}", status.replicas);
    assert_eq!(of("checkpoint_duration_seconds_count"), Some(7.0));
    assert_eq!(of("load_duration_seconds_count"), Some(1.0));
    assert!(of("checkpoint_duration_seconds_sum") > Some(0.0) && of("pushed_bytes") > Some(100_000.0));
    let (used, free) = (value(first + 1, "segstore_memory_used_bytes"), value(first + 1, "segstore_memory_free_bytes"));
    assert_eq!(used.unwrap() + free.unwrap(), f64::from(512 << 20));
    assert!(used > Some(2.0 * f64::from(1 << 20)));
    assert_eq!(value(first, "segstore_memory_used_bytes"), Some(0.0));
    assert_eq!((value(first, "segstore_nodes_up"), value(first, "segstore_directory_up")), (Some(3.0), Some(1.0)));
    // What Prometheus demands of a histogram: bounds and counts that rise, up to all of them.
    for (what, count) in [("checkpoint_duration", 7.0), ("load_duration", 1.0)] {
        let text = get(first, "/metrics");
        let prefix = format!("segstore_segment_{what}_seconds_bucket{{le=\"");
        let bucket = |line: &str| {
            let (bound, count) = line.strip_prefix(&prefix)?.split_once("\",segment=\"a/b\"} ")?;
            Some((bound.parse::<f64>().unwrap(), count.parse::<f64>().unwrap()))
        };
        let buckets: Vec<_> = text.lines().filter_map(bucket).collect();
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{buckets:?}");
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{text}");
        let longest = buckets[buckets.len() - 2].0;
        assert!(longest > 600.0, "buckets reach up to minutes: {longest}");
    }
    assert!(get(first, "/nothing").starts_with("HTTP/1.1 404"));
    // A replica dies: that is seen, and the segment goes on.
    cluster.kill(1);
    std::fs::remove_dir_all(cluster.memory(1)).unwrap();
    until("the missing replica is told", || {
        segment.write(0, b"x").unwrap();
        segment.checkpoint().unwrap();
        (of("replicas_in_sync") == Some(1.0) && of("replicas_wanted") == Some(2.0)).then_some(())
    });
    until("the node that is down is told", || (value(first, "segstore_nodes_up") == Some(2.0)).then_some(()));
    // The owner goes: what it wanted is still told, once, by the directory's host.
    drop(segment);
    until("the directory's host tells it", || {
        (of("replicas_in_sync") == Some(1.0) && of("replicas_wanted") == Some(2.0)).then_some(())
    });
    assert_eq!(value(first + 2, "segstore_segment_replicas_in_sync{segment=\"a/b\"}"), None);
    // The directory's daemon is this one; what another node says of it when it is gone:
    cluster.kill(0);
    until("the missing directory is told", || (value(first + 2, "segstore_directory_up") == Some(0.0)).then_some(()));
}
