//! What goes wrong around a cluster: wrong secrets, other users, files that are cut short or altered, full memory, old directories.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use segstore::control::channel::{Asked, Channel};
use segstore::control::frame::{ToClient, ToDaemon, decode, encode};
use segstore::control::message::{FaultKind, Request};
use segstore::{CreateOptions, Error, LoadOptions, OpenOptions, Session};
use segstored::directory::{Directory, Embedded};

use super::harness::{Cluster, WATCHDOG, until};
use super::roles::{check_state, opened, options, write_state};

const OVER_TCP: &[&str] = &["--transport", "tcp"];

/// A tmpfs of so many KiB for a node's replicas; it goes when the cluster does.
fn small_memory(cluster: &Cluster, node: usize, kib: usize) -> Mounted {
    let memory = cluster.memory(node);
    std::fs::remove_dir_all(&memory).unwrap();
    std::fs::create_dir(&memory).unwrap();
    let size = format!("size={kib}k");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&memory).status().unwrap();
    assert!(mounted.success(), "this test needs root");
    Mounted(memory)
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn slots(cluster: &Cluster, node: usize) -> PathBuf {
    let files = std::fs::read_dir(cluster.memory(node)).unwrap().flatten().map(|file| file.path());
    files.into_iter().find(|file| file.extension().is_some_and(|kind| kind == "slots")).unwrap()
}

#[test]
fn a_node_with_another_secret_stays_outside() {
    let cluster = Cluster::start(2, &[]);
    let wrong = cluster.data(0).join("wrong-secret");
    std::fs::write(&wrong, "quite another secret sentence").unwrap();
    std::fs::set_permissions(&wrong, PermissionsExt::from_mode(0o600)).unwrap();
    let mut stranger = cluster.command(2).arg("--secret-file").arg(&wrong).spawn().unwrap();
    until("the stranger is told", || {
        let log = std::fs::read_to_string(cluster.log(0)).unwrap();
        log.contains("no daemon of this cluster").then_some(())
    });
    until("it knows why", || {
        let log = std::fs::read_to_string(cluster.log(2)).unwrap();
        (log.contains("another cluster secret") && log.contains("waiting for the directory")).then_some(())
    });
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert_eq!(cluster.session(0).nodes().unwrap().len(), 2);
}

/// A daemon that does not get in tries ten times a second; whatever it is, the log of those inside stays readable.
#[test]
fn a_stranger_that_comes_again_and_again_is_told_of_once() {
    let cluster = Cluster::start(1, &[]);
    let address = cluster.session(0).nodes().unwrap()[0].address.clone();
    for _ in 0..20 {
        let mut stranger = TcpStream::connect(&address).unwrap();
        stranger.write_all(&[0; 100]).unwrap();
        // To its end: it is refused before the next one comes.
        let _ = stranger.read_to_end(&mut Vec::new());
    }
    let told = until("the stranger is told of", || {
        let log = std::fs::read_to_string(cluster.log(0)).unwrap();
        let told = log.matches("no daemon of this cluster").count();
        (told > 0).then_some(told)
    });
    assert_eq!(told, 1);
}

#[test]
fn a_secret_that_others_may_read_is_refused() {
    let cluster = Cluster::start(1, &[]);
    let open = cluster.data(0).join("open-secret");
    std::fs::write(&open, "a secret that everybody may read").unwrap();
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o644)).unwrap();
    let refused = cluster.command(1).arg("--secret-file").arg(&open).status().unwrap();
    assert_eq!(refused.code(), Some(1));
    assert!(std::fs::read_to_string(cluster.log(1)).unwrap().contains("chmod 600"));
    // Where the configuration is only checked as well; what it comes to is a configuration.
    let checked = cluster.command(1).arg("--check-config").output().unwrap();
    assert!(checked.status.success());
    let told = String::from_utf8(checked.stdout).unwrap();
    assert!(told.contains("\nmemory = \"536870912\"\n") && told.contains("\nsocket_mode = \"666\"\n"), "{told}");
    let refused = cluster.command(1).arg("--check-config").arg("--secret-file").arg(&open).status().unwrap();
    assert_eq!(refused.code(), Some(2));
}

#[test]
fn a_second_daemon_on_the_same_data_is_refused() {
    let cluster = Cluster::start(1, &[]);
    let second = cluster.command(0).status().unwrap();
    assert_eq!(second.code(), Some(1));
    assert!(std::fs::read_to_string(cluster.log(0)).unwrap().contains("another daemon uses it (process "));
    cluster.session(0).nodes().unwrap();
}

#[test]
fn a_wrong_configuration_is_told_at_once_and_in_full() {
    let refused = Command::new(env!("CARGO_BIN_EXE_segstored"))
        .args(["--listen", "here", "--memory", "lots", "--node-lease", "never", "--directory", "somewhere"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let told = String::from_utf8(refused.stderr).unwrap();
    for key in ["listen: \"here\"", "memory: \"lots\"", "node_lease: \"never\"", "directory: \"somewhere\""] {
        assert!(told.contains(key), "{key} in {told}");
    }
}

#[test]
fn a_replica_that_is_cut_short_is_left_out() {
    let cluster = Cluster::start(3, OVER_TCP);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options());
    std::fs::File::options().write(true).open(cluster.slots(1)).unwrap().set_len(4096).unwrap();
    let listed = session.segments().unwrap().remove(0);
    let trouble = listed.trouble().expect("it is shown before anybody reads");
    assert!(trouble.contains("1 of 2") && trouble.contains("n1") && trouble.contains("cut short"), "{trouble}");
    for n in 2..20 {
        write_state(&mut segment, n);
        segment.checkpoint().unwrap();
    }
    drop(segment);
    let standby = OpenOptions::new().stand_by(Some(WATCHDOG));
    let segment = cluster.session(2).open("s", &standby).unwrap();
    assert_eq!(check_state(segment.bytes()), 19);
    assert!(cluster.session(1).nodes().unwrap().iter().all(|node| node.up), "its daemon lives on");
}

/// Nothing can be said to such a replica: it does not come back by waiting.
#[test]
fn a_replica_without_its_head_is_lost() {
    let cluster = Cluster::start(2, &[]);
    let session = cluster.session(0);
    opened(&session, &CreateOptions::new(1 << 20).replicas(1)).release().unwrap();
    let head = cluster.slots(1).with_extension("head");
    std::fs::File::options().write(true).open(head).unwrap().set_len(0).unwrap();
    let listed = session.segments().unwrap().remove(0);
    assert!(listed.is_lost() && listed.trouble().unwrap().contains("cut short"), "{listed:?}");
    let shown = session.status("s").unwrap().replicas.remove(0).problem;
    assert!(shown.as_ref().is_some_and(|why| why.contains("cut short")), "{shown:?}");
    let loaded = session.load("s", &LoadOptions::new()).err();
    assert!(matches!(&loaded, Some(Error::NoGoodCopy(why)) if why.contains("cut short")), "{loaded:?}");
}

#[test]
fn altered_bytes_are_found_and_another_copy_is_loaded() {
    let cluster = Cluster::start(3, OVER_TCP);
    let session = cluster.session(0);
    let segment = opened(&session, &options());
    drop(segment);
    (0..2).for_each(|slot| cluster.alter(1, slot));
    let standby = OpenOptions::new().stand_by(Some(WATCHDOG));
    let segment = session.open("s", &standby).unwrap();
    assert_eq!(check_state(segment.bytes()), 1);
    drop(segment);
    // With the good one altered as well there is none: that is said, and nothing is given.
    (0..2).for_each(|slot| cluster.alter(2, slot));
    let both = until("the name is free", || match session.open("s", &OpenOptions::new()) {
        Err(Error::Owned { .. }) => None,
        other => Some(other),
    });
    let Err(Error::NoGoodCopy(text)) = both else { panic!("{both:?}") };
    assert!(text.contains("fail their checksums"), "{text}");
}

/// The same image stands in both slots, and is whole in none.
#[test]
fn one_image_is_read_from_two_damaged_slots() {
    let cluster = Cluster::start(2, &[]);
    let session = cluster.session(0);
    opened(&session, &CreateOptions::new(1 << 20)).release().unwrap();
    let file = std::fs::File::options().write(true).open(cluster.slots(1)).unwrap();
    let length = file.metadata().unwrap().len();
    for slot in 0..2 {
        file.write_all_at(b"damage", slot * (length / 2 + 16384) + 65536).unwrap();
    }
    for pending in [true, false] {
        let image = session.load("s", &LoadOptions::new().pending(pending));
        assert_eq!(check_state(image.unwrap().bytes()), 1, "pending: {pending}");
    }
}

/// Of two slots with the same image one is altered: the other one is loaded, and the altered one is written in full.
#[test]
fn a_good_slot_beside_a_damaged_one_is_enough() {
    let cluster = Cluster::start(2, &[]);
    let session = cluster.session(0);
    opened(&session, &CreateOptions::new(1 << 20)).release().unwrap();
    for (n, slot) in [(1, 0), (2, 1)] {
        cluster.alter(1, slot);
        assert_eq!(check_state(session.load("s", &LoadOptions::new()).unwrap().bytes()), n);
        let mut segment = session.open("s", &OpenOptions::new()).unwrap();
        write_state(&mut segment, n + 1);
        segment.checkpoint().unwrap();
        segment.release().unwrap();
    }
}

#[test]
fn full_memory_is_told_when_the_segment_is_made() {
    let mut cluster = Cluster::start(2, &[]);
    cluster.kill(1);
    let _memory = small_memory(&cluster, 1, 4096);
    cluster.restart(1);
    cluster.until_up(2);
    let refused = cluster.session(0).create("s", &CreateOptions::new(8 << 20));
    let Err(Error::NoRoom(text)) = refused else { panic!("{refused:?}") };
    assert!(text.contains("remount,size="), "{text}");
    assert!(cluster.session(0).segments().unwrap().is_empty());
}

/// There is no room to move a replica away from an owner that is only silent: it is served to nobody else, and it is not lost.
fn a_replica_waits_for_its_writer(meanwhile: impl FnOnce(&mut Cluster)) {
    let mut cluster = Cluster::start(2, &["--transport", "shm"]);
    cluster.kill(1);
    let _memory = small_memory(&cluster, 1, 2400);
    cluster.restart(1);
    cluster.until_up(2);
    let session = cluster.session(0);
    session.create("s", &options().replicas(1)).unwrap();
    let mut owner = cluster.client(0, "writer", &["s"]);
    owner.line("acknowledged 3").unwrap();
    owner.signal(Signal::SIGSTOP);
    meanwhile(&mut cluster);
    let problem = until("what is wrong is told", || session.status("s").unwrap().replicas[0].problem.clone());
    assert!(problem.contains("it is whole, but") && problem.contains("No space left"), "{problem}");
    owner.kill();
    let acknowledged = owner.last_number("acknowledged").unwrap_or(3);
    let image = session.load("s", &LoadOptions::new()).unwrap();
    assert!(check_state(image.bytes()) >= acknowledged);
    cluster.session(1).open("s", &OpenOptions::new().stand_by(Some(WATCHDOG))).unwrap();
    assert!(session.status("s").unwrap().replicas[0].problem.is_none());
    assert!(std::fs::read_to_string(cluster.log(1)).unwrap().contains("enlarge it (mount -o remount"));
}

#[test]
fn a_replica_waits_for_its_writer_when_its_daemon_is_restarted() {
    a_replica_waits_for_its_writer(|cluster| cluster.restart(1));
}

#[test]
fn a_replica_waits_for_its_writer_when_the_segment_is_taken_over() {
    a_replica_waits_for_its_writer(|cluster| {
        let refused = cluster.session(1).open("s", &OpenOptions::new().take_over(true));
        assert!(refused.is_err(), "the earlier owner may still write");
    });
}

#[test]
fn what_a_killed_daemon_was_making_is_removed() {
    let mut cluster = Cluster::start(2, &[]);
    drop(opened(&cluster.session(0), &options().replicas(1)));
    let whole = slots(&cluster, 1);
    cluster.kill(1);
    let id = |n: u8| format!("{n:032x}-{n:032x}");
    let at = |name: String| cluster.memory(1).join(name);
    // In the middle of writing a head, as this version does and as earlier ones did; in the middle of a move.
    let unfinished = [
        at(id(1) + ".new-head"),
        at(id(1) + ".slots"),
        at(id(2) + ".head"),
        at(id(2) + ".slots"),
        whole.with_added_extension("moving-1"),
    ];
    unfinished.iter().for_each(|file| std::fs::write(file, [1; 100]).unwrap());
    cluster.restart(1);
    let left: Vec<_> = unfinished.into_iter().filter(|file| file.exists()).collect();
    assert!(left.is_empty() && whole.exists(), "{left:?}");
}

/// Memory does not outlive its boot; a file that does may be older than what was acknowledged.
#[test]
fn replicas_of_another_boot_count_as_lost() {
    let mut cluster = Cluster::start(3, OVER_TCP);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options());
    let of_former_boot = slots(&cluster, 1);
    cluster.kill(1);
    std::fs::write(cluster.memory(1).join("boot"), "00000000-0000-4000-8000-000000000000").unwrap();
    cluster.restart(1);
    assert!(!of_former_boot.exists());
    assert!(std::fs::read_to_string(cluster.log(1)).unwrap().contains("of another boot"));
    write_state(&mut segment, 2);
    segment.checkpoint().unwrap();
    until("it is filled anew", || (session.status("s").unwrap().owner?.elsewhere == 2).then_some(()));
    cluster.restart(1);
    assert!(slots(&cluster, 1).exists(), "of this boot");
}

/// Over shared memory a writer outlives the daemon that admitted it: also one that does not serve shared memory any more.
#[test]
fn a_daemon_that_gives_shared_memory_up_shuts_its_writers_out() {
    let mut cluster = Cluster::start(2, &["--transport", "shm"]);
    let _segment = opened(&cluster.session(0), &options().replicas(1));
    let file = |cluster: &Cluster| slots(cluster, 1).metadata().unwrap().ino();
    let written = file(&cluster);
    cluster.restart_with(1, OVER_TCP);
    assert_ne!(file(&cluster), written, "the slots stand where that writer does not reach");
}

#[test]
fn a_directory_from_an_old_copy_is_refused() {
    let mut cluster = Cluster::start(2, &[]);
    let session = cluster.session(1);
    let make = CreateOptions::new(1 << 20).replicas(1);
    drop(opened(&session, &make));
    cluster.kill(0);
    let (file, copy) = (cluster.data(0).join("directory.redb"), cluster.data(0).join("copy.redb"));
    std::fs::copy(&file, &copy).unwrap();
    cluster.restart(0);
    let standby = OpenOptions::new().stand_by(Some(WATCHDOG));
    for n in 2..4 {
        let mut segment = session.open("s", &standby).unwrap();
        write_state(&mut segment, n);
        segment.checkpoint().unwrap();
    }
    cluster.kill(0);
    std::fs::copy(&copy, &file).unwrap();
    cluster.restart(0);
    until("it is shown before anybody tries", || {
        let trouble = session.segments().ok()?.first()?.trouble()?;
        trouble.contains("the directory went back").then_some(())
    });
    let opened = until("the directory answers", || match cluster.session(1).open("s", &standby) {
        Err(Error::Unreachable(_)) => None,
        other => Some(other),
    });
    let Err(Error::Refused(text)) = opened else { panic!("{opened:?}") };
    assert!(text.contains("the directory went back"), "{text}");
}

/// `data_dir` was mistaken, or not mounted: nothing is served from the directory that is made there, and nothing lost.
#[test]
fn an_empty_directory_in_the_place_of_theirs_is_refused() {
    let mut cluster = Cluster::start(3, &[]);
    drop(opened(&cluster.session(1), &options()));
    cluster.kill(0);
    let (file, kept) = (cluster.data(0).join("directory.redb"), cluster.data(0).join("kept.redb"));
    std::fs::rename(&file, &kept).unwrap();
    cluster.spawn(0);
    for node in 0..3 {
        until("the node says what is wrong", || {
            let log = std::fs::read_to_string(cluster.log(node)).unwrap();
            log.contains("it is new, and this node is of cluster").then_some(())
        });
    }
    for name in ["s", "another"] {
        let made = cluster.session(1).open_or_create(name, &options(), &OpenOptions::new());
        assert!(matches!(&made, Err(Error::Unreachable(text)) if text.contains("not in the cluster")), "{made:?}");
    }
    cluster.kill(0);
    std::fs::rename(&kept, &file).unwrap();
    cluster.restart(0);
    cluster.until_up(3);
    let standby = OpenOptions::new().stand_by(Some(WATCHDOG));
    assert_eq!(check_state(cluster.session(2).open("s", &standby).unwrap().bytes()), 1);
    // The directory's host has nothing in memory any more, so nothing that tells it: it begins a new cluster. The others stay out.
    cluster.kill(0);
    std::fs::rename(&file, &kept).unwrap();
    std::fs::remove_dir_all(cluster.memory(0)).unwrap();
    cluster.restart(0);
    assert!(std::fs::read_to_string(cluster.log(0)).unwrap().contains("a new cluster begins with it"));
    until("the node says what is wrong", || {
        let log = std::fs::read_to_string(cluster.log(2)).unwrap();
        log.contains("it is that of cluster").then_some(())
    });
}

/// In a copy from before a segment was made there is no record of it, as if it had been removed.
#[test]
fn what_the_directory_has_never_known_is_not_forgotten() {
    let mut cluster = Cluster::start(3, &[]);
    let (file, newer) = (cluster.data(0).join("directory.redb"), cluster.data(0).join("newer.redb"));
    let older = cluster.data(0).join("older.redb");
    cluster.kill(0);
    std::fs::copy(&file, &older).unwrap();
    cluster.restart(0);
    cluster.until_up(3);
    drop(opened(&cluster.session(1), &options()));
    cluster.kill(0);
    std::fs::rename(&file, &newer).unwrap();
    std::fs::copy(&older, &file).unwrap();
    cluster.restart(0);
    cluster.until_up(3);
    // One that is removed while a node that keeps a replica of it is away, by daemons that have never seen that node.
    cluster.session(1).create("removed", &options()).unwrap();
    let replicas = |cluster: &Cluster, node: usize| {
        let files = std::fs::read_dir(cluster.memory(node)).unwrap().flatten();
        files.filter(|file| file.path().extension().is_some_and(|kind| kind == "slots")).count()
    };
    cluster.kill(2);
    until("its lease is over", || (!cluster.session(1).nodes().unwrap().iter().all(|node| node.up)).then_some(()));
    cluster.restart(0);
    cluster.restart(1);
    cluster.until_up(2);
    cluster.session(1).remove("removed", false).unwrap();
    assert_eq!((replicas(&cluster, 0), replicas(&cluster, 2)), (1, 2));
    cluster.restart(2);
    let since = Instant::now();
    while replicas(&cluster, 2) == 2 {
        assert!(since.elapsed() < 3 * WATCHDOG, "what was removed is forgotten");
        std::thread::sleep(Duration::from_secs(1));
    }
    for node in [0, 2] {
        assert_eq!(replicas(&cluster, node), 1, "n{node} keeps what it knows nothing of");
        assert!(std::fs::read_to_string(cluster.log(node)).unwrap().contains("has never known it"));
    }
    // The directory hears of it when every node has answered.
    std::thread::sleep(Duration::from_secs(3));
    cluster.kill(0);
    let known = |file: &std::path::Path| {
        let directory = Embedded::open(file).unwrap();
        let listed = tokio::runtime::Runtime::new().unwrap().block_on(directory.list("known/"));
        listed.unwrap().entries.len()
    };
    assert_eq!((known(&file), known(&newer)), (0, 1), "nothing is left of what was removed");
    std::fs::rename(&newer, &file).unwrap();
    cluster.restart(0);
    // There the name is still held, by a session that let it go while the other copy was in its place.
    let standby = OpenOptions::new().stand_by(Some(WATCHDOG));
    assert_eq!(check_state(cluster.session(2).open("s", &standby).unwrap().bytes()), 1);
}

#[test]
fn a_segment_of_another_user_is_closed() {
    let cluster = Cluster::start(2, &[]);
    drop(opened(&cluster.session(0), &CreateOptions::new(1 << 20)));
    // The socket is everybody's, the segment is not.
    std::fs::set_permissions(cluster.socket(0).parent().unwrap(), PermissionsExt::from_mode(0o755)).unwrap();
    let mut stranger = cluster.client_as(65534, 0, "stranger", &["s"]);
    assert_eq!(stranger.line("denied").as_deref(), Some("2"));
}

/// A segment is given to a user and a group as a file is.
#[test]
fn a_segment_is_given_away_by_root_only() {
    let cluster = Cluster::start(2, &[]);
    let session = cluster.session(0);
    std::fs::set_permissions(cluster.socket(0).parent().unwrap(), PermissionsExt::from_mode(0o755)).unwrap();
    let make = CreateOptions::new(1 << 20).owner(65534).group(12345).mode(0o600);
    let access = session.create("theirs", &make).unwrap().access;
    assert_eq!((access.uid, access.gid), (65534, 12345));
    // The user to whom it was given opens it, and may give nothing to anybody else.
    let mut stranger = cluster.client_as(65534, 0, "giver", &["theirs"]);
    assert_eq!(stranger.line("opened").as_deref(), Some("1"));
    assert_eq!(stranger.line("denied").as_deref(), Some("2"));
}

/// A name that is held is known, whether there is a segment of that name or not.
#[test]
fn a_name_that_is_held_is_shown() {
    let cluster = Cluster::start(2, &[]);
    let runner = cluster.session(0);
    runner.acquire("job", Some(Duration::ZERO), false).unwrap();
    let other = cluster.session(1);
    let holds = other.holds().unwrap();
    assert_eq!((holds.len(), holds[0].name.as_str(), holds[0].holder.node_name.as_str()), (1, "job", "n0"));
    let Err(Error::NotFound(text)) = other.remove("job", true) else { panic!("there is none") };
    assert!(text.contains("its name is held by cluster") && text.contains("on node n0"), "{text}");
}

/// A node that has less room than it was told to have is passed over.
#[test]
fn a_node_without_room_is_passed_over() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.kill(1);
    let memory = cluster.memory(1);
    std::fs::remove_dir_all(&memory).unwrap();
    std::fs::create_dir(&memory).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(&memory).status().unwrap();
    assert!(mounted.success(), "this test needs root");
    cluster.restart(1);
    cluster.until_up(3);
    let made = cluster.session(0).create("s", &CreateOptions::new(8 << 20).replicas(1));
    let gone = Command::new("umount").arg("-l").arg(&memory).status().unwrap();
    assert!(gone.success());
    assert_eq!(made.unwrap().places[0].node_name, "n2");
}

#[test]
fn what_is_no_message_ends_that_connection_only() {
    let cluster = Cluster::start(1, &[]);
    let connect = || {
        let stream = UnixStream::connect(cluster.socket(0)).unwrap();
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        stream
    };
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &u32::MAX.to_le_bytes(), &[2, 0, 0, 0, b'{', b'}']] {
        let mut stream = connect();
        stream.write_all(garbage).unwrap();
        assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0, "{garbage:?}");
    }
    let mut stream = connect();
    let hello = Request::Hello { protocol: 99, session: None, program: "from the future".into() };
    stream.write_all(&encode(&ToDaemon::Request(0, hello)).unwrap()).unwrap();
    let mut head = [0; 4];
    stream.read_exact(&mut head).unwrap();
    let mut json = vec![0; u32::from_le_bytes(head) as usize];
    stream.read_exact(&mut json).unwrap();
    let Ok(ToClient::Answer(0, Err(fault))) = decode(&json) else { panic!("{}", String::from_utf8_lossy(&json)) };
    assert_eq!(fault.kind, FaultKind::Unsupported);
    cluster.session(0).nodes().unwrap();
}

#[test]
fn no_daemon_is_told_with_its_socket() {
    let Err(Error::NoDaemon { path, .. }) = Session::connect_to("/no/such.sock") else { panic!("there is none") };
    assert_eq!(path, PathBuf::from("/no/such.sock"));
    let cluster = Cluster::start(1, &[]);
    let session = cluster.session(0);
    assert!(matches!(session.load("nothing", &LoadOptions::new()), Err(Error::NotFound(_))));
    assert!(matches!(session.hold("nothing", Duration::from_secs(1)), Err(Error::NotFound(_))));
}

/// A daemon that hangs takes what its socket holds, and then nothing more.
#[test]
fn who_asks_a_daemon_that_takes_nothing_is_told() {
    let cluster = Cluster::start(1, &[]);
    let channel = Channel::open(&cluster.socket(0), "asker", None, Box::new(|_, _| ()), Box::new(|_| ())).unwrap();
    cluster.pause(0);
    let request = Request::Lookup { name: "s".repeat(1 << 16) };
    let asking = std::thread::spawn(move || {
        (0..1000).map(|_| channel.send(request.clone()).unwrap()).find(Asked::is_answered).expect("it takes all of it")
    });
    until("a request has failed", || asking.is_finished().then_some(()));
    let fault = asking.join().unwrap().wait(None).unwrap_err();
    assert!(matches!(fault.kind, FaultKind::Unreachable | FaultKind::NoAnswer), "{fault:?}");
}
