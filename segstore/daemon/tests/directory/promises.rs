//! What every directory promises.

use std::sync::Arc;
use std::time::Duration;

use segstored::directory::{Change, Directory, DirectoryError, Revision, Swapped, Value};

/// A directory that is there as long as this.
pub(crate) trait Fixture {
    /// The shortest lease that it has.
    const SHORT: Duration;

    /// A new and empty one.
    async fn start() -> Self;

    fn directory(&self) -> Arc<dyn Directory>;
}

pub(crate) fn value(bytes: &[u8]) -> Option<Value> {
    Some(Value { bytes: bytes.to_vec(), lease: None })
}

pub(crate) async fn put(directory: &dyn Directory, key: &str, expected: Option<Revision>, bytes: &[u8]) -> Revision {
    match directory.compare_swap(key, expected, value(bytes)).await.unwrap() {
        Swapped::Made(revision) => revision,
        Swapped::Conflict(current) => panic!("{key} is {current:?}"),
    }
}

pub(crate) async fn a_swap_is_made_only_if_the_entry_is_unchanged<F: Fixture>() {
    let fixture = F::start().await;
    let directory = fixture.directory();
    let first = put(&*directory, "a", None, b"1").await;
    let again = directory.compare_swap("a", None, value(b"2")).await.unwrap();
    assert!(matches!(again, Swapped::Conflict(Some(entry)) if entry.value == b"1" && entry.revision == first));
    let second = put(&*directory, "a", Some(first), b"2").await;
    assert!(second > first);
    assert!(matches!(directory.compare_swap("a", Some(first), None).await.unwrap(), Swapped::Conflict(Some(_))));
    assert!(matches!(directory.compare_swap("a", Some(second), None).await.unwrap(), Swapped::Made(_)));
    assert_eq!(directory.read("a").await.unwrap(), None);
    assert_eq!(directory.compare_swap("a", Some(second), value(b"3")).await.unwrap(), Swapped::Conflict(None));
}

/// Nodes go on with the numbers of their leases when an empty directory, or an old copy, comes in the place of theirs: none of these may
/// be another node's there.
pub(crate) async fn a_lease_is_of_one_directory<F: Fixture>() {
    let fixtures = [F::start().await, F::start().await];
    let [first, second] = fixtures.each_ref().map(F::directory);
    let time = Duration::from_secs(60);
    let held = first.grant(time).await.unwrap();
    second.grant(time).await.unwrap();
    assert_eq!(second.keep_alive(held).await, Err(DirectoryError::LeaseOver(held)));
}

pub(crate) async fn of_many_claimants_one_wins<F: Fixture>() {
    let fixture = F::start().await;
    let directory = fixture.directory();
    let before = put(&*directory, "record", None, b"nobody").await;
    let claim = |n: u8| {
        let directory = directory.clone();
        tokio::spawn(async move { directory.compare_swap("record", Some(before), value(&[n])).await.unwrap() })
    };
    let claims: Vec<_> = (0..64).map(claim).collect();
    let mut made = 0;
    for claim in claims {
        made += usize::from(matches!(claim.await.unwrap(), Swapped::Made(_)));
    }
    assert_eq!(made, 1);
}

pub(crate) async fn a_listing_and_a_watch_leave_no_gap<F: Fixture>() {
    let fixture = F::start().await;
    let directory = fixture.directory();
    put(&*directory, "segments/a", None, b"1").await;
    put(&*directory, "nodes/x", None, b"1").await;
    let listing = directory.list("segments/").await.unwrap();
    assert_eq!(listing.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["segments/a"]);
    // What happens between the two is told as well.
    let b = put(&*directory, "segments/b", None, b"2").await;
    let mut watch = directory.watch("segments/", listing.revision).await.unwrap();
    put(&*directory, "nodes/y", None, b"2").await;
    directory.compare_swap("segments/b", Some(b), None).await.unwrap();
    assert!(matches!(watch.recv().await, Some(Change::Put(entry)) if entry.revision == b));
    assert!(
        matches!(watch.recv().await, Some(Change::Deleted { key, revision }) if key == "segments/b" && revision > b)
    );
}

pub(crate) async fn what_is_tied_to_a_lease_goes_with_it<F: Fixture>() {
    let fixture = F::start().await;
    let directory = fixture.directory();
    let short = directory.grant(F::SHORT).await.unwrap();
    let long = directory.grant(Duration::from_secs(3600)).await.unwrap();
    for (key, lease) in [("nodes/short", short), ("nodes/long", long)] {
        let tied = Value { bytes: b"here".to_vec(), lease: Some(lease) };
        assert!(matches!(directory.compare_swap(key, None, Some(tied)).await.unwrap(), Swapped::Made(_)));
    }
    let listing = directory.list("nodes/").await.unwrap();
    let mut watch = directory.watch("nodes/", listing.revision).await.unwrap();
    for _ in 0..12 {
        tokio::time::sleep(F::SHORT / 4).await;
        directory.keep_alive(short).await.unwrap();
    }
    assert_eq!(directory.list("nodes/").await.unwrap().entries.len(), 2, "it was kept alive");
    assert!(matches!(watch.recv().await, Some(Change::Deleted { key, .. }) if key == "nodes/short"));
    assert_eq!(directory.keep_alive(short).await, Err(DirectoryError::LeaseOver(short)));
    let late = Value { bytes: b"again".to_vec(), lease: Some(short) };
    assert_eq!(directory.compare_swap("nodes/short", None, Some(late)).await, Err(DirectoryError::LeaseOver(short)));
    directory.end(long).await.unwrap();
    assert!(matches!(watch.recv().await, Some(Change::Deleted { key, .. }) if key == "nodes/long"));
}

/// Whoever writes an entry anew decides what it is tied to from then on: a node that has joined again must not lose its entry with its former lease.
pub(crate) async fn an_entry_goes_with_the_lease_that_it_was_last_written_with<F: Fixture>() {
    let fixture = F::start().await;
    let directory = fixture.directory();
    let time = Duration::from_secs(60);
    let [former, next] = [directory.grant(time).await.unwrap(), directory.grant(time).await.unwrap()];
    let tied = |lease| Some(Value { bytes: b"here".to_vec(), lease });
    for (key, again) in [("freed", None), ("moved", Some(next)), ("kept", Some(former))] {
        let Swapped::Made(first) = directory.compare_swap(key, None, tied(Some(former))).await.unwrap() else {
            panic!("nothing stood there")
        };
        assert!(matches!(directory.compare_swap(key, Some(first), tied(again)).await.unwrap(), Swapped::Made(_)));
        assert_eq!(directory.read(key).await.unwrap().unwrap().lease, again);
    }
    let keys = async || {
        let entries = directory.list("").await.unwrap().entries;
        entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
    };
    directory.end(former).await.unwrap();
    assert_eq!(keys().await, ["freed", "moved"]);
    directory.end(next).await.unwrap();
    assert_eq!(keys().await, ["freed"]);
}

/// At once and once for all; whoever is not sure that he has ended it does so again.
pub(crate) async fn a_lease_that_was_ended_stays_so<F: Fixture>() {
    let fixture = F::start().await;
    let directory = fixture.directory();
    let time = Duration::from_secs(60);
    let [lease, other] = [directory.grant(time).await.unwrap(), directory.grant(time).await.unwrap()];
    assert_ne!(lease, other);
    let tied = Value { bytes: b"here".to_vec(), lease: Some(lease) };
    directory.compare_swap("nodes/a", None, Some(tied)).await.unwrap();
    for _ in 0..2 {
        directory.end(lease).await.unwrap();
        assert_eq!(directory.read("nodes/a").await.unwrap(), None);
        assert_eq!(directory.keep_alive(lease).await, Err(DirectoryError::LeaseOver(lease)));
    }
    directory.keep_alive(other).await.unwrap();
}

/// However many write at the same time.
pub(crate) async fn a_watch_tells_everything_in_order<F: Fixture>() {
    const WRITERS: usize = 8;
    const WRITES: usize = 40;
    let fixture = F::start().await;
    let directory = fixture.directory();
    let start = directory.list("w/").await.unwrap();
    let mut watch = directory.watch("w/", start.revision).await.unwrap();
    let writers = (0..WRITERS).map(|n| {
        let directory = directory.clone();
        tokio::spawn(async move {
            let (key, mut last) = (format!("w/{n}"), None);
            for write in 0..WRITES {
                last = Some(put(&*directory, &key, last, write.to_string().as_bytes()).await);
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let (mut last, mut next) = (start.revision, [0; WRITERS]);
    for _ in 0..WRITERS * WRITES {
        let told = tokio::time::timeout(Duration::from_secs(30), watch.recv()).await.expect("it was told of");
        let Some(Change::Put(entry)) = told else { panic!("{told:?}") };
        assert!(entry.revision > last, "{entry:?} was told of after {last:?}");
        last = entry.revision;
        let writer: usize = entry.key["w/".len()..].parse().unwrap();
        assert_eq!(String::from_utf8(entry.value).unwrap(), next[writer].to_string(), "of writer {writer}");
        next[writer] += 1;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(next, [WRITES; WRITERS]);
}

/// By rising name, and no other than those that begin so.
pub(crate) async fn a_listing_is_of_one_prefix<F: Fixture>() {
    let fixture = F::start().await;
    let directory = fixture.directory();
    for key in ["s/b", "s/a", "s/a/b", "s/ab", "s", "t/a", "s/é", "s0", "r/z"] {
        put(&*directory, key, None, key.as_bytes()).await;
    }
    for (prefix, all) in [
        ("s/", &["s/a", "s/a/b", "s/ab", "s/b", "s/é"][..]),
        ("s/a", &["s/a", "s/a/b", "s/ab"]),
        ("s/a/", &["s/a/b"]),
        ("u", &[]),
        ("", &["r/z", "s", "s/a", "s/a/b", "s/ab", "s/b", "s/é", "s0", "t/a"]),
    ] {
        let listing = directory.list(prefix).await.unwrap();
        assert!(listing.entries.iter().all(|entry| entry.value == entry.key.as_bytes() && entry.lease.is_none()));
        assert!(listing.entries.iter().all(|entry| entry.revision <= listing.revision));
        assert_eq!(listing.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), all, "{prefix:?}");
    }
}
