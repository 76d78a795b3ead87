//! What was promised to whom, and whether what is seen later agrees with it. Pure: reports in, violations out.
//!
//! Reports of different processes come in any order; whatever two of them say together is checked when the second one comes.

use std::collections::{BTreeMap, VecDeque};

use crate::report::{Failing, Moment, News, Report, Seen};
use crate::state::Writer;

/// How many of the latest facts and loads are kept: of far more time than any report is on its way, or any process stands still.
const FACTS: usize = 20_000;
const LOADS: usize = 500;

/// A state that every later load must contain.
#[derive(Clone, Debug)]
struct Fact {
    n: u64,
    epoch: u64,
    /// `None`: it was loaded by somebody who does not own the segment.
    term: Option<u64>,
    /// Who made the change, where that is known.
    writer: Option<Writer>,
    /// When the caller had it.
    at: Moment,
    what: String,
    /// Acknowledged, and not looked for so far: by no load that had to contain it.
    is_unseen: bool,
}

/// A load, or a takeover of this term.
#[derive(Clone, Debug)]
struct Loaded {
    seen: Seen,
    term: Option<u64>,
    is_acknowledged: bool,
    who: String,
}

/// An ownership, as its process told of it.
#[derive(Clone, Debug)]
struct Tenure {
    writer: Writer,
    who: String,
    /// The newest change that it began with, and when it was told so.
    loaded: u64,
    at: Moment,
    /// The newest that it was told was acknowledged.
    newest: (u64, u64),
}

/// What is known of one segment.
#[derive(Default)]
struct Book {
    tenures: BTreeMap<u64, Tenure>,
    facts: VecDeque<Fact>,
    loads: VecDeque<Loaded>,
    /// How many acknowledged checkpoints a load that had to contain them was compared with.
    checked: u64,
}

/// How much was checked.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) acknowledged: u64,
    pub(crate) takeovers: u64,
    pub(crate) loads: u64,
    pub(crate) pending: u64,
    pub(crate) fenced: u64,
    pub(crate) refused: u64,
    pub(crate) handed_over: u64,
}

/// Of every segment.
#[derive(Default)]
pub(crate) struct Ledger {
    books: BTreeMap<String, Book>,
    pub(crate) counts: Counts,
    pub(crate) violations: Vec<String>,
}

impl Ledger {
    /// Takes up what the process `who` has told.
    pub(crate) fn enter(&mut self, who: &str, report: Report) {
        let Report { segment, news } = report;
        let book = self.books.entry(segment.clone()).or_default();
        let wrong = match news {
            News::Took(seen, writer) => {
                self.counts.takeovers += 1;
                book.took(who, seen, writer)
            }
            News::Acknowledged { n, epoch, term, began, at } => {
                self.counts.acknowledged += 1;
                book.acknowledged(who, n, epoch, term, began, at)
            }
            News::Read { seen, is_acknowledged } => {
                self.counts.loads += 1;
                book.loaded(Loaded { seen, term: None, is_acknowledged, who: who.to_owned() })
            }
            News::Torn(why) => vec![format!("{who} loaded what nobody wrote: {why}")],
            News::Failed { what: Failing::Never, why } => vec![format!("{who} met what never happens: {why}")],
            News::Failed { .. } => {
                self.counts.refused += 1;
                Vec::new()
            }
            News::Pending { .. } => {
                self.counts.pending += 1;
                Vec::new()
            }
            News::Fenced { .. } => {
                self.counts.fenced += 1;
                Vec::new()
            }
            News::Released { is_asked, .. } => {
                self.counts.handed_over += u64::from(is_asked);
                Vec::new()
            }
        };
        self.violations.extend(wrong.into_iter().map(|wrong| format!("segment {segment}: {wrong}")));
    }

    /// How many acknowledged checkpoints were looked for, each in at least one load that had to contain it.
    pub(crate) fn checked(&self) -> u64 {
        self.books.values().map(|book| book.checked).sum()
    }

    /// The process that took a segment last.
    pub(crate) fn owner(&self, segment: &str) -> Option<&str> {
        self.books.get(segment)?.tenures.values().next_back().map(|tenure| tenure.who.as_str())
    }

    /// How often a segment was taken, and how many changes it has.
    pub(crate) fn progress(&self, segment: &str) -> (usize, u64) {
        self.books.get(segment).map_or((0, 0), |book| {
            (book.tenures.len(), book.tenures.values().map(|tenure| tenure.newest.0).max().unwrap_or(0))
        })
    }
}

impl Book {
    fn took(&mut self, who: &str, seen: Seen, writer: Writer) -> Vec<String> {
        let (term, loaded, epoch, at) = (writer.term, seen.history.newest(), seen.epoch, seen.at);
        let mut wrong = Vec::new();
        let tenure = Tenure { writer, who: who.to_owned(), loaded, at, newest: (loaded, epoch) };
        for load in &self.loads {
            wrong.extend(revived(load, &tenure));
        }
        if let Some(other) = self.tenures.insert(term, tenure) {
            wrong.push(format!("{who} and {} both own it in term {term}", other.who));
        }
        wrong.extend(self.loaded(Loaded { seen, term: Some(term), is_acknowledged: true, who: who.to_owned() }));
        wrong
    }

    fn acknowledged(&mut self, who: &str, n: u64, epoch: u64, term: u64, began: Moment, at: Moment) -> Vec<String> {
        let mut wrong = Vec::new();
        let later = self.tenures.range(term + 1..).find(|(_, later)| later.at < began);
        if let Some((successor, later)) = later {
            let whose = &later.who;
            wrong.push(format!(
                "two owners were accepted: change {n} of {who} in term {term} was begun after {whose} had taken it in term {successor}, and \
                 acknowledged"
            ));
        }
        let mut writer = None;
        match self.tenures.get_mut(&term) {
            Some(tenure) => {
                if (n, epoch) <= tenure.newest || epoch <= tenure.newest.1 {
                    let newest = tenure.newest;
                    wrong.push(format!(
                        "{who} in term {term} was acknowledged change {n} as epoch {epoch} after (change, epoch) {newest:?}"
                    ));
                }
                tenure.newest = (n, epoch);
                writer = Some(tenure.writer);
            }
            None => wrong.push(format!("{who} in term {term} was acknowledged change {n} without having taken it")),
        }
        let what = format!("change {n}, acknowledged to {who} in term {term} as epoch {epoch}");
        wrong.extend(self.stands(Fact { n, epoch, term: Some(term), writer, at, what, is_unseen: true }));
        wrong
    }

    /// Something was loaded.
    fn loaded(&mut self, load: Loaded) -> Vec<String> {
        let mut wrong: Vec<_> = self.facts.iter().filter_map(|fact| lost(fact, &load)).collect();
        for fact in self.facts.iter_mut().filter(|fact| fact.is_unseen && must_contain(&load, fact)) {
            (fact.is_unseen, self.checked) = (false, self.checked + 1);
        }
        wrong.extend(self.tenures.values().rev().take(LOADS).filter_map(|tenure| revived(&load, tenure)));
        if load.is_acknowledged {
            let (n, epoch) = (load.seen.history.newest(), load.seen.epoch);
            let what = format!("change {n}, loaded by {} as epoch {epoch}", load.who);
            let writer = load.seen.history.writer_of(n);
            let at = load.seen.at;
            wrong.extend(self.stands(Fact { n, epoch, term: load.term, writer, at, what, is_unseen: false }));
        }
        self.loads.push_back(load);
        if self.loads.len() > LOADS {
            self.loads.pop_front();
        }
        wrong
    }

    /// A state is there from now on.
    fn stands(&mut self, mut fact: Fact) -> Vec<String> {
        let wrong = self.loads.iter().filter_map(|load| lost(&fact, load)).collect();
        if fact.is_unseen && self.loads.iter().any(|load| must_contain(load, &fact)) {
            (fact.is_unseen, self.checked) = (false, self.checked + 1);
        }
        self.facts.push_back(fact);
        if self.facts.len() > FACTS {
            self.facts.pop_front();
        }
        wrong
    }
}

/// What stood there before a load began, or, where that was a takeover, what was acknowledged in a lower term, whenever that was.
fn must_contain(load: &Loaded, fact: &Fact) -> bool {
    let is_lower = fact.term.zip(load.term).is_some_and(|(before, then)| before < then);
    is_lower || fact.at < load.seen.began
}

/// What is wrong if a load lacks what it must contain.
fn lost(fact: &Fact, load: &Loaded) -> Option<String> {
    if !must_contain(load, fact) {
        return None;
    }
    let Fact { n, epoch, what, .. } = fact;
    let (who, history) = (&load.who, &load.seen.history);
    let how = load.term.map_or("read".to_owned(), |term| format!("taken over in term {term}"));
    let is_another = history.writer_of(*n).is_some_and(|writer| fact.writer.is_some_and(|own| own != writer));
    let is_lost = history.newest() < *n || load.seen.epoch < *epoch || is_another;
    is_lost.then(|| {
        let instead = if is_another { " by another writer" } else { "" };
        let (newest, epoch) = (history.newest(), load.seen.epoch);
        format!("{what}, is lost: {who} has {how} change {newest}{instead} as epoch {epoch}")
    })
}

/// What is wrong if a load contains a change of a lower term that a takeover before it did not find.
fn revived(load: &Loaded, tenure: &Tenure) -> Option<String> {
    let term = tenure.writer.term;
    let is_before = tenure.at < load.seen.began || load.term.is_some_and(|later| term < later);
    let found = load.seen.history.0.iter().find(|run| run.writer.term < term && run.last > tenure.loaded);
    let run = found.filter(|_| is_before)?;
    Some(format!(
        "change {} of term {}, which {} did not find when it took it in term {term}, is back: {} has it",
        run.last, run.writer.term, tenure.who, load.who
    ))
}
