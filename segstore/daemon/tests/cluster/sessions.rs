//! Sessions of several processes: what each holds goes with it, and what the session holds goes with the last.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use segstore::control::channel::Channel;
use segstore::control::message::{Answer, FaultKind, Request};
use segstore::{Error, OpenOptions, Session};

use super::harness::{Client, Cluster, WATCHDOG, until};
use super::roles::options;

const SOON: Option<Duration> = Some(Duration::from_secs(5));
const NOW: Option<Duration> = Some(Duration::ZERO);

fn is_owned(session: &Session, name: &str) -> bool {
    match session.acquire(name, NOW, false) {
        Err(Error::Owned { .. }) => true,
        Ok(_) => {
            session.release(name).unwrap();
            false
        }
        Err(error) => panic!("{error}"),
    }
}

fn acknowledges(owner: &mut Client) {
    owner.line("acknowledged").expect("it goes on");
}

#[test]
fn what_a_process_holds_goes_with_it_and_not_with_its_session() {
    let mut cluster = Cluster::start(2, &[]);
    let (runner, other) = (cluster.session(0), cluster.session(1));
    runner.acquire("job", NOW, false).unwrap();
    // The second one is killed when the daemon is another one than knew it first.
    for is_restarted in [false, true] {
        let mut owner = cluster.client_in(&runner.token(), 0, "writer", &["s"]);
        owner.line("owner").expect("it becomes the owner");
        if is_restarted {
            cluster.restart(0);
        }
        acknowledges(&mut owner);
        until("the directory answers", || runner.nodes().ok());
        assert!(is_owned(&other, "s"));
        owner.kill();
        other.acquire("s", SOON, false).unwrap();
        other.release("s").unwrap();
        assert!(is_owned(&other, "job"), "the session lives on");
    }
    // What the session holds as well is not let go with a segment.
    runner.acquire("s", NOW, false).unwrap();
    let mut owner = cluster.client_in(&runner.token(), 0, "writer", &["s"]);
    owner.line("owner").expect("it becomes the owner");
    runner.open("s", &OpenOptions::new()).unwrap().release().unwrap();
    owner.kill();
    std::thread::sleep(Duration::from_millis(500));
    assert!(is_owned(&other, "s"));
    runner.release("s").unwrap();
    other.acquire("s", SOON, false).unwrap();
}

/// A process that was stopped between two daemons, or had died, is not waited for by name.
#[test]
fn what_a_process_held_that_died_while_the_daemon_was_away_is_free() {
    let mut cluster = Cluster::start(2, &[]);
    let (runner, other) = (cluster.session(1), cluster.session(0));
    runner.acquire("job", NOW, false).unwrap();
    let mut owner = cluster.client_in(&runner.token(), 1, "writer", &["s"]);
    owner.line("owner").expect("it becomes the owner");
    acknowledges(&mut owner);
    cluster.kill(1);
    owner.kill();
    cluster.restart(1);
    other.acquire("s", SOON, false).unwrap();
    assert!(is_owned(&other, "job"), "the session lives on");
}

/// A process that closes its session says last what it lets go.
#[test]
fn what_is_dropped_with_its_connection_is_free() {
    let cluster = Cluster::start(2, &[]);
    let (runner, other) = (cluster.session(0), cluster.session(1));
    runner.acquire("job", NOW, false).unwrap();
    for _ in 0..30 {
        let joined = Session::join_at(cluster.socket(0), &runner.token()).unwrap();
        let segment = joined.open_or_create("s", &options().replicas(1), &OpenOptions::new()).unwrap();
        drop(segment);
        drop(joined);
        other.acquire("s", SOON, false).unwrap();
        other.release("s").unwrap();
    }
    assert!(is_owned(&other, "job"), "the session lives on");
}

/// Whoever has started it need not live on; a daemon that is started again knows who belongs to the session, as whatever user.
#[test]
fn a_session_is_that_of_whoever_lives() {
    for role in ["launcher", "dropper"] {
        let mut cluster = Cluster::start(2, &[]);
        let place = cluster.socket(0).parent().unwrap().to_owned();
        std::fs::set_permissions(place, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut owner = cluster.client(0, role, &["s"]);
        let worker: i32 = owner.line("worker").expect("it says who works").parse().unwrap();
        owner.line("owner").expect("it becomes the owner");
        acknowledges(&mut owner);
        if role == "launcher" {
            owner.kill();
        }
        cluster.restart(0);
        let other = cluster.session(1);
        until("the directory answers", || other.nodes().ok());
        // It outlives the grace for processes that do not come back.
        std::thread::sleep(Duration::from_secs(2));
        assert!(is_owned(&other, "s"), "{role}");
        acknowledges(&mut owner);
        kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
        other.acquire("s", SOON, false).unwrap();
    }
}

/// Whoever got no answer lets go of what it may have got, and of nothing else.
#[test]
fn what_was_acquired_without_an_answer_is_let_go() {
    let cluster = Cluster::start(3, &["--node-lease", "20s"]);
    let open =
        |token| Channel::open(&cluster.socket(1), "asker", token, Box::new(|_, _| ()), Box::new(|_| ())).unwrap();
    let (channel, other) = (open(None), cluster.session(2));
    let acquire = |own| Request::Acquire { name: "s".into(), wait: Some(0), force: false, own };
    let release = |own| Request::Release { name: "s".into(), own };
    let ask = |request| channel.ask(request, Some(WATCHDOG));
    // It was acquired over a connection that broke.
    let unheard = || {
        let broken = open(Some(channel.welcome().session));
        let asked = broken.send(acquire(true)).unwrap();
        until("it is answered", || asked.is_answered().then_some(()));
    };
    unheard();
    assert!(is_owned(&other, "s"));
    ask(release(true)).unwrap();
    assert!(!is_owned(&other, "s"));
    // The session's own hold stands beside it.
    ask(acquire(false)).unwrap();
    unheard();
    ask(release(true)).unwrap();
    assert!(is_owned(&other, "s"));
    ask(release(false)).unwrap();
    assert!(!is_owned(&other, "s"));
    // While it is being acquired.
    for _ in 0..5 {
        cluster.pause(0);
        let acquiring = channel.send(acquire(true)).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let releasing = channel.send(release(true)).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        cluster.resume(0);
        let acquired = acquiring.wait(Some(WATCHDOG));
        assert!(matches!(&acquired, Err(fault) if fault.kind == FaultKind::NotHeld), "{acquired:?}");
        assert_eq!(releasing.wait(Some(WATCHDOG)).unwrap(), Answer::Done);
        assert!(!is_owned(&other, "s"));
    }
}
