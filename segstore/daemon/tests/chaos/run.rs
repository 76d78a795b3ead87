//! A run from its beginning to its end.

use std::fs::File;
use std::io::Write;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, WATCHDOG, until};
use crate::faults::Faults;
use crate::interruption::is_interrupted;
use crate::ledger::Ledger;
use crate::outcome::{Outcome, revision};
use crate::processes::{Process, Told, trouble};
use crate::report::{Failing, News, Report};
use crate::segments::{NODES, SEGMENTS, Spec};

const TICK: Duration = Duration::from_millis(10);
/// How often people are told how it goes.
const TELL: Duration = Duration::from_secs(5);
/// A segment whose state nobody changes for so long is stuck, whatever goes wrong, and however slow the machine is.
const STUCK: Duration = Duration::from_secs(240);
/// After so long in which nothing was in trouble every replica answers.
const CALM: Duration = Duration::from_secs(1);

pub(crate) struct Run {
    began: Instant,
    /// What was built, as it was when the run began.
    revision: String,
    told: Receiver<Told>,
    cluster: Cluster,
    ledger: Ledger,
    faults: Faults,
    moved: Vec<(u64, Instant)>,
    events: File,
    is_verbose: bool,
}

impl Run {
    pub(crate) fn start(seed: u64, is_verbose: bool) -> Self {
        let (tell, told) = channel();
        let cluster = Cluster::start(tell);
        let (faults, events) = (Faults::new(seed, &cluster), cluster.place.log("events"));
        let (began, moved) = (Instant::now(), vec![(0, Instant::now()); SEGMENTS.len()]);
        Self {
            began,
            revision: revision(),
            told,
            cluster,
            ledger: Ledger::default(),
            faults,
            moved,
            events,
            is_verbose,
        }
    }

    /// Lets everything go wrong for so long, or until something did that must not; then everything is to be well.
    pub(crate) fn play(mut self, seed: u64, length: Duration) -> Outcome {
        let mut tell = self.began + TELL;
        while self.began.elapsed() < length && self.goes_on() {
            let events = self.faults.go_on(&mut self.cluster, &self.ledger);
            self.note(events);
            self.attend();
            self.find_stuck();
            if Instant::now() >= tell {
                self.tell();
                tell += TELL;
            }
        }
        if self.goes_on() {
            let ended = self.end_well();
            self.ledger.violations.extend(ended.err());
        }
        self.ledger.violations.extend(self.panics());
        let logs = (self.cluster.place.file(""), self.restored());
        let seed = (seed, self.revision);
        let outcome = Outcome::new(seed, self.began.elapsed(), &self.ledger, &self.faults, logs, is_interrupted());
        self.cluster.place.is_kept = !outcome.is_good() && !is_interrupted();
        outcome
    }

    fn goes_on(&self) -> bool {
        self.ledger.violations.is_empty() && !is_interrupted()
    }

    /// Hears processes, and starts again those that have ended.
    fn attend(&mut self) {
        let ended = self.cluster.tend();
        self.ledger.violations.extend(ended);
        let until = Instant::now() + TICK;
        while let Ok(told) = self.told.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.hear(told);
        }
    }

    fn hear(&mut self, (who, report): Told) {
        match report {
            Ok(report) => {
                if let Some(event) = event(&who, &report) {
                    self.note(vec![event]);
                }
                if let News::Failed { what: Failing::Copies, why } = &report.news
                    && self.faults.calm() > CALM
                {
                    self.ledger.violations.push(format!("nothing is in the way, and {who} finds no good copy: {why}"));
                }
                self.ledger.enter(&who, report);
            }
            Err(why) => self.ledger.violations.push(format!("{who} says what is no report: {why}")),
        }
    }

    fn find_stuck(&mut self) {
        for (spec, (changes, since)) in SEGMENTS.iter().zip(&mut self.moved) {
            let now = self.ledger.progress(spec.name).1;
            if now != *changes {
                (*changes, *since) = (now, Instant::now());
            } else if since.elapsed() > STUCK {
                self.ledger.violations.push(format!("segment {}: stuck at change {changes} for {STUCK:?}", spec.name));
            }
        }
    }

    // ---- the end ----

    /// Everything is healed; then each segment is found, whole, opened anew, and kept as it should be, and nothing is left behind.
    fn end_well(&mut self) -> Result<(), String> {
        until("everything is undone", || {
            let (is_done, events) = self.faults.heal(&mut self.cluster);
            self.note(events);
            self.attend();
            if is_done { Ok(()) } else { Err("a node has not come back".to_owned()) }
        })?;
        self.cluster.end_applications();
        self.drain();
        self.cluster.until_all_are_up()?;
        self.open_all_anew();
        let session = self.cluster.session(NODES - 1)?;
        until("nobody holds a name", || {
            let held = session.holds().map_err(|error| error.to_string())?;
            if held.is_empty() { Ok(()) } else { Err(format!("{held:?}")) }
        })?;
        self.cluster.stop()
    }

    /// Hears what is on its way of processes that have ended.
    fn drain(&mut self) {
        while let Ok(told) = self.told.recv_timeout(Duration::from_millis(500)) {
            self.hear(told);
        }
    }

    fn open_all_anew(&mut self) {
        let start = |(i, spec): (usize, &Spec)| self.cluster.start_role("last", spec.name, i);
        let mut last: Vec<Process> = SEGMENTS.iter().enumerate().map(start).collect();
        let until = Instant::now() + 2 * WATCHDOG;
        while !last.is_empty() && self.goes_on() {
            self.attend();
            last.retain_mut(|process| {
                let Some(status) = process.ended() else { return true };
                let wrong = trouble(status).map(|how| format!("{} has ended with {how}", process.name));
                self.ledger.violations.extend(wrong);
                false
            });
            if Instant::now() > until {
                let names: Vec<_> = last.iter().map(|process| &process.name).collect();
                self.ledger.violations.push(format!("{names:?} do not come to their end"));
            }
        }
        self.drain();
    }

    /// Of daemons and applications, from what they wrote.
    fn panics(&self) -> Vec<String> {
        let logs = (0..NODES).map(|node| format!("n{node}")).chain(["applications".to_owned()]);
        let of = |log: String| {
            let text = std::fs::read_to_string(self.cluster.place.file(&format!("{log}.log"))).unwrap_or_default();
            let panics = text.lines().skip_while(|line| !line.contains("panicked at")).take(4);
            let said = panics.collect::<Vec<_>>().join(" ");
            (!said.is_empty()).then(|| format!("{log}: {said}"))
        };
        logs.filter_map(of).collect()
    }

    /// How often daemons restored replicas of what nobody owned.
    fn restored(&self) -> u64 {
        let of = |node| {
            let text = std::fs::read_to_string(self.cluster.place.file(&format!("n{node}.log"))).unwrap_or_default();
            text.lines().filter(|line| line.contains("nobody has it open, and its replicas are restored")).count()
                as u64
        };
        (0..NODES).map(of).sum()
    }

    // ---- what people see ----

    fn note(&mut self, events: Vec<String>) {
        for event in events {
            let line = format!("{:8.3} {event}", self.began.elapsed().as_secs_f64());
            writeln!(self.events, "{line}").unwrap();
            if self.is_verbose {
                eprintln!("{line}");
            }
        }
    }

    fn tell(&self) {
        let counts = self.ledger.counts;
        let faults: u64 = self.faults.counts.values().sum();
        let of = |spec: &Spec| {
            let (takeovers, changes) = self.ledger.progress(spec.name);
            format!("{} {changes}/{takeovers}", spec.name)
        };
        eprintln!(
            "{:4} s: {faults} faults, {} checkpoints, {} takeovers, {} loads; changes/takeovers of {}",
            self.began.elapsed().as_secs(),
            counts.acknowledged,
            counts.takeovers,
            counts.loads,
            SEGMENTS.iter().map(of).collect::<Vec<_>>().join(", ")
        );
    }
}

/// What is worth a line among the faults.
fn event(who: &str, report: &Report) -> Option<String> {
    let what = match &report.news {
        News::Took(seen, writer) => {
            format!("took it in term {} at change {}, epoch {}", writer.term, seen.history.newest(), seen.epoch)
        }
        News::Pending { n } => format!("has change {n} pending"),
        News::Fenced { term } => format!("is fenced in term {term}"),
        News::Released { term, is_asked } => {
            format!("gave it up in term {term}{}", if *is_asked { ", as it was asked to" } else { "" })
        }
        News::Torn(why) => format!("found it torn: {why}"),
        News::Failed { why, .. } => format!("failed: {why}"),
        News::Acknowledged { .. } | News::Read { .. } => return None,
    };
    Some(format!("  {} {who} {what}", report.segment))
}
