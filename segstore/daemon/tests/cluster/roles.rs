//! What a process of this binary does when it is started as a client.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use segstore::{CreateOptions, Error, LoadOptions, OpenOptions, SESSION_VARIABLE, Segment, Session};

/// Bytes of the self-checking state.
pub(super) const STATE: usize = 256 << 10;

/// Where a daemon alone is killed, its memory lives on, and over shared memory so does what is written into it until the owner notices. Over
/// TCP its end is the node's.
pub(super) const OVER_TCP: &[&str] = &["--transport", "tcp"];

/// Between two states of an owner whose lines nobody reads for a while.
const IN_PEACE: Duration = Duration::from_millis(10);

/// Writes the number `n` all over the state, in a pattern that shows any mixture.
pub(super) fn write_state(segment: &mut Segment, n: u64) {
    let state = segment.bytes_mut(..).unwrap();
    // A few places only: what does not change must not be lost either.
    for place in places(n) {
        state[place..place + 8].copy_from_slice(&n.to_le_bytes());
    }
}

fn places(n: u64) -> impl Iterator<Item = usize> {
    let n = usize::try_from(n).unwrap();
    let place = move |i| ((n * 31 + i) * 4096 + 8 * i) % (STATE - 16);
    [0, STATE - 8].into_iter().chain((1..8).map(place).map(|place| place & !7))
}

/// The number of the state, after checking that it is whole: it is what writing 1 to n leaves.
pub(super) fn check_state(state: &[u8]) -> u64 {
    if state.is_empty() {
        return 0;
    }
    let at = |place: usize| u64::from_le_bytes(state[place..place + 8].try_into().unwrap());
    let n = at(0);
    let mut expected = vec![0_u8; STATE];
    for m in 1..=n {
        for place in places(m) {
            expected[place..place + 8].copy_from_slice(&m.to_le_bytes());
        }
    }
    assert!(state == expected, "the state of {n} is not what writing 1 to {n} leaves");
    n
}

pub(super) fn options() -> CreateOptions {
    CreateOptions::new(1 << 20).replicas(2)
}

/// The segment `s` with the state 1, in its replicas.
pub(super) fn opened(session: &Session, make: &CreateOptions) -> Segment {
    let mut segment = session.open_or_create("s", make, &OpenOptions::new()).unwrap();
    segment.set_len(STATE).unwrap();
    write(&mut segment, 1);
    segment
}

/// The same with room for the state, and no checkpoint so far.
pub(super) fn opened_empty(session: &Session) -> Segment {
    let mut segment = session.open_or_create("s", &options(), &OpenOptions::new()).unwrap();
    segment.set_len(STATE).unwrap();
    segment
}

/// Makes a checkpoint of the state `n`.
pub(super) fn write(segment: &mut Segment, n: u64) {
    write_state(segment, n);
    segment.checkpoint().unwrap();
}

/// Replicas in sync on other nodes than the owner's.
pub(super) fn elsewhere(session: &Session) -> u32 {
    session.status("s").unwrap().owner.expect("the owner answers").elsewhere
}

/// Not a test: what a child process runs.
#[test]
fn role() {
    let Ok(role) = std::env::var("ROLE") else { return };
    let arguments = std::env::var("ARGUMENTS").unwrap();
    let arguments: Vec<_> = arguments.split_whitespace().collect();
    match role.as_str() {
        "writer" => writer(arguments[0], &OpenOptions::new()),
        "clocked" => {
            let tell = || {
                say("clock", seconds());
                std::thread::sleep(IN_PEACE);
            };
            write_states(open(arguments[0], &OpenOptions::new()), tell);
        }
        "collocated" => {
            let session = Session::connect().unwrap();
            let make = options().replicas(1).local(true);
            let segment = session.open_or_create(arguments[0], &make, &OpenOptions::new()).unwrap();
            write_states(segment, || std::thread::sleep(IN_PEACE));
        }
        "standby" => writer(arguments[0], &OpenOptions::new().stand_by(None)),
        "follower" => writer(arguments[0], &OpenOptions::new().stand_by(None).follow(true)),
        "usurper" => writer(arguments[0], &OpenOptions::new().take_over(true)),
        "mover" => mover(arguments[0]),
        "group" => group(&arguments),
        "launcher" => {
            // The worker's lines go where this one's go.
            let session = Session::connect().unwrap();
            let mut worker = std::process::Command::new(std::env::current_exe().unwrap());
            worker.args(["--exact", "roles::role", "--nocapture", "--test-threads", "1"]);
            let mut worker = worker.env("ROLE", "writer").env(SESSION_VARIABLE, session.token()).spawn().unwrap();
            say("worker", worker.id().into());
            worker.wait().unwrap();
        }
        "dropper" => {
            say("worker", std::process::id().into());
            let (session, make) = (Session::connect().unwrap(), options().owner(65_534));
            let segment = session.open_or_create(arguments[0], &make, &OpenOptions::new()).unwrap();
            nix::unistd::setuid(65_534.into()).unwrap();
            write_states(segment, || std::thread::sleep(IN_PEACE));
        }
        "leaver" => {
            // Where it is asked to hand over, it ends without a word.
            let segment = open(arguments[0], &OpenOptions::new());
            let moves = segment.moves().unwrap();
            say("owner", 0);
            assert!(moves.wait(None).is_some(), "it waits without a limit");
            std::process::abort();
        }
        "idler" => {
            // Until a replica is missing; then it does nothing any more, but the library looks for another one.
            let mut segment = open(arguments[0], &OpenOptions::new());
            segment.set_len(STATE).unwrap();
            say("owner", 0);
            while segment.checkpoint().unwrap().elsewhere > 1 {
                std::thread::sleep(Duration::from_millis(10));
            }
            say("short", 1);
            std::thread::sleep(Duration::from_secs(600));
        }
        "forker" => {
            let _segment = open(arguments[0], &OpenOptions::new());
            say("owner", 0);
            say("child", fork_a_sleeper().into());
            std::thread::sleep(Duration::from_secs(600));
        }
        "hoarder" => {
            let session = Session::connect().unwrap();
            let _held = session.hold("read", Duration::from_secs(60)).unwrap();
            let hoard = |name: &&str| session.open_or_create(name, &options(), &OpenOptions::new()).unwrap();
            let mut segments: Vec<_> = arguments.iter().map(hoard).collect();
            for segment in &mut segments {
                segment.set_len(4096).unwrap();
                segment.checkpoint().unwrap();
            }
            let waiting = session.clone();
            std::thread::spawn(move || waiting.acquire("read", None, false));
            say("full", 1);
            std::thread::sleep(Duration::from_secs(600));
        }
        // The system has no thread for what it needs, and then it has.
        "threadless" => {
            let session = Session::connect().unwrap();
            let how = OpenOptions::new().timeout(Duration::from_secs(5));
            let open = |name| session.open_or_create(name, &options().replicas(1), &how).unwrap();
            // Opens the transport's devices, too.
            let _other = open("other");
            let (soft, hard) = getrlimit(Resource::RLIMIT_NPROC).unwrap();
            setrlimit(Resource::RLIMIT_NPROC, 1, hard).unwrap();
            let mut segment = open(arguments[0]);
            setrlimit(Resource::RLIMIT_NPROC, soft, hard).unwrap();
            say("reached", u64::from(segment.checkpoint().is_ok()));
            setrlimit(Resource::RLIMIT_NPROC, 1, hard).unwrap();
            let mut ticket = segment.commit().unwrap();
            say("refused", u64::from(matches!(ticket.descriptor(), Err(Error::NoRoom(_)))));
            say("ended", u64::from(ticket.wait().is_ok()));
        }
        "stranger" => {
            let session = Session::connect().unwrap();
            let opened = session.open(arguments[0], &OpenOptions::new());
            let loaded = session.load(arguments[0], &LoadOptions::new());
            let problems = [opened.err(), loaded.err()];
            let denied = problems.iter().flatten().filter(|error| is_refusal(error)).count();
            say("denied", denied.try_into().unwrap());
        }
        "giver" => {
            let session = Session::connect().unwrap();
            let opened = session.open(arguments[0], &OpenOptions::new());
            say("opened", u64::from(opened.is_ok()));
            let makes = [CreateOptions::new(4096).owner(0), CreateOptions::new(4096).group(12345)];
            let made = makes.iter().map(|make| session.create("mine", make));
            let is_denied =
                |made: &segstore::Result<_>| matches!(made, Err(Error::Refused(text)) if text.contains("65534"));
            say("denied", made.filter(is_denied).count().try_into().unwrap());
        }
        other => panic!("no role {other}"),
    }
}

/// What this process's clock says, in seconds since 1970.
pub(super) fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A child that has everything of this process, and sleeps for a while.
#[expect(unsafe_code, reason = "fork")]
fn fork_a_sleeper() -> u32 {
    // SAFETY: the child calls nothing that another thread may have been in the middle of.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Parent { child } => child.as_raw().try_into().unwrap(),
        nix::unistd::ForkResult::Child => {
            nix::unistd::sleep(60);
            std::process::abort();
        }
    }
}

fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Refused(text) if text.contains("user 65534 may not"))
}

fn open(name: &str, how: &OpenOptions) -> Segment {
    let session = Session::connect().unwrap();
    session.open_or_create(name, &options(), how).unwrap()
}

/// Writes states and says which was acknowledged, until it is killed or fenced.
fn writer(name: &str, how: &OpenOptions) {
    // Checking is quadratic in what is written.
    write_states(open(name, how), || std::thread::sleep(Duration::from_micros(200)));
}

/// Writes states until it is asked to hand the segment over; then stands by for it again.
fn mover(name: &str) {
    loop {
        let mut segment = open(name, &OpenOptions::new().stand_by(None));
        let moves = segment.moves().unwrap();
        let mut n = check_state(segment.bytes());
        say("owner", n);
        if segment.is_empty() {
            segment.set_len(STATE).unwrap();
        }
        while moves.wanted().is_none() {
            std::thread::sleep(Duration::from_micros(200));
            n += 1;
            write(&mut segment, n);
        }
        say("handed", n);
        segment.release().unwrap();
    }
}

/// Writes states of several segments by turns and says which was acknowledged of which, until it is killed.
fn group(names: &[&str]) {
    let session = Session::connect().unwrap();
    names.iter().for_each(|name| drop(session.create(name, &options()).unwrap()));
    let mut segments = session.open_all(names, &OpenOptions::new()).unwrap();
    segments.iter_mut().for_each(|segment| segment.set_len(STATE).unwrap());
    say("owner", 0);
    for n in 1.. {
        for (segment, name) in segments.iter_mut().zip(names) {
            write(segment, n);
            say(name, n);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn write_states(mut segment: Segment, pause: impl Fn()) {
    let mut n = check_state(segment.bytes());
    say("owner", n);
    if segment.is_empty() {
        segment.set_len(STATE).unwrap();
    }
    loop {
        n += 1;
        write_state(&mut segment, n);
        match segment.checkpoint() {
            Ok(_) => say("acknowledged", n),
            Err(Error::Fenced { .. }) => return say("fenced", n),
            Err(Error::Pending { .. }) => say("pending", n),
            Err(other) => panic!("{other}"),
        }
        pause();
    }
}

fn say(what: &str, n: u64) {
    let mut out = std::io::stdout().lock();
    // In one piece, with a leading end of line: the test runner prints in between.
    out.write_all(format!("\n{what} {n}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}
