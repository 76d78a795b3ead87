//! Owns a segment whose content proves itself, and says each step: `proven-owner NAME BLOCKS`.
//!
//! It stands by until nobody else owns the segment. Its lines: `stands by`; `holds TERM STATE`, after the state was found whole;
//! `acked STATE IN_SYNC` or `pending STATE` for each checkpoint; `torn WHY` or `ended WHY` at its end.

use std::process::ExitCode;

use hwtests::state;
use segstore::{CreateOptions, Error, OpenOptions, Segment, Session};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let blocks = |text: &String| text.parse().ok().filter(|blocks| *blocks >= 8);
    let (Some(name), Some(blocks)) = (arguments.first(), arguments.get(1).and_then(blocks)) else {
        eprintln!("usage: proven-owner NAME BLOCKS (of 4 KiB, at least 8)");
        return ExitCode::from(2);
    };
    match open(name, blocks).and_then(|mut segment| go_on(&mut segment)) {
        Ok(why) => println!("torn {why}"),
        Err(error) => println!("ended {error}"),
    }
    ExitCode::FAILURE
}

fn open(name: &str, blocks: usize) -> segstore::Result<Segment> {
    let session = Session::connect()?;
    let length = blocks * state::BLOCK;
    println!("stands by");
    let make = CreateOptions::new(length as u64).replicas(2);
    let mut segment = session.open_or_create(name, &make, &OpenOptions::new().stand_by(None))?;
    segment.set_len(length)?;
    Ok(segment)
}

/// Step after step, for ever; `Ok` says how the state that was found is torn.
fn go_on(segment: &mut Segment) -> segstore::Result<String> {
    let mut number = match state::check(segment.bytes()) {
        Ok(number) => number,
        Err(why) => return Ok(why),
    };
    println!("holds {} {number}", segment.term());
    let blocks = segment.len() / state::BLOCK;
    loop {
        number += 1;
        for block in state::touched(number, blocks) {
            state::fill(number, block, segment.bytes_mut(state::place(block))?);
        }
        match segment.checkpoint() {
            Ok(checkpoint) => println!("acked {number} {}", checkpoint.in_sync),
            Err(Error::Pending { .. }) => println!("pending {number}"),
            Err(other) => return Err(other),
        }
    }
}
