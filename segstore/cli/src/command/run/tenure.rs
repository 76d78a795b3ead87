//! Whether the name is still this session's.
//!
//! It is not when another session has taken it by force. And it may not be when the node's lease is over: the directory gives what is held
//! on the node to whoever waits for it. So nothing runs past the end of the lease as it was last confirmed, whoever is silent since: the
//! node's daemon to this process, or the directory to the daemon; unless that is what the program is to do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use segstore::{Error, Holder, Lease, Session};

use super::tell;
use crate::arguments::{Run, WhenCutOff};
use crate::command::Context;
use crate::exit::Failure;

/// How often to ask how the lease stands; at least so many times within it.
const PROBE: Duration = Duration::from_millis(250);
const PROBES: u32 = 12;
/// A daemon that takes longer for an answer is silent.
const NOTICED: Duration = Duration::from_secs(1);
/// How long it may take at the beginning.
const BEGINNING: Duration = Duration::from_secs(10);
/// After this process was stopped, an answer from before says nothing: it is asked anew, and this long waited for.
const AWAKE: Duration = Duration::from_millis(500);
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) struct Tenure {
    as_json: bool,
    name: String,
    /// What is to be said when the node's daemon says nothing.
    silence: String,
    /// The node's lease.
    lease: Duration,
    /// Whether a lease that is over ends it.
    is_strict: bool,
    heard: Arc<Mutex<Heard>>,
    /// When this was looked at last.
    looked: Instant,
    /// When this process was found to have been stopped.
    woke: Option<Instant>,
    is_told: bool,
    is_lost: bool,
}

/// What the threads that ask have learnt.
struct Heard {
    /// When the last question that was answered, or given up, had been asked.
    asked: Instant,
    /// Until then nobody else is given the name.
    until: Instant,
    /// What became of the last question, if that was not all right.
    trouble: Option<String>,
    /// Who took the name, for people.
    other: Option<String>,
    /// Whether the lease was over since the name was held: then the hold has ended with it.
    has_lapsed: bool,
    /// Whether the program has ended, and the name is let go.
    is_ending: bool,
}

impl Tenure {
    /// Begins to ask about the hold of that number. The threads end with the process.
    pub(super) fn watch(context: &Context, session: &Session, run: &Run, hold: u64) -> Result<Self, Failure> {
        let (asked, Lease { until, time: lease, trouble }) = ask(session)?;
        let heard =
            Arc::new(Mutex::new(Heard { asked, until, trouble, other: None, has_lapsed: false, is_ending: false }));
        let silence = format!("the node's daemon at {} does not answer", context.socket.display());
        let (asking, silent, of_lease) = (session.clone(), silence.clone(), heard.clone());
        std::thread::spawn(move || probe(&asking, &silent, PROBE.min(lease / PROBES), &of_lease));
        let (waiting, whom, of_name) = (session.clone(), run.name.clone(), heard.clone());
        let is_strict = run.when_cut_off == WhenCutOff::End;
        std::thread::spawn(move || await_loss(&waiting, &whom, hold, is_strict, &of_name));
        let (as_json, name, looked) = (context.json, run.name.clone(), Instant::now());
        Ok(Self { as_json, name, silence, lease, is_strict, heard, looked, woke: None, is_told: false, is_lost: false })
    }

    /// Whether the daemon answers, and its lease is kept alive.
    pub(super) fn is_heard(&self) -> bool {
        lock(&self.heard).trouble.is_none()
    }

    /// The name is let go from here on.
    pub(super) fn end_watch(&self) {
        lock(&self.heard).is_ending = true;
    }

    /// Whether the name was lost when that was looked at last.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// When the program must have ended: a little before the lease, since killing takes time as well.
    pub(super) fn end(&self) -> Instant {
        let heard = lock(&self.heard);
        match self.woke.filter(|woke| self.waits(*woke, &heard)) {
            _ if heard.other.is_some() => Instant::now(),
            _ if !self.is_strict => Instant::now() + NEVER,
            Some(woke) => woke + AWAKE,
            None => heard.until.checked_sub(self.lease / 10).unwrap_or(heard.until),
        }
    }

    /// Whether an answer is waited for, to a question of after the process was stopped.
    fn waits(&self, woke: Instant, heard: &Heard) -> bool {
        heard.asked < woke && woke.elapsed() < AWAKE
    }

    /// Whether the name is lost, or must be supposed to be. Tells what has changed.
    pub(super) fn look(&mut self) -> bool {
        if self.is_lost {
            return true;
        }
        if std::mem::replace(&mut self.looked, Instant::now()).elapsed() >= NOTICED {
            self.woke = Some(self.looked);
        }
        let heard = self.heard.clone();
        let heard = lock(&heard);
        if let Some(other) = &heard.other {
            self.tell("lost", &format!("{} {other}: ending the program", self.name));
            self.is_lost = true;
        } else if !self.woke.is_some_and(|woke| self.waits(woke, &heard)) {
            let why = match &heard.trouble {
                Some(trouble) => trouble,
                None if heard.asked.elapsed() >= self.lease / 4 => &self.silence.clone(),
                None => "the directory has not answered the node's daemon so far",
            };
            let left = heard.until.saturating_duration_since(self.looked);
            self.judge(left, heard.trouble.is_some(), why);
        }
        self.is_lost
    }

    /// What to do with so much of the lease left, and why it is not more.
    fn judge(&mut self, left: Duration, is_trouble: bool, why: &str) {
        let (third, name) = (self.lease / 3, &self.name);
        if self.is_strict && left <= third {
            let ago = self.lease.saturating_sub(left).as_secs_f64();
            let text = format!(
                "{why}; the node's lease was confirmed {ago:.1} s ago, and when it is over another node may run {name}: ending the program"
            );
            self.tell("lost", &text);
            self.is_lost = true;
        } else if !is_trouble && left > self.lease / 2 {
            if std::mem::take(&mut self.is_told) {
                self.tell("heard", "the node's lease is kept alive again");
            }
        } else if !self.is_told && (self.is_strict || left.is_zero()) {
            let text = match self.is_strict {
                true => {
                    let left = (left - third).as_secs_f64();
                    format!("{why}: in {left:.1} s the program is ended, unless the node's lease is confirmed before")
                }
                false => {
                    format!("{why}: another node may run {name} as well; the program goes on, as --when-cut-off says")
                }
            };
            self.tell("silent", &text);
            self.is_told = true;
        }
    }

    fn tell(&self, what: &str, text: &str) {
        tell(self.as_json, what, text);
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the lease stands before the program begins, and when that was asked: nothing is lost while a busy daemon is waited for.
fn ask(session: &Session) -> segstore::Result<(Instant, Lease)> {
    let began = Instant::now();
    loop {
        let asked = Instant::now();
        match session.lease(NOTICED) {
            Err(Error::Unreachable(_)) if began.elapsed() < BEGINNING => {}
            answer => return Ok((asked, answer?)),
        }
    }
}

/// Asks the daemon again and again how the lease stands: it answers that by itself, whatever the directory does.
fn probe(session: &Session, silence: &str, pause: Duration, heard: &Mutex<Heard>) {
    loop {
        std::thread::sleep(pause);
        let asked = Instant::now();
        let answer = session.lease(NOTICED);
        let mut heard = lock(heard);
        heard.asked = asked;
        heard.has_lapsed |= heard.until < Instant::now();
        match answer {
            Ok(Lease { until, trouble, .. }) => {
                // What was good until then stays so, whatever a daemon that was started again knows.
                heard.until = heard.until.max(until);
                heard.trouble = trouble.map(|why| format!("the node's lease is not kept alive ({why})"));
            }
            Err(error) => heard.trouble = Some(format!("{silence} ({error})")),
        }
    }
}

/// Waits until somebody else has the name. A hold that has ended with the node's lease, as can be where that ends nothing, is held anew if
/// nobody else wants it.
fn await_loss(session: &Session, name: &str, mut hold: u64, is_strict: bool, heard: &Mutex<Heard>) {
    loop {
        match session.await_loss(name, hold) {
            Ok(_) if lock(heard).is_ending => return,
            Ok(_) if !is_strict && has_lapsed(heard) => match session.acquire(name, Some(Duration::ZERO), false) {
                Ok(again) => {
                    lock(heard).has_lapsed = false;
                    hold = again;
                }
                Err(Error::Owned { holder, .. }) => {
                    lock(heard).other = Some(taken_by(&holder));
                    return;
                }
                Err(_) => std::thread::sleep(PROBE),
            },
            Ok(holder) => {
                lock(heard).other = Some(match holder {
                    Some(holder) => taken_by(&holder),
                    None => "was taken by force, and is free again".to_owned(),
                });
                return;
            }
            Err(Error::Unreachable(_)) => std::thread::sleep(PROBE),
            // A daemon from before this question: what it cannot tell is learnt when the program uses the segment.
            Err(_) => return,
        }
    }
}

fn has_lapsed(heard: &Mutex<Heard>) -> bool {
    let heard = lock(heard);
    heard.has_lapsed || heard.until < Instant::now()
}

fn taken_by(holder: &Holder) -> String {
    format!("is held by process {} on node {} now", holder.pid, holder.node_name)
}
