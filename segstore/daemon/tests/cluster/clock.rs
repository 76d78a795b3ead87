//! Clocks that are set while daemons and owners run, hours forward and back. What passes is measured by a clock that nobody sets, so
//! nothing comes of it but the times that people are told.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use segstore::OpenOptions;
use tempfile::TempDir;

use super::harness::{Client, Cluster, WATCHDOG};
use super::roles::{check_state, options, seconds};

/// Where Debian's package `faketime` has it.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const HOUR: i64 = 3600;
const LEASE: &str = "2s";
/// Longer than a lease.
const A_WHILE: Duration = Duration::from_secs(3);

/// The time of day of every process that runs under it: so far from the real one as its file says.
struct Clock {
    place: TempDir,
    offset: i64,
}

impl Clock {
    fn new() -> Clock {
        let mut clock = Clock { place: TempDir::new().unwrap(), offset: 0 };
        clock.set(0);
        clock
    }

    fn file(&self) -> PathBuf {
        self.place.path().join("offset")
    }

    /// What puts a process under it. A clock that is set leaves alone the one by which waiting is measured, and so does this.
    fn environment(&self) -> Vec<(&'static str, OsString)> {
        assert!(Path::new(LIBRARY).exists(), "this test needs {LIBRARY}: apt-get install faketime");
        vec![
            ("LD_PRELOAD", LIBRARY.into()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().into()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }

    /// Sets it so many seconds beside the real one.
    fn set(&mut self, offset: i64) {
        self.offset = offset;
        let beside = self.file().with_extension("new");
        std::fs::write(&beside, format!("{offset:+}\n")).unwrap();
        std::fs::rename(beside, self.file()).unwrap();
    }

    /// Whether a time that a process told is of this clock.
    fn says(&self, told: u64) -> bool {
        seconds().saturating_add_signed(self.offset).abs_diff(told) < HOUR.unsigned_abs()
    }
}

impl Drop for Clock {
    /// Processes that are killed leave what the library keeps of them.
    fn drop(&mut self) {
        for entry in std::fs::read_dir("/dev/shm").unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            let process = name.strip_prefix("faketime_shm_").or(name.strip_prefix("sem.faketime_sem_"));
            if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// Reads what the owner says for a while: one checkpoint after the other, and at last by this clock.
fn goes_on(owner: &mut Client, clock: &Clock) -> u64 {
    let (began, mut acknowledged, mut told) = (Instant::now(), 0, None);
    while began.elapsed() < A_WHILE || !told.is_some_and(|told| clock.says(told)) {
        assert!(began.elapsed() < WATCHDOG, "the owner's clock says {told:?}, it was set by {} s", clock.offset);
        let line = owner.line("").expect("it goes on");
        match line.split_once(' ') {
            Some(("acknowledged", number)) => acknowledged = number.parse().unwrap(),
            Some(("clock", time)) => told = Some(time.parse().unwrap()),
            _ => assert!(line.is_empty(), "{line}"),
        }
    }
    acknowledged
}

/// What a daemon writes down from now on bears this clock's time.
fn daemons_tell(cluster: &Cluster, clock: &Clock, round: usize) {
    for node in 0..3 {
        let (session, name) = (cluster.session(node), format!("made-{round}-by-n{node}"));
        session.create(&name, &options().replicas(1)).unwrap();
        let made = session.events(Some(&name)).unwrap().remove(0);
        assert!(clock.says(made.at / 1000), "the clock was set by {} s: {made:?}", clock.offset);
    }
}

#[test]
fn a_clock_that_jumps_costs_nobody_anything() {
    let mut clock = Clock::new();
    let encrypted = ["--transport", "tcp", "--encrypt-data", "--node-lease", LEASE];
    let mut cluster = Cluster::start_in(clock.environment(), 3, &encrypted);
    let session = cluster.session(1);
    let mut owner = cluster.client(0, "clocked", &["s"]);
    owner.line("owner").unwrap();
    let before = session.lookup("s").unwrap();
    let to_1970 = HOUR - i64::try_from(seconds()).unwrap();
    for (round, offset) in [30 * HOUR, -30 * HOUR, 100_000 * HOUR, to_1970].into_iter().enumerate() {
        clock.set(offset);
        goes_on(&mut owner, &clock);
        daemons_tell(&cluster, &clock, round);
        let now = session.lookup("s").unwrap();
        assert_eq!((&now.record, &now.holder), (&before.record, &before.holder), "the clock was set by {offset} s");
        let state = session.status("s").unwrap().owner.expect("the owner answers");
        assert!(state.elsewhere == 2 && u128::from(state.unsafe_for) < WATCHDOG.as_millis(), "{state:?}");
        assert!(session.nodes().unwrap().iter().all(|node| node.up));
    }
    let happened: Vec<_> = session.events(Some("s")).unwrap().into_iter().map(|event| event.what).collect();
    assert_eq!(happened, ["created", "claimed"]);
    let logs = cluster.logs();
    for nonsense in ["panicked", "lease was over", "a node is gone"] {
        assert!(!logs.contains(nonsense), "{nonsense}:\n{logs}");
    }
    // A daemon that starts while its clock is decades behind, as after its battery has died, is one like the others.
    cluster.restart(2);
    cluster.until_up(3);
    let acknowledged = goes_on(&mut owner, &clock);
    owner.kill();
    let acknowledged = owner.last_number("acknowledged").unwrap_or(acknowledged);
    let segment = session.open("s", &OpenOptions::new().stand_by(Some(WATCHDOG))).unwrap();
    assert!(check_state(segment.bytes()) >= acknowledged);
}
