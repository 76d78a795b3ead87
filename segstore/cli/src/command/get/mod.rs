//! `segctl get`: a checkpoint becomes a file.

mod file;

use std::path::Path;
use std::time::Instant;

use segstore::{Epoch, Error, Image, LoadOptions, OpenOptions, Segment, Session};
use serde::Serialize;

use super::Context;
use crate::arguments::Get;
use crate::exit::Failure;
use crate::output::{json, progress, units};

#[derive(Serialize)]
struct Done<'d> {
    name: &'d str,
    epoch: u64,
    bytes: usize,
    acknowledged: bool,
    warnings: &'d [String],
    seconds: f64,
}

pub(crate) fn run(context: &Context, get: &Get) -> Result<(), Failure> {
    let began = Instant::now();
    let session = context.session()?;
    let load = || Loaded::load(context, &session, get);
    let loaded = progress::watching("loading", || session.pulled_bytes(), load)?;
    file::write(&get.file, loaded.bytes())?;
    let done = Done {
        name: &get.name,
        epoch: loaded.epoch().0,
        bytes: loaded.bytes().len(),
        acknowledged: loaded.is_acknowledged(&session, &get.name),
        warnings: loaded.warnings(),
        seconds: began.elapsed().as_secs_f64(),
    };
    // Then standard output is the state's.
    let is_output = get.file == Path::new("-");
    match (context.json, is_output) {
        (true, false) => json(&done),
        (true, true) => eprintln!("{}", serde_json::json!(done)),
        (false, false) => done.print(),
        (false, true) => {}
    }
    if !context.json {
        done.warn();
    }
    loaded.end();
    Ok(())
}

/// What is loaded.
enum Loaded {
    Image(Image),
    /// In what `run` runs: nobody has the segment open, and it is this session's to open.
    Own(Segment),
}

impl Loaded {
    fn load(context: &Context, session: &Session, get: &Get) -> Result<Self, Failure> {
        if context.is_inside_run()
            && get.epoch.is_none()
            && let Some(segment) = open_if_free(session, &get.name)?
        {
            return Ok(Self::Own(segment));
        }
        let mut options = LoadOptions::new().take_over(get.takeover).pending(get.pending);
        if let Some(epoch) = get.epoch {
            options = options.epoch(Epoch(epoch));
        }
        Ok(Self::Image(session.load(&get.name, &options)?))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Image(image) => image.bytes(),
            Self::Own(segment) => segment.bytes(),
        }
    }

    fn epoch(&self) -> Epoch {
        match self {
            Self::Image(image) => image.epoch(),
            Self::Own(segment) => segment.epoch(),
        }
    }

    fn is_acknowledged(&self, session: &Session, name: &str) -> bool {
        match self {
            Self::Image(image) => image.is_acknowledged() || is_newest_acknowledged(session, name, image.epoch()),
            Self::Own(_) => true,
        }
    }

    /// Where it was opened, the next owner is spared work.
    fn end(self) {
        if let Self::Own(segment) = self {
            let _ = segment.release();
        }
    }

    fn warnings(&self) -> &[String] {
        match self {
            Self::Image(image) => image.warnings(),
            Self::Own(_) => &[],
        }
    }
}

/// Opens the segment if its name is held here, and nobody answers as its owner: then nobody is fenced by it.
fn open_if_free(session: &Session, name: &str) -> Result<Option<Segment>, Failure> {
    let status = session.status(name)?;
    if status.info.holder.is_none() || status.owner.is_some() {
        return Ok(None);
    }
    match session.open(name, &OpenOptions::new()) {
        Err(Error::Owned { .. }) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

/// Whether a checkpoint that was asked for by its number is the newest acknowledged one: its owner says so, or, where there is none,
/// every replica in sync holds it, which is what acknowledged means.
fn is_newest_acknowledged(session: &Session, name: &str, epoch: Epoch) -> bool {
    let Ok(status) = session.status(name) else { return false };
    if let Some(owner) = status.owner {
        return owner.acknowledged.epoch == epoch;
    }
    let mut in_sync = status.replicas.iter().filter(|replica| replica.in_sync).peekable();
    in_sync.peek().is_some() && in_sync.all(|replica| replica.image.is_some_and(|image| image.epoch == epoch))
}

impl Done<'_> {
    /// What must not be overlooked, on standard error.
    fn warn(&self) {
        if !self.acknowledged {
            eprintln!(
                "segctl: epoch {} of {} may be pending: it was perhaps never acknowledged",
                self.epoch, self.name
            );
        }
        self.warnings.iter().for_each(|warning| eprintln!("segctl: WARNING: {warning}"));
    }

    fn print(&self) {
        let kind = if self.acknowledged { "acknowledged" } else { "may be pending" };
        crate::output::line(format_args!(
            "{}: epoch {} ({kind}), {}",
            self.name,
            self.epoch,
            units::size(self.bytes as u64)
        ));
    }
}
