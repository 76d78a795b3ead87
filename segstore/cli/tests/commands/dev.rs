//! `dev`: clusters on this machine.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::{Cluster, has_ended, segctl};

#[test]
fn a_cluster_that_is_down_leaves_nothing_behind() {
    let cluster = Cluster::start(2);
    let again = cluster.run(&["dev", "up", "--nodes", "2", "--dir", cluster.dir()]);
    assert!(again.status.success(), "up again is no mistake: {again:?}");
    let daemon = std::fs::read_to_string(cluster.file("n1/segstored.pid")).unwrap();
    let memory = cluster.memory(1);
    assert!(memory.is_dir());
    cluster.put_with("notes", b"of the first life", 1);
    assert_eq!(cluster.code(&["dev", "down", "--dir", cluster.dir()]), 0);
    assert!(!memory.exists() && !cluster.socket(1).exists());
    assert!(has_ended(&daemon));
    // The same again: names whose segments are gone are not in the way.
    let up = cluster.run(&["dev", "up", "--nodes", "2", "--dir", cluster.dir()]);
    assert!(up.status.success(), "{up:?}");
    cluster.put_with("notes", b"of the second", 1);
    assert_eq!(cluster.get("notes"), b"of the second");
}

/// A process that was killed has its files until its memory is given back.
#[test]
fn a_daemon_that_is_not_gone_yet_is_waited_for() {
    let cluster = Cluster::start(1);
    let daemon = std::fs::read_to_string(cluster.file("n1/segstored.pid")).unwrap();
    kill(Pid::from_raw(daemon.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    let lock = File::options().write(true).open(cluster.file("n1/data/lock")).unwrap();
    let locked = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    let going = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(1500));
        drop(locked);
    });
    let up = cluster.run(&["dev", "up", "--nodes", "1", "--dir", cluster.dir()]);
    assert!(up.status.success(), "{up:?}");
    going.join().unwrap();
}

#[test]
fn what_was_chosen_wrong_is_said_before_anything_runs() {
    let place = tempfile::TempDir::new().unwrap();
    // In folders that are not there, and in one that is.
    let (dir, present) = (place.path().join("new/a/cluster"), place.path().join("present"));
    std::fs::create_dir(&present).unwrap();
    let up = |arguments: &[&str]| {
        let up = segctl().args(["dev", "up", "--dir"]).args(arguments).output().unwrap();
        (up.status.code().unwrap(), String::from_utf8(up.stderr).unwrap())
    };
    for (option, value) in [("--memory", "lots"), ("--transport", "pigeon"), ("--node-lease", "1ms")] {
        for dir in [&dir, &present] {
            let (code, said) = up(&[dir.to_str().unwrap(), option, value]);
            assert!(code == 2 && said.contains(value), "{said}");
        }
    }
    let relative =
        segctl().args(["dev", "up", "--dir", "new/b", "--memory", "lots"]).current_dir(place.path()).status();
    assert_eq!(relative.unwrap().code(), Some(2));
    let unmade = place.path().join("new").join("n".repeat(300));
    assert_eq!(up(&[unmade.to_str().unwrap()]).0, 2);
    assert!(!place.path().join("new").exists());
    assert_eq!(std::fs::read_dir(&present).unwrap().count(), 0);
    let deep = place.path().join("d".repeat(120));
    let (code, said) = up(&[deep.to_str().unwrap()]);
    assert!(code == 2 && said.contains("107") && said.contains("n1/segstored.sock"), "{said}");
    assert!(!deep.exists());
}

#[test]
fn a_cluster_that_does_not_come_up_does_not_half_run() {
    let place = tempfile::TempDir::new().unwrap();
    let second = place.path().join("n2");
    std::fs::create_dir(&second).unwrap();
    std::fs::write(second.join("segstored.log"), "of an earlier start\n").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    std::fs::write(second.join("segstored.metrics"), taken.local_addr().unwrap().to_string()).unwrap();
    let up = segctl().args(["dev", "up", "--nodes", "2", "--dir", place.path().to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8(up.stderr).unwrap();
    assert!(!up.status.success() && said.contains("n2 does not come up") && said.contains("metrics"), "{said}");
    assert!(!said.contains("earlier"), "{said}");
    assert!(!place.path().join("n1/segstored.sock").exists() && !place.path().join("n1/segstored.pid").exists());
}

/// Whatever a folder is called, and whatever the caller's own daemons are told.
#[test]
fn a_cluster_is_where_it_was_asked_for() {
    let place = tempfile::TempDir::new().unwrap();
    // With a space that is none, which nobody sees.
    let dir = place.path().join("eine k\u{fc}hle\u{a0}Nacht");
    let dir = dir.to_str().unwrap();
    let up = |more: &[&str]| {
        let mut up = segctl();
        up.args(["dev", "up", "--nodes", "1", "--memory", "64MiB", "--dir", dir]).args(more);
        up.env("SEGSTORED_SOCKET", "/elsewhere/segstored.sock").env("SEGSTORED_METRICS", "off").output().unwrap()
    };
    let first = up(&[]);
    assert!(first.status.success(), "{first:?}");
    let said = String::from_utf8(first.stdout).unwrap();
    let export = said.lines().find(|line| line.contains("export")).unwrap();
    let shell = format!("{export}; {} --json nodes", env!("CARGO_BIN_EXE_segctl"));
    assert!(Command::new("sh").args(["-c", &shell]).output().unwrap().status.success(), "{export}");
    let metrics = std::fs::read_to_string(format!("{dir}/n1/segstored.metrics")).unwrap();
    let mut answer = String::new();
    let mut stream = TcpStream::connect(metrics).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    let other = up(&["--node-lease", "5s"]);
    assert!(other.status.success() && String::from_utf8_lossy(&other.stderr).contains("node-lease 3s"), "{other:?}");
    // Only root can be somebody else.
    if nix::unistd::Uid::effective().is_root() {
        std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let refused = segctl().args(["dev", "down", "--dir", dir]).uid(65_534).output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(17) && said.contains("root"), "{said}");
    }
    let down = segctl().args(["dev", "down", "--dir", dir]).output().unwrap();
    assert_eq!(String::from_utf8(down.stdout).unwrap(), "1 daemon stopped\n");
}
