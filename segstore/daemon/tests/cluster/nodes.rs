//! Daemons that die and come back, the owner's own and the directory's among them.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use segstore::control::channel::{Asked, Channel};
use segstore::control::message::Request;
use segstore::{BelowMinimum, CreateOptions, Error, OpenOptions, Session};

use super::harness::{Cluster, WATCHDOG, until};
use super::roles::{STATE, check_state, elsewhere, opened, opened_empty, options, write, write_state};

#[test]
fn a_daemon_that_is_restarted_keeps_its_replica_in_sync() {
    let mut cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let mut segment = opened_empty(&session);
    for (n, node) in (1..=10).zip([1, 2].into_iter().cycle()) {
        write(&mut segment, n);
        cluster.restart(node);
        write(&mut segment, n + 1000);
        write_state(&mut segment, n);
    }
    assert_eq!(elsewhere(&session), 2);
    let events = session.events(Some("s")).unwrap();
    assert!(!events.iter().any(|event| event.what == "removed"), "{events:?}");
}

#[test]
fn the_owners_own_daemon_can_be_restarted() {
    let mut cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options());
    cluster.restart(0);
    for n in 2..100 {
        write(&mut segment, n);
    }
    let other = until("the directory answers again", || match cluster.session(1).open("s", &OpenOptions::new()) {
        Err(Error::Unreachable(_)) => None,
        other => Some(other),
    });
    assert!(matches!(other, Err(Error::Owned { .. })), "the session lives on: {other:?}");
    drop((segment, session));
    let standby = OpenOptions::new().stand_by(Some(Duration::from_secs(30)));
    let segment = cluster.session(1).open("s", &standby).unwrap();
    assert_eq!(check_state(segment.bytes()), 99);
}

/// One of the replicas in sync is on the owner's own node, whose daemon dies: nobody could remove that replica from the set, and
/// nobody has to, since its memory is there.
#[test]
fn an_owner_whose_own_daemon_is_away_goes_on() {
    let mut cluster = Cluster::start(2, &[]);
    let session = cluster.session(1);
    let mut segment = opened_empty(&session);
    assert_eq!(session.status("s").unwrap().owner.expect("the owner answers").in_sync, 2);
    let mut n = 1;
    write(&mut segment, n);
    // Its memory is still there, and then it is not.
    for forgets in [false, true] {
        cluster.kill(1);
        let away = Instant::now();
        while away.elapsed() < Duration::from_millis(600) {
            n += 1;
            write_state(&mut segment, n);
            let done = segment.checkpoint().unwrap();
            assert_eq!((done.in_sync, done.elsewhere), (2, 1));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(away.elapsed() < Duration::from_secs(2), "a checkpoint waited for the daemon");
        if forgets {
            std::fs::remove_dir_all(cluster.memory(1)).unwrap();
        }
        cluster.restart(1);
        // What came back without its memory counts for nothing.
        until("the owner has met its daemon again", || {
            n += 1;
            write(&mut segment, n);
            let replicas = cluster.session(0).status("s").ok()?.replicas;
            let holds = |name| replicas.iter().any(|r| r.in_sync && r.node_name == name && r.image.is_some());
            (holds("n0") && holds("n1") != forgets).then_some(())
        });
    }
    drop((segment, session));
    let standby = OpenOptions::new().stand_by(Some(Duration::from_secs(30)));
    let segment = cluster.session(0).open("s", &standby).unwrap();
    assert_eq!(check_state(segment.bytes()), n);
}

#[test]
fn without_its_directory_commits_go_on() {
    let mut cluster = Cluster::start(3, &[]);
    let session = cluster.session(1);
    // Of several segments one has its replica on the third node, and not on the one with the directory.
    let make = CreateOptions::new(1 << 20).replicas(1);
    let name = (0..)
        .map(|number: u64| format!("s{number}"))
        .find(|name| session.create(name, &make).unwrap().places[0].node_name == "n2")
        .unwrap();
    let mut segment = session.open(&name, &OpenOptions::new()).unwrap();
    segment.set_len(STATE).unwrap();
    write(&mut segment, 1);
    cluster.kill(0);
    for n in 2..50 {
        write(&mut segment, n);
    }
    let taken = cluster.session(2).open(&name, &OpenOptions::new());
    let Err(Error::Unreachable(why)) = taken else { panic!("takeovers wait for the directory: {taken:?}") };
    assert!(why.contains("the directory"), "{why}");
    cluster.restart(0);
    write(&mut segment, 50);
    assert_eq!(check_state(segment.bytes()), 50);
}

/// Whoever was not heard since the directory's daemon did not listen is not dead.
#[test]
fn a_pause_of_the_directory_ends_no_lease() {
    let cluster = Cluster::start(3, &[]);
    let sessions = [cluster.session(1), cluster.session(2)];
    sessions.iter().zip(["a", "b"]).for_each(|(session, name)| {
        session.acquire(name, Some(Duration::ZERO), false).unwrap();
    });
    for _ in 0..3 {
        cluster.pause(0);
        std::thread::sleep(Duration::from_millis(2500));
        cluster.resume(0);
        std::thread::sleep(Duration::from_millis(700));
        for (name, other) in [("a", 2), ("b", 1)] {
            let taken = cluster.session(other).acquire(name, Some(Duration::ZERO), false);
            assert!(matches!(taken, Err(Error::Owned { .. })), "{name}: its holder and that one's daemon live");
        }
    }
}

#[test]
fn a_daemon_that_comes_back_before_the_directory_gives_nothing_up() {
    let mut cluster = Cluster::start(3, &[]);
    let session = cluster.session(1);
    session.acquire("s", Some(Duration::ZERO), false).unwrap();
    cluster.kill(0);
    cluster.kill(1);
    cluster.spawn(1);
    // Longer than its lease: while there is no directory no time runs out.
    std::thread::sleep(Duration::from_millis(1500));
    cluster.restart(0);
    std::thread::sleep(Duration::from_millis(2500));
    let taken = cluster.session(2).acquire("s", Some(Duration::ZERO), false);
    assert!(matches!(taken, Err(Error::Owned { .. })), "its holder lives, and so does that one's daemon: {taken:?}");
}

/// The directory goes by what it granted, whatever the daemon is told when it is started again.
#[test]
fn a_lease_that_goes_on_keeps_its_time() {
    let mut cluster = Cluster::start(2, &["--node-lease", "4s"]);
    let session = cluster.session(1);
    let hold = session.acquire("s", Some(Duration::ZERO), false).unwrap();
    cluster.restart_with(1, &["--node-lease", "40s"]);
    // In which the granted one ends, if it is confirmed no more often than the other needs.
    std::thread::sleep(Duration::from_secs(5));
    let (now, lease) = (Instant::now(), session.lease(WATCHDOG).unwrap());
    assert_eq!((lease.time, lease.trouble), (Duration::from_secs(4), None));
    assert!(now < lease.until && lease.until <= Instant::now() + lease.time);
    assert_eq!(session.acquire("s", Some(Duration::ZERO), false).unwrap(), hold, "nobody can have had it meanwhile");
}

/// Whoever connects first asks for replicas at once.
#[test]
fn a_daemon_that_serves_knows_the_nodes() {
    let mut cluster = Cluster::start(2, &[]);
    for early in (0..120).step_by(20) {
        (0..2).for_each(|node| cluster.kill(node));
        cluster.spawn(1);
        std::thread::sleep(Duration::from_millis(early));
        cluster.spawn(0);
        let session = until("the daemon serves", || Session::connect_to(cluster.socket(1)).ok());
        let nodes = session.nodes().unwrap();
        assert!(nodes.iter().any(|node| node.name == "n1" && node.up), "{nodes:?}");
    }
}

/// The directory dies while names are acquired: whoever is told that it failed does not have one, and it is not lost.
#[test]
fn a_name_that_was_not_acquired_is_free() {
    let mut cluster = Cluster::start(3, &["--node-lease", "20s"]);
    let open = |_| Channel::open(&cluster.socket(1), "asker", None, Box::new(|_, _| ()), Box::new(|_| ())).unwrap();
    let channels: Vec<_> = (0..64).map(open).collect();
    for round in 0..8 {
        let acquire =
            |n: usize| Request::Acquire { name: format!("{round}/{n}"), wait: Some(0), force: false, own: false };
        let asked: Vec<_> = channels.iter().zip(0..).map(|(channel, n)| channel.send(acquire(n)).unwrap()).collect();
        while !asked.iter().any(Asked::is_answered) {
            std::hint::spin_loop();
        }
        cluster.kill(0);
        let failed = asked.into_iter().map(|asked| asked.wait(None).is_err()).collect::<Vec<_>>();
        cluster.restart(0);
        let other = cluster.session(2);
        for (n, _) in failed.iter().enumerate().filter(|(_, failed)| **failed) {
            let name = format!("{round}/{n}");
            let acquired = other.acquire(&name, Some(Duration::from_secs(5)), false);
            assert!(acquired.is_ok(), "{name}: {acquired:?}");
        }
    }
}

/// A segment whose maker was killed while it was made leaves nothing.
#[test]
fn what_is_half_made_is_undone() {
    use std::io::Write;

    use segstore::control::frame::{ToDaemon, encode};
    use segstore::control::message::{Keeping, PROTOCOL, Placing, Request, Shape};

    let cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let mut maker = std::os::unix::net::UnixStream::connect(cluster.socket(0)).unwrap();
    let hello = Request::Hello { protocol: PROTOCOL, session: None, program: "maker".into() };
    maker.write_all(&encode(&ToDaemon::Request(0, hello)).unwrap()).unwrap();
    let create = Request::Create {
        name: "s".into(),
        shape: Shape { capacity: 220 << 20, block_size: 4096, slots: 2 },
        keeping: Keeping { replicas: 2, minimum: 1, below_minimum: BelowMinimum::Continue, local: false },
        placing: Placing::default(),
        mode: 0o600,
        uid: None,
        gid: None,
    };
    maker.write_all(&encode(&ToDaemon::Request(1, create)).unwrap()).unwrap();
    let files = |node: usize| {
        let files = std::fs::read_dir(cluster.memory(node)).unwrap().flatten();
        files.filter(|file| file.path().extension().is_some()).count()
    };
    // Memory is being reserved, which takes a while.
    until("it is half made", || (files(1) + files(2) > 0).then_some(()));
    drop(maker);
    std::thread::sleep(Duration::from_secs(2));
    until("nothing of it is left", || (files(1) + files(2) == 0).then_some(()));
    assert!(session.segments().unwrap().is_empty());
}

/// Whoever waits for a name waits for the directory too, and hears of it once.
#[test]
fn a_standby_outlasts_the_directory() {
    let mut cluster = Cluster::start(3, &[]);
    let owner = cluster.session(2);
    owner.acquire("s", Some(Duration::ZERO), false).unwrap();
    let (standby, waiting) = (cluster.session(1), cluster.session(1));
    let waits = std::thread::spawn(move || waiting.acquire("s", None, false));
    std::thread::sleep(Duration::from_millis(200));
    cluster.kill(0);
    std::thread::sleep(Duration::from_millis(1500));
    // How the nodes are nobody knows now; why is one sentence.
    let nodes = standby.nodes().unwrap();
    assert!(nodes.iter().all(|node| node.stale.is_some()), "{nodes:?}");
    let why = nodes[0].stale.clone().unwrap();
    assert!(why.starts_with("the directory is out of reach: cannot reach 127.0.0.1:"), "{why}");
    assert_eq!(why.matches("refused").count() + why.matches("transport").count(), 1, "{why}");
    assert!(!waits.is_finished(), "{:?}", waits.join());
    let told = std::fs::read_to_string(cluster.log(1)).unwrap();
    assert_eq!(told.matches("goes on waiting").count(), 1, "{told}");
    cluster.restart(0);
    until("the directory answers", || standby.nodes().unwrap()[0].stale.is_none().then_some(()));
    owner.release("s").unwrap();
    waits.join().unwrap().unwrap();
}

/// Keeps what is written.
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Nor does it give up when its turn has come and no replica is in reach, and it says what it waits for.
#[test]
fn a_standby_outlasts_the_replicas() {
    let mut cluster = Cluster::start(4, &[]);
    let session = cluster.session(1);
    let mut segment =
        opened(&session, &options().require("node!=n0".parse().unwrap()).require("node!=n1".parse().unwrap()));
    write(&mut segment, 2);
    [2, 3].into_iter().for_each(|node| cluster.kill(node));
    drop((segment, session));
    let standby = cluster.session(0);
    let limited = OpenOptions::new().stand_by(Some(Duration::from_millis(1500)));
    let taken = standby.open("s", &limited);
    let names_both = |text: &str| text.contains("n2") && text.contains("n3");
    assert!(matches!(&taken, Err(Error::Unreachable(why)) if names_both(why)), "{taken:?}");
    let told = Arc::<Mutex<Vec<u8>>>::default();
    let to = told.clone();
    let waits = std::thread::spawn(move || {
        let to = move || Lines(to.clone());
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(to).finish();
        let open = || standby.open("s", &OpenOptions::new().stand_by(None));
        tracing::subscriber::with_default(subscriber, open)
    });
    std::thread::sleep(Duration::from_secs(3));
    assert!(!waits.is_finished(), "{:?}", waits.join());
    let told = String::from_utf8(told.lock().unwrap().clone()).unwrap();
    assert!(told.contains("WARN") && names_both(&told), "{told}");
    [2, 3].into_iter().for_each(|node| cluster.restart(node));
    assert_eq!(check_state(waits.join().unwrap().unwrap().bytes()), 2);
}

/// A daemon that is started again knows the session, and what it held: it must hear what was let go meanwhile.
#[test]
fn what_is_let_go_while_the_daemon_is_away_is_free_when_it_is_back() {
    let mut cluster = Cluster::start(3, &["--node-lease", "20s"]);
    let session = cluster.session(1);
    let segment = opened(&session, &options());
    session.acquire("held", Some(Duration::ZERO), false).unwrap();
    cluster.kill(1);
    let began = Instant::now();
    drop(segment);
    assert!(began.elapsed() < Duration::from_secs(1), "it waited for the daemon");
    let released = session.release("held");
    assert!(matches!(released, Err(Error::Unreachable(_))), "{released:?}");
    cluster.restart(1);
    let other = cluster.session(2);
    let standby = OpenOptions::new().stand_by(Some(Duration::from_secs(5)));
    assert_eq!(check_state(other.open("s", &standby).unwrap().bytes()), 1);
    other.acquire("held", Some(Duration::from_secs(5)), false).unwrap();
    // Whoever wants it again before the daemon is back has it, and lets it go like any other.
    let segment = until("it is free", || session.open("s", &OpenOptions::new()).ok());
    cluster.kill(1);
    drop(segment);
    let anew = OpenOptions::new().stand_by(Some(Duration::from_secs(20)));
    let opening = std::thread::spawn(move || (session.open("s", &anew).unwrap(), session));
    cluster.restart(1);
    let (segment, _session) = opening.join().unwrap();
    drop(segment);
    assert_eq!(check_state(other.open("s", &standby).unwrap().bytes()), 1);
}
