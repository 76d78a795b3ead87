//! A counter that survives its process and its node: `counter NAME [TIMES]`.
//!
//! Kill it anywhere, start it on another node: it goes on with the next number. Started on a second node while it runs it stands by, and
//! `segctl move NAME NODE` has it go on there.

use std::time::Instant;

use segstore::{CreateOptions, OpenOptions, Session};

fn main() -> segstore::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "counter".into());
    let times: u64 = arguments.next().and_then(|times| times.parse().ok()).unwrap_or(10);

    let session = Session::connect()?;
    let make = CreateOptions::new(1 << 20).replicas(2);
    let mut segment = session.open_or_create(&name, &make, &OpenOptions::new().stand_by(None))?;
    if segment.is_empty() {
        segment.set_len(8)?;
    }
    println!("owner in term {} after {:?}", segment.term(), segment.takeover_times());
    let moves = segment.moves()?;
    let started = Instant::now();
    for _ in 0..times {
        let count = segment.bytes_mut(0..8)?;
        let next = u64::from_le_bytes(count.try_into().unwrap_or_default()) + 1;
        count.copy_from_slice(&next.to_le_bytes());
        let checkpoint = segment.checkpoint()?;
        if let Some(wish) = moves.wanted() {
            println!("{next}: node {} goes on", wish.to);
            return segment.release();
        }
        if times <= 20 {
            println!(
                "{next}: epoch {} is in {} replicas, {} elsewhere",
                checkpoint.epoch, checkpoint.in_sync, checkpoint.elsewhere
            );
        }
    }
    println!("{times} checkpoints, {:?} each", started.elapsed() / u32::try_from(times.max(1)).unwrap_or(u32::MAX));
    Ok(())
}
