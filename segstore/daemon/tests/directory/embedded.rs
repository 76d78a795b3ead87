//! What becomes of the embedded directory's file when things go wrong.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use segstored::directory::{Change, Directory, DirectoryError, Embedded, Value};
use tempfile::TempDir;

use crate::promises::{Fixture, put, value};

/// Names the file that a second process writes until it is killed.
const WRITER: &str = "SEGSTORE_TEST_WRITER";

/// In a file of its own.
pub(crate) struct EmbeddedFixture {
    _place: TempDir,
    directory: Embedded,
}

impl Fixture for EmbeddedFixture {
    const SHORT: Duration = Duration::from_millis(300);

    async fn start() -> Self {
        let place = TempDir::new().unwrap();
        let (directory, _) = open(&place);
        Self { _place: place, directory }
    }

    fn directory(&self) -> Arc<dyn Directory> {
        Arc::new(self.directory.clone())
    }
}

fn open(directory: &TempDir) -> (Embedded, PathBuf) {
    let file = directory.path().join("directory.redb");
    (Embedded::open(&file).unwrap(), file)
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
            .args(["embedded::writer_that_will_be_killed", "--exact", "--nocapture"])
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
