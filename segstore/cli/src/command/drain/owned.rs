//! Segments that applications there own: they are asked to hand them over, wherever somebody stands by.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use segstore::{Holder, Left, Session};

/// Applications that are asked at a time.
const AT_A_TIME: usize = 16;
/// How long one is waited for until others are asked.
const TURN: Duration = Duration::from_secs(30);
/// Before one that cannot be asked now is asked once more.
const REST: Duration = Duration::from_secs(5);

/// What became of asking for a segment: it may be asked for again then.
struct Asked {
    again: Instant,
    why_not: String,
}

/// A segment, and why it is not handed over, if it is not.
type Answer = (String, Option<String>);

pub(super) struct Owned {
    answers: (Sender<Answer>, Receiver<Answer>),
    /// Those that are being waited for.
    asking: Vec<String>,
    asked: HashMap<String, Asked>,
}

impl Owned {
    pub(super) fn new() -> Self {
        Self { answers: channel(), asking: Vec::new(), asked: HashMap::new() }
    }

    /// Asks whom it has not asked lately.
    pub(super) fn ask(&mut self, session: &Session, owned: &[Left], until: Instant) {
        while let Ok((name, why_not)) = self.answers.1.try_recv() {
            self.asking.retain(|asking| *asking != name);
            match why_not {
                Some(why_not) => {
                    self.asked.insert(name, Asked { again: Instant::now() + REST, why_not });
                }
                None => drop(self.asked.remove(&name)),
            }
        }
        for left in owned {
            let name = &left.segment;
            let rests = self.asked.get(name).is_some_and(|asked| asked.again > Instant::now());
            if self.asking.len() < AT_A_TIME && !self.asking.contains(name) && !rests {
                let (session, whom, answers) = (session.clone(), name.clone(), self.answers.0.clone());
                let left = until.saturating_duration_since(Instant::now()).min(TURN);
                let asking = std::thread::Builder::new().spawn(move || {
                    let moved = session.move_to(&whom, None, left);
                    // The command may have ended.
                    let _ = answers.send((whom, moved.err().map(|error| error.to_string())));
                });
                if asking.is_ok() {
                    self.asking.push(name.clone());
                }
            }
        }
    }

    /// Who has not handed over what, and why.
    pub(super) fn told(&self, node: &str, owned: &[Left]) -> String {
        let told = owned.iter().filter_map(|Left { segment, holder, .. }| {
            let Holder { program, pid, .. } = holder.as_ref()?;
            let why_not = match self.asked.get(segment) {
                _ if self.asking.contains(segment) => "it was asked to let it go",
                Some(asked) => &asked.why_not,
                None => "it was not asked so far",
            };
            Some(format!("{program} (process {pid}), which owns {segment}: {why_not}"))
        });
        format!("applications on {node}: {}", told.collect::<Vec<_>>().join("; "))
    }
}
