//! Segments that are handed over from one application to another, on purpose.

use std::time::Duration;

use segstore::{CreateOptions, Error, Moves, OpenOptions, Result, Segment, Session};

use super::harness::{Client, Cluster, WATCHDOG, until};
use super::roles::{check_state, opened, options};

/// Nodes by number, for the segment `s`.
fn stands_by(cluster: &Cluster, node: usize) {
    let name = format!("n{node}");
    let session = cluster.session(0);
    let waits = || session.status("s").ok()?.standby.iter().any(|standby| standby.node_name == name).then_some(());
    until("somebody stands by", waits);
}

/// A process that stands by, as the next after those that do already.
fn standing_by(cluster: &Cluster, node: usize, role: &str) -> Client {
    let client = cluster.client(node, role, &["s"]);
    stands_by(cluster, node);
    client
}

fn move_to(session: &Session, to: &str) -> Result<String> {
    session.move_to("s", Some(to), WATCHDOG).map(|holder| holder.node_name)
}

/// An owner that hears of moves.
fn hearing(session: &Session) -> (Segment, Moves) {
    let segment = opened(session, &options());
    let moves = segment.moves().unwrap();
    (segment, moves)
}

fn refused<T: std::fmt::Debug>(asked: Result<T>, what: &str) {
    let Err(Error::Refused(text)) = asked else { panic!("{what}: {asked:?}") };
    assert!(text.contains(what), "{text}");
}

/// Each owner starts from exactly what the one before left, on the node that was asked for, although others stand by elsewhere.
#[test]
fn a_segment_is_handed_over_and_nothing_is_lost() {
    let cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let mut clients = vec![cluster.client(0, "mover", &["s"])];
    clients[0].line("owner").expect("it becomes the owner");
    clients.extend((1..3).map(|node| standing_by(&cluster, node, "mover")));
    let mut at = 0;
    for to in [2, 1, 0, 1, 2, 0] {
        std::thread::sleep(Duration::from_millis(30));
        stands_by(&cluster, to);
        assert_eq!(move_to(&session, &format!("n{to}")).unwrap(), format!("n{to}"));
        let handed = clients[at].line("handed").expect("it hands over");
        let found = clients[to].line("owner").expect("it goes on");
        assert_eq!(found, handed, "from n{at} to n{to}");
        at = to;
    }
    let events = session.events(Some("s")).unwrap();
    let moved: Vec<_> = events.iter().filter(|event| event.what == "moved").collect();
    assert_eq!(moved.len(), 6, "{events:?}");
    let last = &moved[5].why;
    assert!(last.contains("opened, handed over by cluster") && last.ends_with("on node n2)"), "{last}");
    // Without a node: wherever somebody stands by.
    let holder = session.move_to("s", None, WATCHDOG).unwrap();
    assert_ne!(holder.node_name, "n0");
}

/// Its own daemon is started again meanwhile: it stands by as before.
#[test]
fn who_stands_by_outlasts_the_nodes_daemon() {
    let mut cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let (segment, moves) = hearing(&session);
    let mut standby = standing_by(&cluster, 1, "standby");
    cluster.restart(1);
    stands_by(&cluster, 1);
    std::thread::scope(|scope| {
        let moved = scope.spawn(|| move_to(&session, "n1").unwrap());
        moves.wait(Some(WATCHDOG)).expect("it is asked");
        segment.release().unwrap();
        assert_eq!(moved.join().unwrap(), "n1");
    });
    standby.line("owner").expect("it goes on");
}

/// Where it would come to nothing, nothing is disturbed, and it is said why.
#[test]
fn what_cannot_be_handed_over_stays() {
    let mut cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let nobody = session.move_to("s", Some("n1"), WATCHDOG);
    assert!(matches!(nobody, Err(Error::NotFound(_))), "{nobody:?}");
    let (mut segment, moves) = hearing(&session);
    let other = cluster.session(1);
    refused(move_to(&other, "n1"), "nobody stands by for s on node n1");
    refused(other.move_to("s", None, WATCHDOG), "nobody stands by for s on another node");
    let unknown = move_to(&other, "n9");
    assert!(matches!(&unknown, Err(Error::NotFound(text)) if text.contains("n0, n1, n2")), "{unknown:?}");
    assert_eq!(move_to(&other, "n0").unwrap(), "n0", "it is there already");
    assert_eq!(moves.wanted(), None, "it was not asked");
    // Somebody stands by, and the owner does not hear of moves.
    let _standby = standing_by(&cluster, 1, "standby");
    drop(moves);
    refused(move_to(&other, "n1"), "does not hear of moves");
    cluster.kill(1);
    let down = until("it is down", || match move_to(&session, "n1") {
        Err(Error::Refused(_)) => None,
        other => Some(other),
    });
    assert!(matches!(down, Err(Error::Unreachable(_))), "{down:?}");
    segment.checkpoint().unwrap();
}

/// Who is asked and does not let go goes on; what it lets go later is for whoever comes.
#[test]
fn an_owner_that_is_not_ready_goes_on() {
    let cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let (mut segment, moves) = hearing(&session);
    let mut other = standing_by(&cluster, 2, "standby");
    let _standby = standing_by(&cluster, 1, "standby");
    let late = cluster.session(1).move_to("s", Some("n1"), Duration::from_millis(300));
    assert!(
        matches!(&late, Err(Error::Unreachable(text)) if text.contains("has not done it within 300ms")),
        "{late:?}"
    );
    assert_eq!(moves.wanted(), None, "its time is over");
    segment.checkpoint().unwrap();
    segment.release().unwrap();
    // Which of the two is not said. If it is not this one, it is that.
    let holder = until("somebody has it", || session.lookup("s").unwrap().holder);
    if holder.node_name == "n2" {
        other.line("owner").expect("it goes on");
    }
}

/// The application ends when it is asked, without a last word: who was asked for has the segment, not who came first.
#[test]
fn who_ends_when_it_is_asked_is_followed_by_who_was_asked_for() {
    let cluster = Cluster::start(3, &[]);
    let mut owner = cluster.client(0, "leaver", &["s"]);
    owner.line("owner").expect("it becomes the owner");
    let _first = standing_by(&cluster, 2, "standby");
    let _second = standing_by(&cluster, 1, "standby");
    assert_eq!(move_to(&cluster.session(2), "n1").unwrap(), "n1");
}

/// Who was asked for has gone when the segment is let go: it is whoever's who stands by.
#[test]
fn where_the_successor_has_gone_another_takes_it() {
    let cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let (segment, moves) = hearing(&session);
    let mut first = standing_by(&cluster, 1, "standby");
    let mut other = standing_by(&cluster, 2, "standby");
    let asking = cluster.session(0);
    let moved = std::thread::spawn(move || move_to(&asking, "n1"));
    assert_eq!(moves.wait(Some(WATCHDOG)).expect("it is asked").to, "n1");
    first.kill();
    until("nobody stands by there", || (session.status("s").unwrap().standby.len() == 1).then_some(()));
    segment.release().unwrap();
    assert_eq!(moved.join().unwrap().unwrap(), "n2", "it says who has it");
    other.line("owner").expect("it goes on");
}

/// Asked again for the same, an owner that has heard of it and is about to let go does so; for something else it is not asked meanwhile.
#[test]
fn one_wish_at_a_time_is_asked_for() {
    let cluster = Cluster::start(3, &[]);
    let session = cluster.session(0);
    let (segment, moves) = hearing(&session);
    let _standby = standing_by(&cluster, 1, "standby");
    let _other = standing_by(&cluster, 2, "standby");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| move_to(&session, "n1").unwrap());
        moves.wait(Some(WATCHDOG)).expect("it is asked");
        refused(move_to(&cluster.session(1), "n2"), "asked before to let it go, for another node");
        // It hears no more, and is about to let go.
        drop(moves);
        let again = scope.spawn(|| move_to(&session, "n1").unwrap());
        std::thread::sleep(Duration::from_millis(200));
        segment.release().unwrap();
        assert_eq!([first.join().unwrap(), again.join().unwrap()], ["n1", "n1"]);
    });
}

/// What was wished for of a name is not of its next hold.
#[test]
fn a_wish_ends_with_the_hold() {
    let cluster = Cluster::start(2, &[]);
    let holder = cluster.session(0);
    let moves = holder.moves("job").unwrap();
    holder.acquire("job", Some(Duration::ZERO), false).unwrap();
    let next = cluster.session(1);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| next.acquire("job", Some(WATCHDOG), false).unwrap());
        let moved =
            scope.spawn(|| until("it can be asked", || holder.move_to("job", Some("n1"), WATCHDOG).ok()).node_name);
        moves.wait(Some(WATCHDOG)).expect("it is asked");
        holder.release("job").unwrap();
        waiting.join().unwrap();
        assert_eq!(moved.join().unwrap(), "n1");
        assert_eq!(moves.wanted(), None);
    });
}

/// A name is held in a session, and a process of it has the segment open: who of them hears of moves is asked, rather the latter.
#[test]
fn the_owner_is_asked_before_who_holds_the_name() {
    let cluster = Cluster::start(2, &[]);
    let runner = cluster.session(0);
    runner.acquire("s", Some(Duration::ZERO), false).unwrap();
    let of_name = runner.moves("s").unwrap();
    let program = Session::join_at(cluster.socket(0), &runner.token()).unwrap();
    let segment = opened(&program, &options().replicas(1));
    let _standby = standing_by(&cluster, 1, "standby");
    let ask = |time| cluster.session(1).move_to("s", Some("n1"), time).map(|holder| holder.node_name);
    let of_segment = segment.moves().unwrap();
    assert!(ask(Duration::from_millis(200)).is_err(), "nobody lets go");
    assert_eq!(of_name.wanted(), None);
    drop(of_segment);
    std::thread::scope(|scope| {
        let moved = scope.spawn(|| ask(WATCHDOG).unwrap());
        assert_eq!(of_name.wait(Some(WATCHDOG)).expect("it is asked").to, "n1");
        segment.release().unwrap();
        runner.release("s").unwrap();
        assert_eq!(moved.join().unwrap(), "n1");
    });
}

/// What was pushed and not acknowledged does not come in between: the last checkpoint that returned is what the next owner has.
#[test]
fn the_last_checkpoint_is_what_the_next_owner_has() {
    let cluster = Cluster::start(3, &["--transport", "tcp"]);
    let session = cluster.session(0);
    let make = CreateOptions::new(1 << 20).replicas(2);
    let mut segment = opened(&session, &make);
    let moves = segment.moves().unwrap();
    let next = cluster.session(1);
    std::thread::scope(|scope| {
        let standby = OpenOptions::new().stand_by(Some(WATCHDOG));
        let following = scope.spawn(move || next.open("s", &standby).unwrap());
        stands_by(&cluster, 1);
        let moved = scope.spawn(|| move_to(&session, "n1").unwrap());
        moves.wait(Some(WATCHDOG)).expect("it is asked");
        for n in 2..20 {
            super::roles::write_state(&mut segment, n);
            // Some whose end is not waited for.
            let ticket = segment.commit().unwrap();
            let _ = ticket.wait_until(std::time::Instant::now());
        }
        let last = until("a checkpoint is acknowledged", || segment.checkpoint().ok()).epoch;
        segment.release().unwrap();
        assert_eq!(moved.join().unwrap(), "n1");
        let following = following.join().unwrap();
        assert_eq!((following.epoch(), check_state(following.bytes())), (last, 19));
    });
}
