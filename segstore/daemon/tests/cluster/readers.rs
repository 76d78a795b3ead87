//! Loads without ownership.

use std::time::Duration;

use nix::sys::signal::Signal;
use segstore::{CreateOptions, Error, LoadOptions, OpenOptions, Session};

use super::harness::{Cluster, WATCHDOG, until};
use super::roles::{STATE, check_state, opened, options, write_state};

#[test]
fn a_living_owner_is_asked_and_not_disturbed() {
    let cluster = Cluster::start(3, &[]);
    let mut owner = cluster.client(0, "writer", &["s"]);
    owner.line("owner").unwrap();
    let mut last = 0;
    for node in [1, 2, 0, 1] {
        let image = cluster.session(node).load("s", &LoadOptions::new()).unwrap();
        assert!(image.is_acknowledged());
        let n = check_state(image.bytes());
        assert!(n >= last, "{n} after {last}");
        last = n;
    }
    owner.kill();
    let acknowledged = owner.last_number("acknowledged").unwrap_or_default();
    assert!(acknowledged >= last, "{last} was given as acknowledged");
    assert!(owner.line("fenced").is_none());
}

#[test]
fn of_an_owner_that_is_gone_the_last_checkpoint_is_loaded() {
    let cluster = Cluster::start(3, &[]);
    let mut owner = cluster.client(0, "writer", &["s"]);
    owner.line("owner").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    owner.kill();
    let acknowledged = owner.last_number("acknowledged").unwrap_or_default();
    let first = cluster.session(1).load("s", &LoadOptions::new()).unwrap();
    let second = cluster.session(2).load("s", &LoadOptions::new()).unwrap();
    assert!(check_state(first.bytes()) >= acknowledged);
    assert_eq!(check_state(first.bytes()), check_state(second.bytes()));
}

#[test]
fn a_silent_owner_is_not_disturbed_unless_somebody_says_so() {
    let cluster = Cluster::start(3, &[]);
    let mut owner = cluster.client(0, "writer", &["s"]);
    owner.line("owner").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    owner.signal(Signal::SIGSTOP);
    let session = cluster.session(1);
    let asked = session.load("s", &LoadOptions::new());
    assert!(matches!(asked, Err(Error::Unreachable(_))), "{:?}", asked.err());
    let pending = session.load("s", &LoadOptions::new().pending(true)).unwrap();
    assert!(!pending.is_acknowledged());
    let taken = session.load("s", &LoadOptions::new().take_over(true)).unwrap();
    assert!(check_state(taken.bytes()) >= check_state(pending.bytes()));
    owner.signal(Signal::SIGCONT);
    owner.line("fenced").expect("the owner was fenced by the takeover");
}

#[test]
fn a_checkpoint_that_is_held_can_be_loaded_while_the_owner_goes_on() {
    let cluster = Cluster::start(2, &[]);
    let session = cluster.session(0);
    let make = CreateOptions::new(1 << 20).slots(3);
    let mut segment = session.open_or_create("s", &make, &OpenOptions::new()).unwrap();
    segment.set_len(STATE).unwrap();
    write_state(&mut segment, 1);
    let first = segment.checkpoint().unwrap().epoch;
    let reader = cluster.session(1);
    let hold = reader.hold("s", Duration::from_secs(30)).unwrap();
    assert_eq!(hold.epoch(), first);
    for n in 2..20 {
        write_state(&mut segment, n);
        segment.checkpoint().unwrap();
    }
    let image = reader.load("s", &LoadOptions::new().epoch(first)).unwrap();
    assert_eq!((image.epoch(), check_state(image.bytes())), (first, 1));
    assert_eq!(check_state(reader.load("s", &LoadOptions::new()).unwrap().bytes()), 19);
    let other = reader.load("s", &LoadOptions::new().epoch(segstore::Epoch(2)));
    assert!(matches!(other, Err(Error::NotFound(_))), "nobody held it");
}

#[test]
fn an_empty_segment_is_loaded_as_nothing() {
    let cluster = Cluster::start(2, &[]);
    let session = cluster.session(0);
    session.create("s", &options().replicas(1)).unwrap();
    assert!(session.load("s", &LoadOptions::new()).unwrap().bytes().is_empty());
}

/// A reader has the owner's word for so long, and no longer, also if the owner waits for nothing else.
#[test]
fn a_hold_ends_when_its_time_is_over() {
    let cluster = Cluster::start(2, &[]);
    let mut segment = opened(&cluster.session(0), &options().replicas(1));
    let _hold = cluster.session(1).hold("s", Duration::from_secs(1)).unwrap();
    for n in 2..5 {
        write_state(&mut segment, n);
        segment.checkpoint().unwrap();
    }
}

/// Nobody waits for what a process was asked that has gone, nor takes it for one that hangs.
#[test]
fn a_holder_that_goes_without_an_answer_is_not_waited_for() {
    use std::io::Write;

    use segstore::control::frame::{ToDaemon, encode};
    use segstore::control::message::{PROTOCOL, Request};

    let cluster = Cluster::start(2, &[]);
    opened(&cluster.session(0), &options().replicas(1)).release().unwrap();
    let mut holder = std::os::unix::net::UnixStream::connect(cluster.socket(0)).unwrap();
    let hello = Request::Hello { protocol: PROTOCOL, session: None, program: "holder".into() };
    let acquire = Request::Acquire { name: "s".into(), wait: Some(0), force: false, own: false };
    for (number, request) in [(0, hello), (1, acquire)] {
        holder.write_all(&encode(&ToDaemon::Request(number, request)).unwrap()).unwrap();
    }
    until("it holds the name", || cluster.session(1).lookup("s").unwrap().holder);
    let session = cluster.session(1);
    let began = std::time::Instant::now();
    let reader =
        std::thread::spawn(move || session.load("s", &LoadOptions::new()).map(|image| check_state(image.bytes())));
    std::thread::sleep(Duration::from_millis(500));
    assert!(!reader.is_finished(), "it has asked who says nothing");
    drop(holder);
    assert_eq!(reader.join().unwrap().unwrap(), 1);
    assert!(began.elapsed() < Duration::from_millis(1500), "it has waited for who had gone");
}

#[test]
fn many_read_at_once_what_nobody_owns() {
    let cluster = Cluster::start(2, &[]);
    opened(&cluster.session(0), &options().replicas(1)).release().unwrap();
    let sessions: Vec<_> = (0..6).map(|n| cluster.session(n % 2)).collect();
    let load = |session: Session| session.load("s", &LoadOptions::new()).map(|image| check_state(image.bytes()));
    let readers: Vec<_> = sessions.into_iter().map(|session| std::thread::spawn(move || load(session))).collect();
    for reader in readers {
        assert_eq!(reader.join().unwrap().unwrap(), 1);
    }
}

/// A replica that does not answer meanwhile is left out, as by any takeover: it may hold what was never acknowledged. It is missed until
/// there is an owner again.
#[test]
fn a_read_of_what_nobody_owns_leaves_out_who_does_not_answer() {
    let mut cluster = Cluster::start(3, &["--transport", "tcp"]);
    let session = cluster.session(0);
    opened(&session, &options()).release().unwrap();
    let in_sync_after_a_load = || {
        assert_eq!(check_state(session.load("s", &LoadOptions::new()).unwrap().bytes()), 1);
        session.lookup("s").unwrap().record.record.in_sync.len()
    };
    assert_eq!(in_sync_after_a_load(), 2);
    cluster.kill(2);
    assert_eq!(in_sync_after_a_load(), 1);
    cluster.restart(2);
    assert_eq!(in_sync_after_a_load(), 1, "nobody is there who would have it filled");
    let mut segment = session.open("s", &OpenOptions::new().stand_by(Some(WATCHDOG))).unwrap();
    until("the owner has it filled", || (segment.checkpoint().unwrap().elsewhere == 2).then_some(()));
}

/// To be ready to take over disturbs nobody who answers.
#[test]
fn an_owner_that_answers_is_not_taken_over_by_a_reader() {
    let cluster = Cluster::start(2, &[]);
    let mut segment = opened(&cluster.session(0), &options().replicas(1));
    let image = cluster.session(1).load("s", &LoadOptions::new().take_over(true)).unwrap();
    assert_eq!(check_state(image.bytes()), 1);
    write_state(&mut segment, 2);
    segment.checkpoint().unwrap();
}

/// One of two replicas is out of the reader's reach, and the owner does not know.
#[test]
fn a_reader_that_cannot_reach_one_replica_reads_another() {
    let cluster = Cluster::start(4, &["--transport", "shm"]);
    let _segment = opened(&cluster.session(0), &options());
    let holders = segment_nodes(&cluster);
    let reader = cluster.session(0);
    cluster.pause(holders[0]);
    assert_eq!(check_state(reader.load("s", &LoadOptions::new()).unwrap().bytes()), 1);
}

/// Both slots of one of two replicas are altered, and the owner does not know.
#[test]
fn a_reader_that_finds_one_replica_damaged_reads_another() {
    let cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options());
    write_state(&mut segment, 2);
    segment.checkpoint().unwrap();
    for (number, node) in (0..).zip(segment_nodes(&cluster)) {
        (0..2).for_each(|slot| cluster.alter(node, slot));
        match session.load("s", &LoadOptions::new()) {
            Ok(image) if number == 0 => assert_eq!(check_state(image.bytes()), 2),
            Err(Error::NoGoodCopy(text)) if number == 1 => assert_eq!(text.matches("checksums").count(), 2, "{text}"),
            other => panic!("{number}: {:?}", other.map(|image| image.epoch())),
        }
    }
    segment.checkpoint().unwrap();
}

/// The nodes with replicas.
fn segment_nodes(cluster: &Cluster) -> Vec<usize> {
    let places = cluster.session(0).lookup("s").unwrap().places;
    places.iter().map(|place| place.node_name[1..].parse().unwrap()).collect()
}
