//! What a run has shown, for people and for programs.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::faults::Faults;
use crate::ledger::{Counts, Ledger};
use crate::plan::Fault;

/// A run in which less happened has proved nothing: each second so many checkpoints, and takeovers.
const CHECKPOINTS: f64 = 10.0;
const TAKEOVERS: f64 = 0.1;
/// After so long every kind of fault has come.
const ALL_FAULTS: Duration = Duration::from_secs(240);

pub(crate) struct Outcome {
    seed: u64,
    revision: String,
    took: Duration,
    counts: Counts,
    /// How many of what was acknowledged a later load was compared with.
    checked: u64,
    faults: Vec<(Fault, u64)>,
    spared: u64,
    switched_off: u64,
    left_out: u64,
    /// How often daemons restored replicas of what nobody owned.
    restored: u64,
    violations: Vec<String>,
    logs: PathBuf,
}

impl Outcome {
    pub(crate) fn new(
        (seed, revision): (u64, String),
        took: Duration,
        ledger: &Ledger,
        faults: &Faults,
        (logs, restored): (PathBuf, u64),
        is_interrupted: bool,
    ) -> Self {
        let mut outcome = Self {
            seed,
            revision,
            took,
            counts: ledger.counts,
            checked: ledger.checked(),
            faults: faults.counts.iter().map(|(fault, count)| (*fault, *count)).collect(),
            spared: faults.spared,
            switched_off: faults.switched_off,
            left_out: faults.left_out,
            restored,
            violations: ledger.violations.clone(),
            logs,
        };
        if is_interrupted {
            outcome.violations.push("it was interrupted".to_owned());
        } else if outcome.violations.is_empty() {
            outcome.violations.extend(outcome.idleness());
        }
        outcome
    }

    pub(crate) fn is_good(&self) -> bool {
        self.violations.is_empty()
    }

    /// Too little happened for it to prove anything.
    fn idleness(&self) -> Option<String> {
        let seconds = self.took.as_secs_f64();
        let has = |count: u64, each: f64| f64::from(u32::try_from(count).unwrap_or(u32::MAX)) >= each * seconds;
        if !has(self.counts.acknowledged, CHECKPOINTS) || !has(self.counts.takeovers, TAKEOVERS) {
            return Some(format!("hardly anything happened: {:?} in {seconds:.0} s", self.counts));
        }
        if self.checked < self.counts.acknowledged {
            return Some(format!(
                "{} of {} acknowledged checkpoints were looked for",
                self.checked, self.counts.acknowledged
            ));
        }
        let missing = self.faults.iter().find(|(_, count)| *count == 0).filter(|_| self.took >= ALL_FAULTS);
        if let Some((fault, _)) = missing {
            return Some(format!("there was no fault of the kind {}", fault.name()));
        }
        let is_long = self.took >= ALL_FAULTS;
        let undone = [
            ("handed over", self.counts.handed_over),
            ("drained and switched off", self.switched_off),
            ("restored while nobody owned it", self.restored),
        ];
        let undone = undone.into_iter().find(|(_, count)| is_long && *count == 0);
        undone.map(|(what, _)| format!("nothing was {what}"))
    }

    /// What went wrong, and how to see it again.
    pub(crate) fn explain(&self) {
        self.violations.iter().for_each(|violation| eprintln!("VIOLATION: {violation}"));
        let Ok(events) = std::fs::read_to_string(self.logs.join("events.log")) else { return };
        let lines: Vec<_> = events.lines().collect();
        eprintln!("the last that happened:");
        lines[lines.len().saturating_sub(60)..].iter().for_each(|line| eprintln!("{line}"));
        eprintln!("everything that was logged is in {}", self.logs.display());
        eprintln!("again: scripts/chaos --seconds {} --seed {}", self.took.as_secs().max(60), self.seed);
    }

    pub(crate) fn to_json(&self) -> String {
        let faults: serde_json::Map<_, _> =
            self.faults.iter().map(|(fault, count)| (fault.name().to_owned(), json!(count))).collect();
        let Counts { acknowledged, takeovers, loads, pending, fenced, refused, handed_over } = self.counts;
        json!({
            "seed": self.seed,
            "revision": self.revision,
            "seconds": self.took.as_secs(),
            "faults": faults,
            "memory_spared": self.spared,
            "switched_off": self.switched_off,
            "left_out": self.left_out,
            "restored": self.restored,
            "acknowledged": acknowledged,
            "checked": self.checked,
            "takeovers": takeovers,
            "loads": loads,
            "pending": pending,
            "fenced": fenced,
            "refused": refused,
            "handed_over": handed_over,
            "violations": self.violations.len(),
        })
        .to_string()
    }
}

/// The last line of a run that has not come to its end: something was in its own way.
pub(crate) fn broken_off(seed: u64) -> String {
    json!({ "seed": seed, "revision": revision(), "broken_off": true }).to_string()
}

/// What was built, as far as the sources' history tells.
pub(crate) fn revision() -> String {
    let said = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=12"])
        .output();
    let said = said.ok().filter(|said| said.status.success()).map(|said| said.stdout).unwrap_or_default();
    String::from_utf8_lossy(&said).trim().to_owned()
}
