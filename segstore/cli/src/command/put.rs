//! `segctl put`: a file becomes the state of a segment; again, only what changed.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use segstore::{Checkpoint, CreateOptions, OpenOptions, Segment, Ticket};
use serde::Serialize;

use super::Context;
use crate::arguments::Put;
use crate::exit::Failure;
use crate::output::{json, progress, units};

/// How long a checkpoint may take, however small; and the fewest bytes in a second.
const SHORTEST_LIMIT: Duration = Duration::from_secs(20);
const SLOWEST: u64 = 20 << 20;
/// The smallest capacity that is chosen by itself.
const SMALLEST: u64 = 1 << 20;

#[derive(Serialize)]
struct Done {
    name: String,
    epoch: u64,
    bytes: usize,
    changed_bytes: u64,
    changed_blocks: u64,
    sent_bytes: u64,
    in_sync: usize,
    elsewhere: usize,
    asked_for: usize,
    seconds: f64,
}

pub(crate) fn run(context: &Context, put: &Put) -> Result<(), Failure> {
    let began = Instant::now();
    let content = read(&put.file)?;
    let session = context.session()?;
    let capacity = put.capacity.unwrap_or_else(|| (content.len() as u64 * 2).max(SMALLEST));
    let block_size = u32::try_from(put.block_size)
        .map_err(|_| Failure::Usage(format!("--block-size {}: at most 2M", put.block_size)))?;
    if content.len() as u64 > capacity {
        let (file, has) = (put.file.display(), units::size(content.len() as u64));
        return Err(Failure::Usage(format!(
            "{file} has {has}, --capacity {}: at least as much",
            units::size(capacity)
        )));
    }
    let make = CreateOptions::new(capacity).block_size(block_size).replicas(put.replicas);
    // A large file takes its time, a replica that hangs does not get all of it.
    let limit = SHORTEST_LIMIT + Duration::from_secs(content.len() as u64 / SLOWEST);
    let how = OpenOptions::new().take_over(put.takeover).timeout(limit);
    let open = || session.open_or_create(&put.name, &make, &how);
    let mut segment = progress::watching("loading", || session.pulled_bytes(), open)?;
    if content.len() > segment.capacity() {
        let (name, has, needs) = (&put.name, units::size(segment.capacity() as u64), units::size(content.len() as u64));
        return Err(Failure::Usage(format!(
            "{} has {needs}, but segment {name} can grow to {has} only: put it under another name with --capacity, or \
             remove this one first",
            put.file.display()
        )));
    }
    let (changed_blocks, changed_bytes) = bring(&mut segment, &content)?;
    let checkpoint = send(segment.commit()?, limit)?;
    let status = session.status(&put.name).ok();
    let asked_for = status.as_ref().map_or(0, |status| status.info.keeping.replicas as usize);
    let sent_bytes = status.and_then(|status| status.owner).map_or(0, |owner| owner.pushed_bytes);
    segment.release()?;
    let done = Done {
        name: put.name.clone(),
        epoch: checkpoint.epoch.0,
        bytes: content.len(),
        changed_bytes,
        changed_blocks,
        sent_bytes,
        in_sync: checkpoint.in_sync,
        elsewhere: checkpoint.elsewhere,
        asked_for,
        seconds: began.elapsed().as_secs_f64(),
    };
    if context.json {
        json(&done);
    } else {
        done.print();
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let saying = |error: std::io::Error| Failure::File(format!("{}: {error}", file.display()));
    if file == Path::new("-") {
        let mut content = Vec::new();
        std::io::stdin().lock().read_to_end(&mut content).map_err(saying)?;
        return Ok(content);
    }
    std::fs::read(file).map_err(saying)
}

/// Waits for a checkpoint, and shows how much of it is sent.
fn send(mut ticket: Ticket<'_>, limit: Duration) -> Result<Checkpoint, Failure> {
    let bar = progress::bytes("sending", ticket.sent().1);
    let look = PollTimeout::from(50_u8);
    let until = Instant::now() + limit;
    // What is still under way then is given up by waiting for it.
    while Instant::now() < until
        && poll(&mut [PollFd::new(ticket.descriptor()?, PollFlags::POLLIN)], look).is_ok_and(|ready| ready == 0)
    {
        let (sent, all) = ticket.sent();
        bar.set_length(all);
        bar.set_position(sent);
    }
    bar.finish_and_clear();
    Ok(ticket.wait()?)
}

/// Brings the segment to `content`, touching only what differs: blocks and bytes of them.
fn bring(segment: &mut Segment, content: &[u8]) -> Result<(u64, u64), Failure> {
    let block = segment.block_size();
    let old = segment.len();
    segment.set_len(content.len())?;
    let bar = progress::bytes("comparing", content.len() as u64);
    let (mut blocks, mut bytes) = (0, 0);
    for (at, new) in content.chunks(block).enumerate().map(|(index, new)| (index * block, new)) {
        let is_new = at + new.len() > old;
        if is_new || segment.bytes()[at..at + new.len()] != *new {
            segment.write(at, new)?;
            blocks += 1;
            bytes += new.len() as u64;
        }
        if at % (1 << 20) == 0 {
            bar.set_position(at as u64);
        }
    }
    bar.finish_and_clear();
    Ok((blocks, bytes))
}

impl Done {
    fn print(&self) {
        let Self {
            name, epoch, bytes, changed_bytes, changed_blocks, sent_bytes, in_sync, elsewhere, asked_for, ..
        } = self;
        crate::output::line(format_args!(
            "{name}: epoch {epoch}, {} of which {} in {changed_blocks} blocks changed; {} sent to {in_sync} replicas, \
             {elsewhere} of them on other nodes",
            units::size(*bytes as u64),
            units::size(*changed_bytes),
            units::size(*sent_bytes),
        ));
        if *elsewhere < *asked_for {
            crate::output::line(format_args!(
                "WARNING: {asked_for} replicas on other nodes were asked for, {elsewhere} hold it"
            ));
        }
        if *elsewhere == 0 {
            crate::output::line(format_args!("WARNING: no replica on another node: this does not survive the node"));
        }
    }
}
