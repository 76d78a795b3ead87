//! Owners that die, pause, and compete.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::signal::Signal;
use segstore::{Error, OpenOptions, Session};

use super::harness::{Client, Cluster, WATCHDOG, until};
use super::roles::{check_state, opened, options};

const OVER_SHM: &[&str] = &["--transport", "shm"];
const OVER_TCP: &[&str] = &["--transport", "tcp"];
const ENCRYPTED: &[&str] = &["--transport", "tcp", "--encrypt-data"];

fn until_owner(client: &mut Client) -> u64 {
    client.line("owner").expect("it becomes the owner").parse().unwrap()
}

/// An owner that is killed at random moments, over and over: what was acknowledged is there, whole.
fn everything_acknowledged_survives(transport: &[&str]) {
    let cluster = Cluster::start(3, transport);
    let mut acknowledged = 0;
    for round in 0..12 {
        let mut owner = cluster.client(round % 3, "standby", &["s"]);
        let found = until_owner(&mut owner);
        assert!(found >= acknowledged, "{found} was loaded, {acknowledged} had been acknowledged");
        std::thread::sleep(Duration::from_millis(20 + 37 * (round as u64 % 5)));
        owner.kill();
        acknowledged = owner.last_number("acknowledged").unwrap_or(found);
    }
    let session = cluster.session(0);
    let standby = OpenOptions::new().stand_by(Some(WATCHDOG));
    let segment = session.open("s", &standby).unwrap();
    assert!(check_state(segment.bytes()) >= acknowledged);
    assert!(acknowledged > 12, "hardly anything was acknowledged: {acknowledged}");
}

#[test]
fn everything_acknowledged_survives_over_shm() {
    everything_acknowledged_survives(OVER_SHM);
}

#[test]
fn everything_acknowledged_survives_over_tcp() {
    everything_acknowledged_survives(OVER_TCP);
}

#[test]
fn everything_acknowledged_survives_over_encrypted_tcp() {
    everything_acknowledged_survives(ENCRYPTED);
}

#[test]
fn a_second_owner_is_refused_and_a_standby_comes_at_once() {
    let cluster = Cluster::start(3, &[]);
    let mut owner = cluster.client(0, "writer", &["s"]);
    until_owner(&mut owner);
    let refused = cluster.session(1).open("s", &OpenOptions::new());
    let Err(Error::Owned { holder, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(holder.node_name, "n0");
    let mut standby = cluster.client(1, "standby", &["s"]);
    std::thread::sleep(Duration::from_millis(300));
    owner.kill();
    let acknowledged = owner.last_number("acknowledged").unwrap_or_default();
    assert!(until_owner(&mut standby) >= acknowledged);
}

/// The old owner is only slow: it wakes after the takeover, and nothing of it is seen or acknowledged any more.
fn a_paused_owner_is_fenced(transport: &[&str], meanwhile: impl FnOnce(&mut Cluster)) {
    let mut cluster = Cluster::start(3, transport);
    let mut old = cluster.client(0, "writer", &["s"]);
    until_owner(&mut old);
    std::thread::sleep(Duration::from_millis(100));
    old.signal(Signal::SIGSTOP);
    meanwhile(&mut cluster);
    let mut new = cluster.client(1, "usurper", &["s"]);
    let found = until_owner(&mut new);
    std::thread::sleep(Duration::from_millis(100));
    old.signal(Signal::SIGCONT);
    let mut acknowledged = 0;
    let fenced = loop {
        match old.line("") {
            Some(line) if line.starts_with("acknowledged ") => acknowledged = line[13..].parse().unwrap(),
            Some(line) if line.starts_with("fenced ") => break line,
            Some(_) => {}
            None => panic!("the old owner ended otherwise"),
        }
    };
    assert!(found >= acknowledged, "{fenced}: {acknowledged} was acknowledged, the takeover found {found}");
    new.kill();
    let last = new.last_number("acknowledged").unwrap_or(found);
    let segment = cluster.session(2).open("s", &OpenOptions::new().stand_by(Some(WATCHDOG))).unwrap();
    assert!(check_state(segment.bytes()) >= last);
}

#[test]
fn a_paused_owner_is_fenced_over_shm() {
    a_paused_owner_is_fenced(OVER_SHM, |_| ());
}

#[test]
fn a_paused_owner_is_fenced_over_tcp() {
    a_paused_owner_is_fenced(OVER_TCP, |_| ());
}

#[test]
fn a_paused_owner_is_fenced_over_encrypted_tcp() {
    a_paused_owner_is_fenced(ENCRYPTED, |_| ());
}

/// The daemons that could have raised the fence were killed meanwhile; those that came after them raise it.
#[test]
fn a_paused_owner_is_fenced_by_daemons_that_were_restarted() {
    a_paused_owner_is_fenced(OVER_SHM, |cluster| (1..3).for_each(|node| cluster.restart(node)));
}

/// What was fenced is let go only after the segment was opened again in its place: the name is the new owner's.
#[test]
fn an_owner_that_was_fenced_opens_the_segment_again_in_its_place() {
    let cluster = Cluster::start(2, &[]);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options().replicas(1));
    let usurper = cluster.session(1).open("s", &OpenOptions::new().take_over(true)).unwrap();
    assert!(matches!(segment.checkpoint(), Err(Error::Fenced { .. })));
    usurper.release().unwrap();
    segment = session.open("s", &OpenOptions::new().stand_by(Some(WATCHDOG))).unwrap();
    // Long enough for a release that nobody waits for.
    std::thread::sleep(Duration::from_millis(300));
    assert!(session.lookup("s").unwrap().holder.is_some(), "it owns the segment, and the name is free");
    segment.checkpoint().unwrap();
    drop(segment);
    until("the name is free", || session.lookup("s").unwrap().holder.is_none().then_some(()));
}

/// Several segments of one application: whoever stands by for them has all of them, each with what was acknowledged, or none.
#[test]
fn a_group_is_taken_over_together() {
    const NAMES: [&str; 5] = ["e", "a", "d", "b", "c"];
    let cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let none = session.open_all(&NAMES, &OpenOptions::new());
    assert!(matches!(none, Err(Error::NotFound(_))), "{none:?}");
    NAMES.iter().for_each(|name| drop(session.create(name, &options()).unwrap()));
    let mut segments = session.open_all(&NAMES, &OpenOptions::new()).unwrap();
    for (segment, name) in segments.iter_mut().zip(NAMES) {
        assert_eq!(segment.name(), name);
        segment.set_len(1).unwrap();
        segment.write(0, name.as_bytes()).unwrap();
        segment.checkpoint().unwrap();
    }
    let twice = session.open_all(&["a", "b", "a"], &OpenOptions::new());
    assert!(matches!(&twice, Err(Error::Invalid(text)) if text.contains("segment a is named twice")), "{twice:?}");
    let next = cluster.session(1);
    let standby = OpenOptions::new().stand_by(Some(WATCHDOG));
    let following = std::thread::spawn(move || next.open_all(&NAMES, &standby));
    // The last one is let go last: until then nobody has any of them open.
    let kept = segments.pop().unwrap();
    drop(segments);
    let held = |name: &str| session.lookup(name).unwrap().holder.map(|holder| holder.node_name);
    until("the others are held", || (held("b").as_deref() == Some("n1")).then_some(()));
    let early = cluster.session(2).open_all(&["d", "c"], &OpenOptions::new());
    assert!(matches!(&early, Err(Error::Owned { name, .. }) if name == "c"), "{early:?}");
    drop((kept, session));
    let segments = following.join().unwrap().unwrap();
    let found: Vec<_> = segments.iter().map(|segment| segment.bytes().to_vec()).collect();
    assert_eq!(found, NAMES.map(|name| name.as_bytes().to_vec()));
}

/// The same of one that is killed while it writes.
#[test]
fn a_group_whose_owner_is_killed_is_taken_over_together() {
    let names = ["g3", "g1", "g2"];
    let cluster = Cluster::start(3, &[]);
    let mut owner = cluster.client(0, "group", &names);
    until_owner(&mut owner);
    let next = cluster.session(1);
    let following = std::thread::spawn(move || next.open_all(&names, &OpenOptions::new().stand_by(Some(WATCHDOG))));
    std::thread::sleep(Duration::from_millis(300));
    owner.kill();
    let mut acknowledged = names.map(|_| 0);
    while let Some(line) = owner.line("g") {
        let (name, n) = line.split_once(' ').unwrap();
        let at = names.iter().position(|of| of[1..] == *name).unwrap();
        acknowledged[at] = n.parse().unwrap_or(acknowledged[at]);
    }
    let segments = following.join().unwrap().unwrap();
    let found: Vec<_> = segments.iter().map(|segment| check_state(segment.bytes())).collect();
    assert!(acknowledged.iter().all(|&n| n > 3), "hardly anything was acknowledged: {acknowledged:?}");
    for (found, acknowledged) in found.into_iter().zip(acknowledged) {
        // What was asked for last may be there as well.
        assert!(found == acknowledged || found == acknowledged + 1, "{found}, and {acknowledged} was acknowledged");
    }
}

/// Two want the same, in different orders, over and over: neither waits for ever.
#[test]
fn groups_that_overlap_wait_for_each_other_in_one_order() {
    let cluster = Cluster::start(2, &[]);
    let names = ["a", "b", "c"];
    names.iter().for_each(|name| drop(cluster.session(0).create(name, &options().replicas(1)).unwrap()));
    std::thread::scope(|scope| {
        for (node, order) in [(0, ["a", "b", "c"]), (1, ["c", "b", "a"])] {
            let session = cluster.session(node);
            scope.spawn(move || {
                for _ in 0..20 {
                    drop(session.open_all(&order, &OpenOptions::new().stand_by(Some(WATCHDOG))).unwrap());
                }
            });
        }
    });
}

/// What no thread could be started for is done when there is one.
#[test]
fn an_owner_that_got_no_thread_is_not_stuck() {
    let cluster = Cluster::start(2, &[]);
    std::fs::set_permissions(cluster.socket(0).parent().unwrap(), PermissionsExt::from_mode(0o755)).unwrap();
    let mut owner = cluster.client_as(65534, 0, "threadless", &["s"]);
    for word in ["reached", "refused", "ended"] {
        assert_eq!(owner.line(word).as_deref(), Some("1"), "{word}");
    }
}

/// `Duration::MAX` says so.
#[test]
fn an_owner_may_wait_without_a_limit() {
    let cluster = Cluster::start(2, &[]);
    let how = OpenOptions::new().timeout(Duration::MAX).patience(Duration::MAX).stand_by(Some(Duration::MAX));
    let mut segment = cluster.session(0).open_or_create("s", &options().replicas(1), &how).unwrap();
    segment.checkpoint().unwrap();
    drop(segment.commit().unwrap());
    segment.checkpoint().unwrap();
}

#[test]
fn a_program_joins_the_session_that_it_was_started_in() {
    let cluster = Cluster::start(2, &[]);
    let runner = cluster.session(0);
    runner.acquire("s", Some(Duration::ZERO), false).unwrap();
    let stranger = cluster.session(0).open("s", &OpenOptions::new());
    assert!(matches!(stranger, Err(Error::Owned { .. })), "{stranger:?}");
    let token = runner.token();
    let joined = Session::join_at(cluster.socket(0), &token).unwrap();
    joined.open_or_create("s", &options().replicas(1), &OpenOptions::new()).unwrap();
}

/// An owner that asked for a further replica when it was stopped asks again when it wakes: by then the node that could make it has one
/// for the next owner, and keeps it.
#[test]
fn a_deposed_owner_has_no_replica_replaced() {
    let mut cluster = Cluster::start(3, OVER_TCP);
    let mut old = cluster.client(0, "idler", &["s"]);
    until_owner(&mut old);
    cluster.kill(2);
    std::fs::remove_dir_all(cluster.memory(2)).unwrap();
    old.line("short").expect("it goes on without the replica");
    old.signal(Signal::SIGSTOP);
    let session = cluster.session(1);
    let mut new = cluster.session(1).open("s", &OpenOptions::new().take_over(true)).unwrap();
    cluster.restart(2);
    // The one beside it does not count towards the two.
    let added = until("the next owner has its replicas", || {
        new.write(0, b"new").unwrap();
        new.checkpoint().unwrap();
        let record = session.lookup("s").unwrap().record.record;
        (record.in_sync.len() == 3).then_some(record)
    });
    old.signal(Signal::SIGCONT);
    // It looks for a replica every two seconds.
    std::thread::sleep(Duration::from_secs(6));
    new.checkpoint().unwrap();
    assert_eq!(session.lookup("s").unwrap().record.record, added);
    let filled = std::fs::read_to_string(cluster.log(2)).unwrap().matches("the replica is filled").count();
    assert_eq!(filled, 1, "nobody else had one filled there");
}

/// A replica is being filled for an owner while the next one takes over and writes what is being copied. Nobody relies on such a copy: it is
/// in no set, and the owner for whom it was made acknowledges nothing any more.
#[test]
fn a_replica_that_was_filled_for_a_deposed_owner_counts_for_nothing() {
    const LARGE: usize = 128 << 20;
    // A daemon is stopped for a while, and is not to count as dead.
    let mut cluster = Cluster::start(5, &["--transport", "tcp", "--node-lease", "60s"]);
    let session = cluster.session(0);
    let make = segstore::CreateOptions::new(LARGE as u64).replicas(2);
    let mut old = session.open_or_create("s", &make, &OpenOptions::new()).unwrap();
    old.set_len(LARGE).unwrap();
    old.bytes_mut(..).unwrap().fill(1);
    old.checkpoint().unwrap();
    let first = session.lookup("s").unwrap().places[0].node_name[1..].parse().unwrap();
    cluster.kill(first);
    old.write(0, &[1]).unwrap();
    assert_eq!(old.checkpoint().unwrap().elsewhere, 1);
    let says = |cluster: &Cluster, node, what: &str| {
        std::fs::read_to_string(cluster.log(node)).unwrap_or_default().contains(what)
    };
    let target =
        until("a replica is to be filled", || (1..5).find(|&node| says(&cluster, node, "is being filled here")));
    // It has a connection to copy over from then on.
    until("it is being filled", || cluster.has_slots(target).then_some(()));
    cluster.pause(target);
    assert!(!says(&cluster, target, "the replica is filled"), "it stands still in the middle");
    let mut new = cluster.session(0).open("s", &OpenOptions::new().take_over(true)).unwrap();
    let record = until("the next owner has its replicas", || {
        new.bytes_mut(..).unwrap().fill(2);
        new.checkpoint().unwrap();
        let record = session.lookup("s").unwrap().record.record;
        (record.in_sync.len() == 2).then_some(record)
    });
    cluster.resume(target);
    until("the filling ends", || says(&cluster, target, "the replica is filled").then_some(()));
    old.write(0, &[3]).unwrap();
    let fenced = old.checkpoint();
    assert!(matches!(fenced, Err(Error::Fenced { .. })), "{fenced:?}");
    new.checkpoint().unwrap();
    assert_eq!(session.lookup("s").unwrap().record.record, record, "nothing was added, nothing removed");
    let image = cluster.session(target).load("s", &segstore::LoadOptions::new()).unwrap();
    assert!(image.bytes().iter().all(|&byte| byte == 2), "the next owner's state, and nothing else");
}

/// The owner of a segment that is removed learns it by its next checkpoint, at once and in so many words.
fn an_owner_learns_of_the_removal(transport: &str, replicas: u32) {
    let cluster = Cluster::start(3, &["--transport", transport]);
    let make = options().replicas(replicas);
    let mut segment = cluster.session(0).open_or_create("s", &make, &OpenOptions::new()).unwrap();
    segment.set_len(4096).unwrap();
    segment.checkpoint().unwrap();
    let other = cluster.session(1);
    assert!(matches!(other.remove("s", false), Err(Error::Owned { .. })), "it is owned");
    other.remove("s", true).unwrap();
    let Err(Error::NotFound(text)) = segment.checkpoint() else { panic!("the segment is gone") };
    assert!(text.contains("was removed while this process owned it"), "{text}");
    drop(segment);
    // The name is free for another life.
    let segment = cluster.session(2).open_or_create("s", &make, &OpenOptions::new().stand_by(Some(WATCHDOG))).unwrap();
    assert!(segment.is_empty());
}

#[test]
fn an_owner_learns_of_the_removal_over_shm() {
    an_owner_learns_of_the_removal("shm", 2);
}

#[test]
fn an_owner_learns_of_the_removal_over_tcp() {
    an_owner_learns_of_the_removal("tcp", 1);
}

#[test]
fn the_next_owner_sends_only_what_changes() {
    let cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let pushed = |session: &Session| session.status("s").unwrap().owner.unwrap().pushed_bytes;
    let mut segment = session.open_or_create("s", &options(), &OpenOptions::new()).unwrap();
    segment.set_len(512 << 10).unwrap();
    segment.bytes_mut(..).unwrap().fill(7);
    segment.checkpoint().unwrap();
    assert!(pushed(&session) > 2 * (512 << 10), "the first checkpoint is all of it, to two replicas");
    segment.release().unwrap();
    let mut segment = cluster.session(1).open("s", &OpenOptions::new()).unwrap();
    segment.write(5000, b"x").unwrap();
    segment.checkpoint().unwrap();
    let sent = pushed(&cluster.session(1));
    assert!(sent < 32 << 10, "one block changed, {sent} bytes were sent");
    let image = cluster.session(2).load("s", &segstore::LoadOptions::new()).unwrap();
    assert_eq!((image.bytes()[4999], image.bytes()[5000]), (7, b'x'));
}

/// A daemon that was down for longer than its lease comes back: what its living applications own and nobody took is theirs, and is
/// shown so; what somebody took meanwhile is not.
#[test]
fn what_nobody_took_is_held_again() {
    let mut cluster = Cluster::start(3, &[]);
    let make = options();
    let owner = cluster.session(1);
    let mut kept = owner.open_or_create("kept", &make, &OpenOptions::new()).unwrap();
    let mut taken = owner.open_or_create("taken", &make, &OpenOptions::new()).unwrap();
    for segment in [&mut kept, &mut taken] {
        segment.set_len(4096).unwrap();
        segment.checkpoint().unwrap();
    }
    let other = cluster.session(2);
    cluster.kill(1);
    until("the lease is over", || other.lookup("kept").unwrap().holder.is_none().then_some(()));
    kept.write(0, b"on").unwrap();
    kept.checkpoint().unwrap();
    let successor = other.open("taken", &OpenOptions::new()).unwrap();
    cluster.restart(1);
    let holder = |name: &str| other.lookup(name).unwrap().holder.map(|holder| holder.node_name);
    until("its owner is known again", || (holder("kept").as_deref() == Some("n1")).then_some(()));
    // Whoever reads disturbs it no more.
    let image = until("its process is connected again", || match other.load("kept", &segstore::LoadOptions::new()) {
        Err(Error::Unreachable(_)) => None,
        image => Some(image.unwrap()),
    });
    assert_eq!((&image.bytes()[..2], image.epoch()), (&b"on"[..], kept.epoch()));
    kept.write(0, b"and on").unwrap();
    kept.checkpoint().unwrap();
    assert_eq!(other.lookup("kept").unwrap().record.record.term, kept.term());
    // It has outlived the grace for processes that do not come back.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!((holder("kept").as_deref(), holder("taken").as_deref()), (Some("n1"), Some("n2")));
    taken.write(0, b"lost").unwrap();
    let fenced = taken.checkpoint();
    assert!(matches!(fenced, Err(Error::Fenced { .. })), "{fenced:?}");
    successor.release().unwrap();
    // Nobody's hold comes back for an owner that is fenced.
    cluster.kill(1);
    std::thread::sleep(Duration::from_millis(1500));
    cluster.restart(1);
    until("its owner is known again", || (holder("kept").as_deref() == Some("n1")).then_some(()));
    assert_eq!(holder("taken"), None);
}

/// Every removal says why, and a takeover from whom.
#[test]
fn events_say_what_happened() {
    let mut cluster = Cluster::start(4, OVER_TCP);
    let session = cluster.session(0);
    let make = options().replicas(3);
    let mut segment = session.open_or_create("s", &make, &OpenOptions::new()).unwrap();
    segment.set_len(4096).unwrap();
    segment.checkpoint().unwrap();
    segment.release().unwrap();
    cluster.kill(1);
    cluster.kill(2);
    std::fs::remove_dir_all(cluster.memory(2)).unwrap();
    cluster.restart(2);
    until("the first is known to be gone", || {
        session.nodes().unwrap().iter().any(|node| node.name == "n1" && !node.up).then_some(())
    });
    drop(session.load("s", &segstore::LoadOptions::new().take_over(true)).unwrap());
    let _owner = session.open("s", &OpenOptions::new()).unwrap();
    drop(cluster.session(3).open("s", &OpenOptions::new().take_over(true)).unwrap());
    let events = session.events(Some("s")).unwrap();
    let told = |what: &str, whom: &str| {
        let found = events.iter().find(|event| event.what == what && event.why.contains(whom));
        found.unwrap_or_else(|| panic!("{what} {whom} in {events:?}")).why.clone()
    };
    assert!(told("removed", "the replica on n1").contains("node n1 is down"), "{events:?}");
    assert!(told("removed", "the replica on n2").contains("its memory is new"), "{events:?}");
    told("claimed", "read; nobody held it");
    told("taken_over", "by force, from cluster");
}

/// At three in the morning the question is why it moved.
#[test]
fn a_claim_tells_how_the_one_before_ended() {
    let mut cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    drop(session.open_or_create("s", &options(), &OpenOptions::new()).unwrap());
    let why = |session: &Session| {
        let claimed = session.open("s", &OpenOptions::new().stand_by(Some(WATCHDOG))).unwrap();
        let told = session.events(Some("s")).unwrap().into_iter().rfind(|event| event.what == "claimed");
        claimed.release().unwrap();
        told.unwrap().why
    };
    why(&cluster.session(1));
    assert!(why(&session).contains("on node n1), which let it go"));
    for how in ["whose session has ended", "the lease of whose node was over"] {
        let mut owner = cluster.client(1, "standby", &["s"]);
        until_owner(&mut owner);
        if how.contains("lease") {
            cluster.kill(1);
        }
        owner.kill();
        let told = why(&session);
        assert!(told.contains("on node n1)") && told.contains(how), "{told}");
    }
}
