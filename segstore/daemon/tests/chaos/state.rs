//! The state that applications keep: the numbers and writers of its last changes tell every byte of it, so that whoever has it sees any
//! mixture, and which writes it contains.
//!
//! Change `n` of a writer alters some blocks, which the two of them determine; every [`WHOLE`]th alters all, and the length. The first
//! block says who made the last [`REMEMBERED`] changes. That is enough to tell when each block was altered last, and what by.

use serde::{Deserialize, Serialize};

use crate::random::mix;

/// Whose changes the first block remembers: no fewer than lie between two that alter everything.
const REMEMBERED: u64 = 64;
const WHOLE: u64 = 32;
const BLOCK: usize = 4096;
const HEAD: usize = 24;
const ENTRY: usize = 24;
/// Where in the first block its record of changes ends.
const RECORD: usize = HEAD + ENTRY * 64;

/// Who makes changes: one ownership.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Writer {
    /// 128 random bits, of which nobody else has the same.
    pub(crate) id: u128,
    pub(crate) term: u64,
}

/// Changes `first` to `last`, of one writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) writer: Writer,
}

/// The last changes that a state contains, rising.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct History(pub(crate) Vec<Run>);

impl History {
    /// The number of the newest change; zero: none was made.
    pub(crate) fn newest(&self) -> u64 {
        self.0.last().map_or(0, |run| run.last)
    }

    /// Who made change `n`, as far as is remembered.
    pub(crate) fn writer_of(&self, n: u64) -> Option<Writer> {
        self.0.iter().find(|run| (run.first..=run.last).contains(&n)).map(|run| run.writer)
    }
}

/// What change `n` of a writer does.
struct Change {
    n: u64,
    seed: u64,
}

impl Change {
    fn new(segment: &str, n: u64, writer: Writer) -> Self {
        let name = segment.bytes().fold(0, |seed, byte| mix(seed ^ u64::from(byte)));
        let [low, high] = [writer.id & u128::from(u64::MAX), writer.id >> 64].map(|part| u64::try_from(part).unwrap());
        let seed = [n, low, high, writer.term].into_iter().fold(name, |seed, part| mix(seed ^ part));
        Self { n, seed }
    }

    fn number(&self, which: u64) -> u64 {
        mix(self.seed ^ mix(which))
    }

    fn is_whole(&self) -> bool {
        self.n % WHOLE == 1
    }

    /// The length of the state from a change on that alters everything.
    fn length(&self, capacity: usize) -> usize {
        let size = usize::try_from(self.number(1)).unwrap() % capacity;
        let size = if self.number(2).is_multiple_of(4) { size / 16 } else { size };
        size.max(2 * BLOCK)
    }

    /// The blocks that it alters, of so many.
    fn blocks(&self, count: usize) -> Vec<usize> {
        let at = |which| usize::try_from(self.number(which)).unwrap() % count;
        let altered = if self.is_whole() {
            (0..count).collect()
        } else if self.number(3).is_multiple_of(4) {
            (at(4)..count).take(count / 4 + 1).collect()
        } else {
            (10..11 + self.number(5) % 6).map(at).collect::<Vec<_>>()
        };
        // The first one tells of this change.
        std::iter::once(0).chain(altered).collect()
    }

    /// What it makes of a block.
    fn fill(&self, block: usize, bytes: &mut [u8]) {
        let seed = self.number(1000 + block as u64);
        for (i, word) in (0_u64..).zip(bytes.chunks_mut(8)) {
            word.copy_from_slice(&mix(seed.wrapping_add(i)).to_le_bytes()[..word.len()]);
        }
    }
}

/// The state before its next change: what that change needs of it.
pub(crate) struct Next<'s> {
    segment: &'s str,
    capacity: usize,
    writer: Writer,
    n: u64,
    record: Vec<u8>,
}

impl<'s> Next<'s> {
    /// A writer who goes on from a state that was checked.
    pub(crate) fn after(segment: &'s str, capacity: usize, writer: Writer, state: &[u8]) -> Self {
        let record = state.get(..RECORD).map_or(vec![0; RECORD], <[u8]>::to_vec);
        let n = number_at(&record, 0) + 1;
        Self { segment, capacity, writer, n, record }
    }

    pub(crate) fn number(&self) -> u64 {
        self.n
    }

    /// The length that the state is to have.
    pub(crate) fn length(&self, now: usize) -> usize {
        let change = self.change();
        if change.is_whole() { change.length(self.capacity) } else { now }
    }

    /// Makes the change; `block` gives the bytes of a block of the state, which has its new length.
    pub(crate) fn make<E>(
        &mut self,
        length: usize,
        mut write: impl FnMut(usize, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let change = self.change();
        enter(&mut self.record, self.n, self.writer);
        let mut bytes = [0; BLOCK];
        for block in change.blocks(length.div_ceil(BLOCK)) {
            let at = block * BLOCK;
            let bytes = &mut bytes[..BLOCK.min(length - at)];
            change.fill(block, bytes);
            if block == 0 {
                bytes[..RECORD].copy_from_slice(&self.record);
            }
            write(at, bytes)?;
        }
        self.n += 1;
        Ok(())
    }

    fn change(&self) -> Change {
        Change::new(self.segment, self.n, self.writer)
    }
}

fn number_at(record: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(record[at..at + 8].try_into().unwrap())
}

fn place_of(n: u64) -> usize {
    HEAD + ENTRY * usize::try_from(n % REMEMBERED).unwrap()
}

fn enter(record: &mut [u8], n: u64, writer: Writer) {
    record[..8].copy_from_slice(&n.to_le_bytes());
    let at = place_of(n);
    record[at..at + 16].copy_from_slice(&writer.id.to_le_bytes());
    record[at + 16..at + 24].copy_from_slice(&writer.term.to_le_bytes());
    let sum = sum_of(record);
    record[8..16].copy_from_slice(&sum.to_le_bytes());
}

/// Of the number and the entries.
fn sum_of(record: &[u8]) -> u64 {
    let words = record[HEAD..RECORD].chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    words.fold(number_at(record, 0), |sum, word| mix(sum ^ word))
}

fn writer_at(record: &[u8], n: u64) -> Writer {
    let at = place_of(n);
    Writer { id: u128::from_le_bytes(record[at..at + 16].try_into().unwrap()), term: number_at(record, at + 16) }
}

/// Checks every byte of a state; gives its history, or what is wrong with it.
pub(crate) fn check(segment: &str, capacity: usize, state: &[u8]) -> Result<History, String> {
    if state.is_empty() {
        return Ok(History::default());
    }
    let record = state.get(..RECORD).ok_or_else(|| format!("it has {} bytes, too few for any", state.len()))?;
    let n = number_at(record, 0);
    if n == 0 || number_at(record, 8) != sum_of(record) {
        return Err(format!("its first block is torn, where it speaks of change {n}"));
    }
    let history = history(record, n);
    if !history.0.is_sorted_by_key(|run| run.writer.term) {
        return Err(format!("its terms go back: {history:?}"));
    }
    let change = |n| Change::new(segment, n, writer_at(record, n));
    let whole = n - (n - 1) % WHOLE;
    let length = change(whole).length(capacity);
    if state.len() != length {
        return Err(format!("change {whole} made it {length} bytes long, and at change {n} it has {}", state.len()));
    }
    let changes: Vec<_> = (whole..=n).map(change).collect();
    let mut altered_by = vec![0; length.div_ceil(BLOCK)];
    for (i, change) in changes.iter().enumerate() {
        change.blocks(altered_by.len()).into_iter().for_each(|block| altered_by[block] = i);
    }
    let mut expected = [0; BLOCK];
    for (block, (found, by)) in state.chunks(BLOCK).zip(altered_by).enumerate() {
        let expected = &mut expected[..found.len()];
        changes[by].fill(block, expected);
        let own = if block == 0 { RECORD } else { 0 };
        if found[own..] != expected[own..] {
            let from = changes.iter().find(|other| {
                other.fill(block, expected);
                found[own..] == expected[own..]
            });
            let from = from.map_or("none of the last changes".to_owned(), |other| format!("change {}", other.n));
            let by = changes[by].n;
            return Err(format!("at change {n}, block {block} should be as change {by} left it; it is of {from}"));
        }
    }
    Ok(history)
}

fn history(record: &[u8], n: u64) -> History {
    let mut runs: Vec<Run> = Vec::new();
    for m in n.saturating_sub(REMEMBERED - 1).max(1)..=n {
        let writer = writer_at(record, m);
        match runs.last_mut().filter(|run| run.writer == writer) {
            Some(run) => run.last = m,
            None => runs.push(Run { first: m, last: m, writer }),
        }
    }
    History(runs)
}
