//! `put` and `get`.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use segstore::{BelowMinimum, CreateOptions, Session};
use serde_json::Value;

use crate::cluster::{Cluster, until};

#[test]
fn files_go_in_and_come_out() {
    let cluster = Cluster::start(3);
    let up = cluster.json(&["nodes"]).as_array().unwrap().iter().filter(|node| node["up"] == true).count();
    assert_eq!(up, 3);
    let mut content: Vec<u8> = (0..3_000_000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
    let first = cluster.put("files/a", &content);
    assert_eq!((&first["epoch"], &first["replicas_in_sync"]), (&1.into(), &2.into()));
    assert_eq!(cluster.get("files/a"), content);
    content[1_234_567] ^= 1;
    let second = cluster.put("files/a", &content);
    assert_eq!(second["changed_blocks"], 1);
    assert!(second["sent_bytes"].as_u64().unwrap() < 64 << 10, "{second}");
    assert_eq!(cluster.get("files/a"), content);
    content.extend([7; 100_000]);
    cluster.put("files/a", &content);
    assert_eq!(cluster.get("files/a"), content);
    content.truncate(5);
    cluster.put("files/a", &content);
    assert_eq!(cluster.get("files/a"), content);
    // What is beyond the end does not come back.
    content.extend([0; 10_000]);
    cluster.put("files/a", &content);
    assert_eq!(cluster.get("files/a"), content);
    assert_eq!(cluster.code(&["rm", "files/a"]), 0);
    assert_eq!(cluster.json(&["ls"]), Value::Array(Vec::new()));
}

/// Whoever writes a checkpoint to a device means the device.
#[test]
fn what_is_no_file_stays_what_it_is() {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let cluster = Cluster::start(2);
    cluster.put_with("a", b"state", 1);
    assert_eq!(cluster.code(&["get", "a", "/dev/null"]), 0);
    assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    let (target, link) = (cluster.file("target"), cluster.file("link"));
    std::fs::write(&target, b"before").unwrap();
    std::fs::set_permissions(&target, PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert_eq!(cluster.code(&["get", "a", link.to_str().unwrap()]), 0);
    assert!(link.is_symlink());
    assert_eq!(std::fs::read(&target).unwrap(), b"state");
    assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(cluster.code(&["get", "a", cluster.dir()]), 2);
    // A link to nothing so far, and a name as long as names are.
    let (target, link) = (cluster.file(&"n".repeat(255)), cluster.file("dangling"));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert_eq!(cluster.code(&["get", "a", link.to_str().unwrap()]), 0);
    assert!(link.is_symlink());
    assert_eq!(std::fs::read(&target).unwrap(), b"state");
    // A device without an end is not read for ever.
    let endless = cluster.run(&["put", "b", "/dev/zero"]);
    assert_eq!(endless.status.code(), Some(2), "{endless:?}");
    assert_eq!(cluster.code(&["put", "a", "/dev/zero"]), 2);
    assert_eq!(cluster.code(&["put", "b", "/dev/null"]), 0);
}

/// Nothing stays of a file that is not whole.
#[test]
fn a_copy_that_is_broken_off_leaves_nothing() {
    let cluster = Cluster::start(1);
    cluster.put_with("a", &vec![7; 56 << 20], 1);
    let folder = cluster.file("folder");
    std::fs::create_dir(&folder).unwrap();
    let copy = folder.join("copy");
    for _ in 0..20 {
        let mut get = cluster.command(1, &["get", "a", copy.to_str().unwrap()]).spawn().unwrap();
        let opened = format!("/proc/{}/fd", get.id());
        let is_writing = || {
            let mut open = std::fs::read_dir(&opened).into_iter().flatten().flatten();
            open.any(|fd| std::fs::read_link(fd.path()).is_ok_and(|file| file.starts_with(&folder)))
        };
        until("it writes", || is_writing() || get.try_wait().unwrap().is_some());
        get.kill().unwrap();
        if !get.wait().unwrap().success() {
            return assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        }
        // It was done before it was seen.
        std::fs::remove_file(&copy).unwrap();
    }
    panic!("no copy was broken off");
}

/// What cannot change must not be asked for in vain.
#[test]
fn a_segment_keeps_the_shape_it_was_made_with() {
    let cluster = Cluster::start(2);
    let file = cluster.file("content");
    std::fs::write(&file, "state").unwrap();
    let file = file.to_str().unwrap();
    let made = ["--block-size", "8K", "--replicas", "1", "--capacity", "1M"];
    assert_eq!(cluster.code(&[&["put", "a", file], &made[..]].concat()), 0);
    assert_eq!(cluster.code(&[&["put", "a", file], &made[..]].concat()), 0, "the same is no change");
    for (option, value, is) in
        [("--block-size", "4K", "8192"), ("--replicas", "2", "1 replica"), ("--capacity", "2M", "1048576")]
    {
        let put = cluster.run(&["put", "a", file, option, value]);
        let said = String::from_utf8(put.stderr).unwrap();
        assert!(put.status.code() == Some(2) && said.contains(option) && said.contains(is), "{said}");
    }
}

/// A segment that is kept by `put` alone has no owner that would replace what was lost.
#[test]
fn a_replica_that_is_missing_is_made_again() {
    let cluster = Cluster::start(4);
    cluster.put_with("a", b"state", 2);
    let replicas = &cluster.json(&["ls"])[0]["replicas"];
    let node = replicas[0]["node"].as_str().unwrap();
    let daemon = std::fs::read_to_string(cluster.file(&format!("{node}/segstored.pid"))).unwrap();
    kill(Pid::from_raw(daemon.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    let again = cluster.put_with("a", b"state, more of it", 2);
    assert_eq!((&again["replicas_in_sync"], &again["replicas_wanted"]), (&2.into(), &2.into()), "{again}");
}

/// What its minimum of replicas has is acknowledged: it is done, and whoever looks learns that more were wanted.
#[test]
fn fewer_replicas_than_wanted_are_a_warning() {
    let cluster = Cluster::start(2);
    let put = cluster.run(&["put", "a", "/etc/hostname", "--replicas", "3"]);
    let (said, warned) = (String::from_utf8(put.stdout).unwrap(), String::from_utf8(put.stderr).unwrap());
    assert_eq!(put.status.code(), Some(0), "{warned}");
    assert!(warned.contains("3 replicas on other nodes were asked for; a stands in 1"), "{warned}");
    assert!(!said.contains("WARNING"), "{said}");
    let put = cluster.put_with("a", b"state", 3);
    assert_eq!((&put["replicas_wanted"], &put["replicas_in_sync"]), (&3.into(), &1.into()), "{put}");
    // Where the segment's maker wanted nothing acknowledged below a minimum, nothing is.
    let make = CreateOptions::new(1 << 20).replicas(3).minimum(2, BelowMinimum::Stop);
    Session::connect_to(cluster.socket(1)).unwrap().create("strict", &make).unwrap();
    assert_eq!(cluster.code(&["put", "strict", "/etc/hostname"]), 13);
}

#[test]
fn programs_are_told_what_people_are() {
    let cluster = Cluster::start(2);
    assert_eq!(cluster.put_with("a", b"a longer state", 1)["epoch"], 1);
    let shorter = cluster.file("shorter");
    std::fs::write(&shorter, "short").unwrap();
    let put = cluster.run(&["put", "a", shorter.to_str().unwrap()]);
    let said = String::from_utf8(put.stdout).unwrap();
    assert!(said.contains("5 B, 14 B before") && said.contains("1 replica,"), "{said}");
    // A checkpoint that is asked for by its number is as acknowledged as it was.
    let got = cluster.run(&["--json", "get", "a", "-", "--epoch", "2"]);
    assert_eq!(got.stdout, b"short");
    let facts: Value = serde_json::from_slice(&got.stderr).unwrap();
    assert_eq!((&facts["epoch"], &facts["acknowledged"]), (&2.into(), &true.into()));
    for arguments in [
        ["--json", "get", "a", "/no/such/folder/file"],
        ["--json", "put", "a", "/no/such/file"],
        ["--json", "x", "", ""],
    ] {
        let failed = cluster.run(&arguments);
        let said: Value = serde_json::from_slice(&failed.stderr).unwrap();
        assert_eq!((failed.status.code(), &said["code"]), (Some(2), &2.into()), "{said}");
    }
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(cluster.command(1, &["ls"]).stdout(full).status().unwrap().code(), Some(1));
}

/// However much of it the former one takes, which goes for the new one.
#[test]
fn a_node_that_comes_back_has_its_replica_again_with_the_next_put() {
    let cluster = Cluster::start(3);
    let put = |state: &str| {
        let file = cluster.file("state");
        std::fs::write(&file, state).unwrap();
        cluster.json(&["put", "large", file.to_str().unwrap(), "--replicas", "2", "--capacity", "70M"])
    };
    assert_eq!(put("first")["replicas_in_sync"], 2);
    let daemon = std::fs::read_to_string(cluster.file("n2/segstored.pid")).unwrap();
    kill(Pid::from_raw(daemon.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(put("second")["replicas_in_sync"], 1);
    let up = cluster.run(&["dev", "up", "--nodes", "3", "--memory", "256MiB", "--dir", cluster.dir()]);
    assert!(up.status.success(), "{up:?}");
    // For a moment the others know it by its former address.
    until("it is asked what it keeps", || {
        let status = cluster.json(&["status", "large"]);
        status["replicas"].as_array().unwrap().iter().any(|replica| replica["node"] == "n2")
    });
    assert_eq!(put("third")["replicas_in_sync"], 2);
}
