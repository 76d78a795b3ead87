//! `segctl put`: a file becomes the state of a segment; again, only what changed.

mod replicas;
mod source;

use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use segstore::{Checkpoint, CreateOptions, Error, OpenOptions, Segment, SegmentInfo, Session, Ticket};
use serde::Serialize;

use super::Context;
use crate::arguments::Put;
use crate::exit::Failure;
use crate::output::{json, progress, units};
use source::Source;

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
    bytes_before: usize,
    changed_bytes: u64,
    changed_blocks: u64,
    sent_bytes: u64,
    #[serde(skip)]
    in_sync: usize,
    /// On other nodes.
    replicas_in_sync: usize,
    replicas_wanted: usize,
    seconds: f64,
}

pub(crate) fn run(context: &Context, put: &Put) -> Result<(), Failure> {
    let began = Instant::now();
    let source = Source::open(&put.file)?;
    let session = context.session()?;
    let present = match session.lookup(&put.name) {
        Ok(info) => Some(info),
        Err(Error::NotFound(_)) => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(info) = &present {
        check_shape(put, info)?;
        if context.is_inside_run() && !put.takeover {
            refuse_if_open(&session, info)?;
        }
    }
    let limit = present.as_ref().map(|info| info.shape.capacity).or(put.capacity);
    let content = source.read(limit, &put.name, present.is_some())?;
    let make = made(put, content.len() as u64)?;
    // A large file takes its time, a replica that hangs does not get all of it.
    let limit = SHORTEST_LIMIT + Duration::from_secs(content.len() as u64 / SLOWEST);
    let how = OpenOptions::new().stand_by(Some(put.wait)).take_over(put.takeover).timeout(limit);
    let open = || session.open_or_create(&put.name, &make, &how);
    let mut segment = progress::watching("loading", || session.pulled_bytes(), open)?;
    let bytes_before = segment.len();
    let (changed_blocks, changed_bytes) = bring(&mut segment, &content)?;
    let mut checkpoint = send(segment.commit()?, limit)?;
    let replicas_wanted = session.lookup(&put.name).map_or(0, |info| info.keeping.replicas as usize);
    if checkpoint.elsewhere < replicas_wanted {
        checkpoint = replicas::wait(&session, &mut segment, checkpoint, put.wait_replicas)?;
    }
    let owner = session.status(&put.name).ok().and_then(|status| status.owner);
    segment.release()?;
    let done = Done {
        name: put.name.clone(),
        epoch: checkpoint.epoch.0,
        bytes: content.len(),
        bytes_before,
        changed_bytes,
        changed_blocks,
        sent_bytes: owner.map_or(0, |owner| owner.pushed_bytes),
        in_sync: checkpoint.in_sync,
        replicas_in_sync: checkpoint.elsewhere,
        replicas_wanted,
        seconds: began.elapsed().as_secs_f64(),
    };
    if context.json {
        json(&done);
    } else {
        done.print();
    }
    Ok(())
}

/// How the segment is made if it is not there.
fn made(put: &Put, length: u64) -> Result<CreateOptions, Failure> {
    let mut make = CreateOptions::new(put.capacity.unwrap_or_else(|| (length * 2).max(SMALLEST)));
    if let Some(bytes) = put.block_size {
        let block = u32::try_from(bytes).map_err(|_| Failure::Usage(format!("--block-size {bytes}: at most 2M")))?;
        make = make.block_size(block);
    }
    Ok(put.placing.of(make.replicas(put.replicas.unwrap_or(1))))
}

/// What is said when a segment is made cannot be changed later: whoever asks for something else must learn that.
fn check_shape(put: &Put, info: &SegmentInfo) -> Result<(), Failure> {
    let differs = |option: &str, asked: String, is: String| {
        Err(Failure::Usage(format!(
            "--{option} {asked}: segment {} has {is}, which is said when it is made and cannot change; leave the option out, or \
             put the file under another name",
            put.name
        )))
    };
    let block = u64::from(info.shape.block_size);
    if let Some(asked) = put.block_size.filter(|asked| *asked != block) {
        return differs("block-size", asked.to_string(), format!("blocks of {block} bytes"));
    }
    if let Some(asked) = put.replicas.filter(|asked| *asked != info.keeping.replicas) {
        let (name, has) = (&put.name, units::count(info.keeping.replicas.into(), "replica"));
        let text =
            format!("--replicas {asked}: segment {name} has {has}; `segctl replicas {name} {asked}` changes that");
        return Err(Failure::Usage(text));
    }
    if put.placing.is_said() && put.placing.said() != info.placing {
        let text = format!(
            "--require, --prefer, --spread: segment {} was made with others, which cannot change; leave them out, or put the file under \
             another name",
            put.name
        );
        return Err(Failure::Usage(text));
    }
    // It was rounded up to whole blocks.
    let is_other = |asked: &u64| asked.checked_next_multiple_of(block) != Some(info.shape.capacity);
    if let Some(asked) = put.capacity.filter(is_other) {
        return differs("capacity", asked.to_string(), format!("a capacity of {} bytes", info.shape.capacity));
    }
    Ok(())
}

/// In what `run` runs the name is this session's already. But the program may have the segment open itself, and would be fenced.
fn refuse_if_open(session: &Session, info: &SegmentInfo) -> Result<(), Failure> {
    let Some(holder) = &info.holder else { return Ok(()) };
    match session.status(&info.name)?.owner {
        Some(_) => Err(Error::Owned { name: info.name.clone(), holder: Box::new(holder.clone()) }.into()),
        None => Ok(()),
    }
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
        let Self { name, epoch, bytes, bytes_before, in_sync, replicas_in_sync, replicas_wanted, .. } = self;
        let size = |bytes: &usize| units::size(*bytes as u64);
        let shorter = if bytes < bytes_before { format!(", {} before", size(bytes_before)) } else { String::new() };
        crate::output::line(format_args!(
            "{name}: epoch {epoch}, {}{shorter}, of which {} in {} changed; {} sent to {}, {replicas_in_sync} of them on other nodes",
            size(bytes),
            units::size(self.changed_bytes),
            units::count(self.changed_blocks, "block"),
            units::size(self.sent_bytes),
            units::count(*in_sync as u64, "replica"),
        ));
        // It is acknowledged, which is what was asked; but not as safe as it was to be.
        if *replicas_in_sync == 0 {
            eprintln!("segctl: WARNING: no replica on another node: {name} does not survive this node");
        } else if replicas_in_sync < replicas_wanted {
            eprintln!(
                "segctl: WARNING: {replicas_wanted} replicas on other nodes were asked for; {name} stands in {replicas_in_sync}"
            );
        }
    }
}
