//! Ways of doing one thing, taken in turn.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::percentiles::{Percentiles, median};
use crate::{Result, Role, Second};

/// How many times each way has its turn.
const ROUNDS: usize = 21;
/// About how long a turn is.
const TURN: Duration = Duration::from_millis(20);
/// How long each way runs before its turn counts.
const WARM_UP: Duration = Duration::from_millis(5);
/// The most times in one turn.
const MOST: usize = 5000;

/// One way of doing what a row measures.
pub struct Way<'a> {
    /// What it is called.
    pub what: &'static str,
    /// What the other core does meanwhile.
    pub other: Option<Role>,
    /// Does it once.
    pub act: Box<dyn FnMut() -> Result<()> + 'a>,
}

/// One thing, measured: this project's way and the better of the plain ones, in the same moments.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Microseconds, this project's way.
    pub ours: Percentiles,
    /// What the plain way is; absent where there is none.
    pub plain_way: Option<&'static str>,
    /// Microseconds, the plain way.
    pub plain: Option<Percentiles>,
    /// The median, over the rounds, of one median to the other.
    pub ratio: Option<f64>,
    /// A cache line between the two cores and back, in microseconds.
    pub cache_line: f64,
}

/// What was timed for a row so far.
#[derive(Default)]
pub struct Taken {
    ours: Times,
    plain: Vec<(&'static str, Times)>,
    cache_lines: Vec<f64>,
}

/// Measures.
pub struct Bench {
    second: Second,
    rounds: usize,
    is_long: bool,
}

impl Bench {
    /// For what takes microseconds.
    ///
    /// # Errors
    /// No second thread.
    pub fn new() -> Result<Self> {
        Ok(Self { second: Second::start()?, rounds: ROUNDS, is_long: false })
    }

    /// For what takes long: so many rounds, in each of which each way is done once.
    ///
    /// # Errors
    /// No second thread.
    pub fn of_long(rounds: usize) -> Result<Self> {
        Ok(Self { second: Second::start()?, rounds: rounds.max(1), is_long: true })
    }

    /// Measures one row.
    ///
    /// # Errors
    /// What a way fails with.
    pub fn row(&self, name: impl Into<String>, ours: Way<'_>, plain: Vec<Way<'_>>) -> Result<Row> {
        let mut taken = Taken::default();
        self.take(&mut taken, 1, ours, plain)?;
        Ok(taken.row(name))
    }

    /// Takes one part of a row's rounds, of `parts`: where memory lies decides much, so a row of bulk copies is taken in several places.
    ///
    /// # Errors
    /// What a way fails with.
    pub fn take(&self, taken: &mut Taken, parts: usize, mut ours: Way<'_>, mut plain: Vec<Way<'_>>) -> Result<()> {
        for _ in 0..self.rounds.div_ceil(parts) {
            self.round(taken, &mut ours, &mut plain, None)?;
        }
        Ok(())
    }

    /// A turn for each way: of so many times, or of the usual length. Gives what this project's way took.
    ///
    /// # Errors
    /// What a way fails with.
    pub fn round(
        &self,
        taken: &mut Taken,
        ours: &mut Way<'_>,
        plain: &mut [Way<'_>],
        times: Option<usize>,
    ) -> Result<Duration> {
        taken.plain.resize_with(plain.len(), Default::default);
        let spent = self.turn(ours, times, &mut taken.ours)?;
        for (way, (what, into)) in plain.iter_mut().zip(&mut taken.plain) {
            *what = way.what;
            self.turn(way, times, into)?;
        }
        taken.cache_lines.push(self.second.cache_line());
        Ok(spent)
    }

    /// One turn of a way: a moment to warm up, then each act is timed.
    fn turn(&self, way: &mut Way<'_>, times: Option<usize>, into: &mut Times) -> Result<Duration> {
        // What takes long is of no use on half of a machine.
        let _freed = self.is_long.then(|| self.second.free());
        let _playing = way.other.as_ref().map(|role| self.second.play(role));
        let (warm_up, turn) = if self.is_long { (Duration::ZERO, Duration::ZERO) } else { (WARM_UP, TURN) };
        let began = Instant::now();
        while began.elapsed() < warm_up {
            (way.act)()?;
        }
        let (clock, mut batch) = (clock(), Vec::new());
        let (began, mut last) = (Instant::now(), Instant::now());
        let is_enough = |batch: &[u64], last: Instant| match times {
            Some(times) => batch.len() >= times,
            None => !batch.is_empty() && (last - began >= turn || batch.len() >= MOST),
        };
        while !is_enough(&batch, last) {
            let began = Instant::now();
            (way.act)()?;
            last = Instant::now();
            let spent = u64::try_from((last - began).as_nanos()).unwrap_or(u64::MAX);
            batch.push(spent.saturating_sub(clock));
        }
        let spent = Duration::from_nanos(batch.iter().sum());
        into.add(batch);
        Ok(spent)
    }
}

impl Taken {
    /// Whether nothing was timed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cache_lines.is_empty()
    }

    /// The row.
    #[must_use]
    pub fn row(mut self, name: impl Into<String>) -> Row {
        self.plain.sort_by(|(_, a), (_, b)| a.middle().total_cmp(&b.middle()));
        let ours = Percentiles::of(&mut self.ours.all);
        let best = self.plain.first_mut();
        let ratio = best.as_ref().map(|(_, plain)| {
            let pairs = self.ours.medians.iter().zip(&plain.medians);
            median(pairs.map(|(ours, plain)| ours / plain).collect())
        });
        Row {
            name: name.into(),
            ours,
            plain_way: best.as_ref().map(|(what, _)| *what),
            plain: best.map(|(_, plain)| Percentiles::of(&mut plain.all)),
            ratio,
            cache_line: median(self.cache_lines),
        }
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, ours: Percentiles { p50, p99, p999, .. }, cache_line, .. } = self;
        write!(f, "{name}: p50 {p50:.3} p99 {p99:.3} p99.9 {p999:.3} us")?;
        if let (Some(way), Some(plain), Some(ratio)) = (self.plain_way, self.plain, self.ratio) {
            let Percentiles { p50, p99, p999, .. } = plain;
            write!(f, "; {way}: p50 {p50:.3} p99 {p99:.3} p99.9 {p999:.3} us; ratio {ratio:.2}")?;
        }
        write!(f, "; cache line {cache_line:.2} us")
    }
}

#[derive(Default)]
struct Times {
    all: Vec<u64>,
    /// Of each round.
    medians: Vec<f64>,
}

impl Times {
    fn add(&mut self, mut batch: Vec<u64>) {
        self.medians.push(Percentiles::of(&mut batch).p50);
        self.all.append(&mut batch);
    }

    fn middle(&self) -> f64 {
        median(self.medians.clone())
    }
}

/// What reading the clock twice costs by itself, in nanoseconds.
fn clock() -> u64 {
    let mut spent: Vec<_> = (0..101).map(|_| black_box(Instant::now()).elapsed().as_nanos()).collect();
    spent.sort_unstable();
    u64::try_from(spent[50]).unwrap_or_default()
}
