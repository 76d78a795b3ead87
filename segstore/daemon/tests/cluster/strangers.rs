//! Who does not belong here, or dies with its hands full: neither disturbs anybody else.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use segstore::control::channel::Channel;
use segstore::control::frame::{ToDaemon, encode};
use segstore::control::message::{Answer, Bytes, FaultKind, PROTOCOL, Request};
use segstore::{CreateOptions, Error, OpenOptions, Session};
use segstore_core::id::{Epoch, OwnerId, Stamp, Term};
use segstore_core::layout::Ownership;
use segstore_core::record::Swap;
use segstore_core::replica::Request as ReplicaRequest;

use super::harness::{Cluster, WATCHDOG, until};
use super::roles::{opened, options, write, write_state};

/// The last digit of a port is the node's number.
fn ports() -> u16 {
    let free = |first: &u16| (*first..first + 10).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    (15_000..20_000).step_by(10).find(free).unwrap()
}

/// What somebody may send who has the address of a data port and nothing else.
fn garbage() -> Vec<Vec<u8>> {
    let knock = |version: u16, token: u8| {
        let mut knock = b"TCPk".to_vec();
        knock.extend(version.to_le_bytes());
        knock.extend([0; 2]);
        knock.extend([token; 16]);
        knock
    };
    let huge_write = [&[0x7c, 1, 1, 0][..], &[0xff; 4], &[0xff; 8]].concat();
    vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 100_000],
        knock(1, 0),
        knock(99, 7),
        [knock(1, 3), huge_write].concat(),
    ]
}

#[test]
fn strangers_at_the_data_port_are_sent_away() {
    let first = ports();
    let listen = format!("127.0.0.1:{}{{node}}", first / 10);
    let cluster = Cluster::start(2, &["--transport", "tcp", "--data-listen", &listen]);
    let make = CreateOptions::new(1 << 20);
    let mut segment = cluster.session(0).open_or_create("s", &make, &OpenOptions::new()).unwrap();
    segment.set_len(8).unwrap();
    let mut strangers = Vec::new();
    for number in 0..50_u64 {
        for bytes in garbage() {
            let mut stranger = TcpStream::connect(("127.0.0.1", first + 1)).unwrap();
            stranger.set_read_timeout(Some(WATCHDOG)).unwrap();
            let _ = stranger.write_all(&bytes);
            strangers.push(stranger);
        }
        segment.write(0, &number.to_le_bytes()).unwrap();
        assert_eq!(segment.checkpoint().unwrap().elsewhere, 1);
    }
    for mut stranger in strangers {
        let mut said = Vec::new();
        let _ = stranger.read_to_end(&mut said);
        assert!(said.len() <= 16, "a refusal is all that a stranger gets: {said:?}");
    }
    let image = cluster.session(1).load("s", &segstore::LoadOptions::new()).unwrap();
    assert_eq!(image.bytes(), 49_u64.to_le_bytes());
}

#[test]
fn a_taken_name_and_an_absurd_size_are_refused_with_the_value() {
    let cluster = Cluster::start(2, &[]);
    let session = cluster.session(0);
    session.create("s", &options()).unwrap();
    let Err(Error::Exists(text)) = session.create("s", &options()) else { panic!("the name is taken") };
    assert!(text.contains('s'));
    for capacity in [0, u64::MAX, 1 << 62] {
        let Err(Error::Invalid(text)) = session.create("t", &CreateOptions::new(capacity)) else {
            panic!("{capacity}")
        };
        assert!(text.contains(&capacity.to_string()), "{text}");
    }
    let Err(Error::NoRoom(text)) = session.create("t", &CreateOptions::new(1 << 40)) else {
        panic!("there is no room")
    };
    assert!(text.contains("n0: it has") && text.contains("n1: it has"), "{text}");
    for name in ["", "a//b", "a/../b", "/a", "a b", &"x".repeat(256)] {
        assert!(matches!(session.create(name, &options()), Err(Error::Invalid(_))), "{name:?}");
    }
    assert_eq!(session.segments().unwrap().len(), 1);
}

/// A client that holds names, reads, waits and has a slot held dies: everything is free again.
#[test]
fn a_client_that_dies_holding_everything_leaves_nothing_behind() {
    let cluster = Cluster::start(3, &[]);
    let session = cluster.session(1);
    let mut segment = session.open_or_create("read", &options(), &OpenOptions::new()).unwrap();
    segment.set_len(super::roles::STATE).unwrap();
    write_state(&mut segment, 1);
    segment.checkpoint().unwrap();
    let holds = || session.status("read").unwrap().owner.unwrap().holds;
    let mut hoarder = cluster.client(0, "hoarder", &["a", "b", "c"]);
    hoarder.line("full").unwrap();
    assert_eq!(holds(), 1);
    hoarder.kill();
    until("the slot is free", || (holds() == 0).then_some(()));
    // With two slots these need the one that was held.
    for n in 2..5 {
        write_state(&mut segment, n);
        segment.checkpoint().unwrap();
    }
    for name in ["a", "b", "c"] {
        drop(session.open(name, &OpenOptions::new().stand_by(Some(Duration::from_secs(20)))).unwrap());
    }
}

/// What a replica is forgotten for is said by its segment's owner, and by nobody who was or pretends to be.
#[test]
fn nobody_but_the_owner_has_a_replica_replaced() {
    let cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let mut segment = session.open_or_create("s", &options().replicas(1), &OpenOptions::new()).unwrap();
    segment.set_len(super::roles::STATE).unwrap();
    write_state(&mut segment, 1);
    segment.checkpoint().unwrap();
    segment.release().unwrap();
    let record = session.lookup("s").unwrap().record.record;
    let channel = Channel::open(&cluster.socket(0), "stranger", None, Box::new(|_, _| ()), Box::new(|_| ())).unwrap();
    for term in [0, 1, 99] {
        let request = Request::Repair {
            name: "s".into(),
            ownership: Ownership { term: Term(term), owner: OwnerId(7) },
            members: Vec::new(),
            source: record.in_sync[0],
            slot: 0,
            base: Stamp { term: Term(0), epoch: Epoch(0) },
        };
        let fault = channel.ask(request, Some(WATCHDOG)).unwrap_err();
        assert!(matches!(fault.kind, FaultKind::Refused(_)), "{fault:?}");
    }
    let image = session.load("s", &segstore::LoadOptions::new()).unwrap();
    assert_eq!(super::roles::check_state(image.bytes()), 1);
}

/// Whoever may own one segment has no power over another, and nobody has any in the name of an owner that the record does not name: a
/// replica that once heard of a term refuses every lower one for good.
#[test]
fn nobody_but_the_owner_reaches_a_replica_as_its_writer() {
    let cluster = Cluster::start(2, &[]);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options().replicas(1));
    session.create("mine", &options().replicas(1)).unwrap();
    let theirs = session.lookup("s").unwrap().record;
    let mine = session.lookup("mine").unwrap().record.record;
    let member = theirs.record.in_sync[0];
    let channel = Channel::open(&cluster.socket(0), "stranger", None, Box::new(|_, _| ()), Box::new(|_| ())).unwrap();
    let high = Ownership { term: Term(u64::MAX - 1), owner: OwnerId(7) };
    let present = theirs.ownership();
    // Under the name of one's own segment; in the name of somebody who is to come; in the term that is, as somebody else.
    let lies = [
        ("mine", high),
        ("mine", mine.ownership()),
        ("s", high),
        ("s", Ownership { term: present.term.next(), ..present }),
        ("s", Ownership { owner: OwnerId(7), ..present }),
    ];
    for (name, asker) in lies {
        let (name, request) = (
            name.to_owned(),
            ReplicaRequest { segment: theirs.record.segment, incarnation: member.incarnation, asker },
        );
        let (writer, provider, hello) = (Some(request), "tcp".into(), Bytes(Vec::new()));
        let attempts = [
            Request::Fence { name: name.clone(), member, request },
            Request::Level { name: name.clone(), member, request },
            Request::Connect { name: name.clone(), member, writer, provider, hello },
            Request::Local { name: name.clone(), make_for: Some(high) },
        ];
        for attempt in attempts {
            let fault = channel.ask(attempt.clone(), Some(WATCHDOG)).unwrap_err();
            assert!(matches!(fault.kind, FaultKind::Invalid | FaultKind::Refused(_)), "{attempt:?}: {fault:?}");
        }
    }
    session.acquire("mine", Some(Duration::ZERO), false).unwrap();
    let versioned = session.lookup("mine").unwrap().record;
    let new = segstore_core::record::Record { term: high.term, ..mine };
    let swap = Request::Swap {
        name: "mine".into(),
        swap: Swap { expected: versioned, new },
        why: String::new(),
        causes: Vec::new(),
    };
    assert_eq!(channel.ask(swap, Some(WATCHDOG)).unwrap_err().kind, FaultKind::Invalid, "no term is skipped");
    write_state(&mut segment, 2);
    segment.checkpoint().unwrap();
}

/// A child that its parent forked has the parent's connection, and is not the parent.
#[test]
fn a_forked_child_does_not_keep_what_its_parent_held() {
    let cluster = Cluster::start(2, &[]);
    let mut owner = cluster.client(0, "forker", &["s"]);
    let child: i32 = owner.line("child").unwrap().parse().unwrap();
    owner.kill();
    let opened = cluster.session(1).open("s", &OpenOptions::new().stand_by(Some(Duration::from_secs(10))));
    kill(Pid::from_raw(child), Signal::SIGKILL).unwrap();
    opened.unwrap();
}

#[test]
#[expect(unsafe_code, reason = "fork")]
fn a_forked_child_leaves_its_parents_connection_alone() {
    let cluster = Cluster::start(1, &[]);
    let channel = Channel::open(&cluster.socket(0), "parent", None, Box::new(|_, _| ()), Box::new(|_| ())).unwrap();
    let acquire = || Request::Acquire { name: "s".into(), wait: Some(0), force: false, own: false };
    channel.ask(acquire(), Some(WATCHDOG)).unwrap();
    // SAFETY: the child drops what it has of the channel, which takes no lock but the allocator's, and ends.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            drop(channel);
            std::process::abort();
        }
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
    };
    std::thread::sleep(Duration::from_millis(300));
    let again = channel.ask(acquire(), Some(WATCHDOG)).unwrap();
    assert!(matches!(again, Answer::Acquired { newly: false, .. }), "the session goes on: {again:?}");
}

/// Nor what its parent owns, whatever it drops on its way out.
#[test]
#[expect(unsafe_code, reason = "fork")]
fn a_forked_child_lets_nothing_of_its_parents_go() {
    let cluster = Cluster::start(2, &[]);
    let session = cluster.session(0);
    let mut segment = opened(&session, &options().replicas(1));
    // SAFETY: the child drops what it has of the session, which takes no lock but the allocator's, and ends.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let refused = session.release("s");
            drop((segment, session));
            // SAFETY: it ends this process without a look at what other threads had.
            unsafe { nix::libc::_exit(i32::from(refused.is_ok())) };
        }
        ForkResult::Parent { child } => assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0))),
    };
    std::thread::sleep(Duration::from_millis(300));
    let taken = cluster.session(1).open("s", &OpenOptions::new());
    assert!(matches!(taken, Err(Error::Owned { .. })), "its parent owns it: {taken:?}");
    write(&mut segment, 2);
    segment.release().unwrap();
    cluster.session(1).open("s", &OpenOptions::new()).unwrap();
}

/// Two programs that are told to join a session without a name join none.
#[test]
fn a_session_without_a_name_is_nobodys() {
    let cluster = Cluster::start_in(vec![("SEGSTORE_SESSION", "".into())], 2, &[]);
    let mut owner = cluster.client(0, "writer", &["s"]);
    owner.line("owner").expect("it becomes the owner");
    let mut other = cluster.client(0, "writer", &["s"]);
    assert_eq!(other.line("owner"), None, "it is another session");
    owner.line("acknowledged").expect("it goes on");
    assert!(Session::join_at(cluster.socket(0), "").is_err());
}

#[test]
fn a_client_that_reads_nothing_is_read_no_further() {
    let cluster = Cluster::start(1, &[]);
    let mut stream = UnixStream::connect(cluster.socket(0)).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let hello = Request::Hello { protocol: PROTOCOL, session: None, program: "mute".into() };
    stream.write_all(&encode(&ToDaemon::Request(0, hello)).unwrap()).unwrap();
    let requests = encode(&ToDaemon::Request(1, Request::Nodes)).unwrap().repeat(1000);
    let taken = (0..200).take_while(|_| stream.write_all(&requests).is_ok()).count();
    assert!(taken < 100, "{taken} thousand requests were read of a client that reads no answer");
    cluster.session(0).nodes().unwrap();
}

#[test]
fn requests_that_wait_are_bounded_by_connection() {
    let cluster = Cluster::start(1, &[]);
    let holder = cluster.session(0);
    holder.acquire("s", Some(Duration::ZERO), false).unwrap();
    let channel = Channel::open(&cluster.socket(0), "impatient", None, Box::new(|_, _| ()), Box::new(|_| ())).unwrap();
    let acquire = Request::Acquire { name: "s".into(), wait: None, force: false, own: false };
    let asked: Vec<_> = (0..513).map(|_| channel.send(acquire.clone()).unwrap()).collect();
    let refused = asked.into_iter().next_back().unwrap().wait(Some(WATCHDOG)).unwrap_err();
    assert_eq!(refused.kind, FaultKind::NoRoom, "{refused:?}");
    drop(channel);
    holder.nodes().unwrap();
}
