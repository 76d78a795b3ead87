//! What every directory promises, on the embedded one; and what becomes of its file when things go wrong.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use segstored::directory::{Change, Directory, DirectoryError, Embedded, Revision, Swapped, Value};
use tempfile::TempDir;

/// Names the file that a second process writes until it is killed.
const WRITER: &str = "SEGSTORE_TEST_WRITER";

fn value(bytes: &[u8]) -> Option<Value> {
    Some(Value { bytes: bytes.to_vec(), lease: None })
}

fn open(directory: &TempDir) -> (Embedded, PathBuf) {
    let file = directory.path().join("directory.redb");
    (Embedded::open(&file).unwrap(), file)
}

async fn put(directory: &Embedded, key: &str, expected: Option<Revision>, bytes: &[u8]) -> Revision {
    match directory.compare_swap(key, expected, value(bytes)).await.unwrap() {
        Swapped::Made(revision) => revision,
        Swapped::Conflict(current) => panic!("{key} is {current:?}"),
    }
}

#[tokio::test]
async fn a_swap_is_made_only_if_the_entry_is_unchanged() {
    let place = TempDir::new().unwrap();
    let (directory, _) = open(&place);
    let first = put(&directory, "a", None, b"1").await;
    let again = directory.compare_swap("a", None, value(b"2")).await.unwrap();
    assert!(matches!(again, Swapped::Conflict(Some(entry)) if entry.value == b"1" && entry.revision == first));
    let second = put(&directory, "a", Some(first), b"2").await;
    assert!(second > first);
    assert!(matches!(directory.compare_swap("a", Some(first), None).await.unwrap(), Swapped::Conflict(Some(_))));
    assert!(matches!(directory.compare_swap("a", Some(second), None).await.unwrap(), Swapped::Made(_)));
    assert_eq!(directory.read("a").await.unwrap(), None);
    assert_eq!(directory.compare_swap("a", Some(second), value(b"3")).await.unwrap(), Swapped::Conflict(None));
}

/// Nodes go on with the numbers of their leases when an empty directory, or an old copy, comes in the place of theirs: none of these may
/// be another node's there.
#[tokio::test]
async fn a_lease_is_of_one_directory() {
    let places = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let [(first, _), (second, _)] = [open(&places[0]), open(&places[1])];
    let time = Duration::from_secs(60);
    let held = first.grant(time).await.unwrap();
    second.grant(time).await.unwrap();
    assert_eq!(second.keep_alive(held).await, Err(DirectoryError::LeaseOver(held)));
}

#[tokio::test]
async fn of_many_claimants_one_wins() {
    let place = TempDir::new().unwrap();
    let (directory, _) = open(&place);
    let before = put(&directory, "record", None, b"nobody").await;
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

#[tokio::test]
async fn a_listing_and_a_watch_leave_no_gap() {
    let place = TempDir::new().unwrap();
    let (directory, _) = open(&place);
    put(&directory, "segments/a", None, b"1").await;
    put(&directory, "nodes/x", None, b"1").await;
    let listing = directory.list("segments/").await.unwrap();
    assert_eq!(listing.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["segments/a"]);
    // What happens between the two is told as well.
    let b = put(&directory, "segments/b", None, b"2").await;
    let mut watch = directory.watch("segments/", listing.revision).await.unwrap();
    put(&directory, "nodes/y", None, b"2").await;
    directory.compare_swap("segments/b", Some(b), None).await.unwrap();
    assert!(matches!(watch.recv().await, Some(Change::Put(entry)) if entry.revision == b));
    assert!(
        matches!(watch.recv().await, Some(Change::Deleted { key, revision }) if key == "segments/b" && revision > b)
    );
}

#[tokio::test]
async fn a_watcher_that_lags_is_told_to_list_again() {
    let place = TempDir::new().unwrap();
    let (directory, _) = open(&place);
    let start = directory.list("").await.unwrap().revision;
    let mut watch = directory.watch("", start).await.unwrap();
    let writers: Vec<_> = (0..6000_u32)
        .map(|n| {
            let directory = directory.clone();
            tokio::spawn(async move { directory.compare_swap(&n.to_string(), None, value(b"")).await.unwrap() })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let mut last = start;
    let mut told = 0;
    while let Some(change) = watch.recv().await {
        let Change::Put(entry) = change else { panic!("nothing was deleted") };
        assert_eq!(entry.revision.0, last.0 + 1, "a gap");
        (last, told) = (entry.revision, told + 1);
    }
    assert!(told < 6000, "the watch ended");
    assert!(matches!(directory.watch("", start).await, Err(DirectoryError::Forgotten(_))));
}

#[tokio::test]
async fn what_is_tied_to_a_lease_goes_with_it() {
    let place = TempDir::new().unwrap();
    let (directory, _) = open(&place);
    let short = directory.grant(Duration::from_millis(300)).await.unwrap();
    let long = directory.grant(Duration::from_secs(3600)).await.unwrap();
    for (key, lease) in [("nodes/short", short), ("nodes/long", long)] {
        let tied = Value { bytes: b"here".to_vec(), lease: Some(lease) };
        assert!(matches!(directory.compare_swap(key, None, Some(tied)).await.unwrap(), Swapped::Made(_)));
    }
    let listing = directory.list("nodes/").await.unwrap();
    let mut watch = directory.watch("nodes/", listing.revision).await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
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

#[tokio::test]
async fn leases_survive_a_restart_and_get_their_whole_time() {
    let place = TempDir::new().unwrap();
    let (directory, file) = open(&place);
    let lease = directory.grant(Duration::from_millis(400)).await.unwrap();
    let tied = Value { bytes: b"here".to_vec(), lease: Some(lease) };
    directory.compare_swap("nodes/a", None, Some(tied)).await.unwrap();
    drop(directory);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let directory = Embedded::open(&file).unwrap();
    directory.keep_alive(lease).await.expect("it could not be kept alive while the directory was away");
    assert!(directory.read("nodes/a").await.unwrap().is_some());
    let mut watch = directory.watch("nodes/", directory.list("").await.unwrap().revision).await.unwrap();
    assert!(matches!(watch.recv().await, Some(Change::Deleted { .. })), "its holder is gone");
}

/// The second process: writes one revision after another and says which are made.
#[test]
fn writer_that_will_be_killed() {
    let Some(file) = std::env::var_os(WRITER) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let directory = Embedded::open(Path::new(&file)).unwrap();
        let mut revision = directory.read("counter").await.unwrap().map(|entry| entry.revision);
        for n in 0_u64.. {
            revision = Some(put(&directory, "counter", revision, &n.to_le_bytes()).await);
            println!("made {}", revision.unwrap().0);
        }
    });
}

#[tokio::test]
async fn what_was_made_survives_kill_9() {
    use std::io::{BufRead, BufReader};
    let place = TempDir::new().unwrap();
    let file = place.path().join("directory.redb");
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["writer_that_will_be_killed", "--exact", "--nocapture"])
            .env(WRITER, &file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut made = 0;
        let mut count = 0;
        while count < 20 + 7 * round {
            if let Some(revision) = lines.next().unwrap().unwrap().strip_prefix("made ") {
                made = revision.parse().unwrap();
                count += 1;
            }
        }
        child.kill().unwrap();
        for line in lines.map_while(Result::ok) {
            made = line.strip_prefix("made ").map_or(made, |revision| revision.parse().unwrap());
        }
        child.wait().unwrap();
        let directory = Embedded::open(&file).unwrap();
        let found = directory.read("counter").await.unwrap().unwrap().revision.0;
        assert!(found == made || found == made + 1, "{made} was said to be made, {found} is there");
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_survived() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: a_full_disk_is_said_and_survived: mounting a small file system takes root");
        return;
    }
    let place = TempDir::new().unwrap();
    let small = Small::mount(place.path());
    let file = place.path().join("directory.redb");
    let directory = Embedded::open(&file).unwrap();
    let kept = put(&directory, "kept", None, b"kept").await;
    let ballast = place.path().join("ballast");
    std::fs::write(&ballast, vec![1; 2 << 20]).unwrap();
    let mut refused = 0;
    for n in 0..64 {
        match directory.compare_swap(&format!("large/{n}"), None, value(&[7; 256 << 10])).await {
            Ok(_) => {}
            Err(DirectoryError::Full(why)) => {
                assert!(why.contains("No space left"), "{why}");
                refused += 1;
                break;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(refused, 1, "the disk never was full");
    let entry = directory.read("kept").await.unwrap().expect("what was made before is still there");
    assert_eq!((entry.value.as_slice(), entry.revision), (b"kept".as_slice(), kept));
    std::fs::remove_file(&ballast).unwrap();
    put(&directory, "later", None, b"there is room again").await;
    drop(directory);
    drop(small);
}

/// A file system of 8 MiB, for as long as this lives.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Self {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(at).status().unwrap();
        assert!(mounted.success(), "mounting a small file system");
        Self(at.to_path_buf())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_file_that_is_none_is_refused() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("directory.redb");
    std::fs::write(&file, [0x55; 10_000]).unwrap();
    let Err(error) = Embedded::open(&file) else { panic!("it was taken for a directory") };
    assert!(error.to_string().contains("directory.redb"), "{error}");
    let (directory, second) = (place.path().join("other.redb"), place.path().join("other.redb"));
    let first = Embedded::open(&directory).unwrap();
    assert!(Embedded::open(&second).is_err(), "two daemons on one file");
    drop(first);
}
