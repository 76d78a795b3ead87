//! `segctl get`: a checkpoint becomes a file.

use std::fs::{File, Permissions};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use segstore::{Epoch, LoadOptions};
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
    let mut options = LoadOptions::new().take_over(get.takeover).pending(get.pending);
    if let Some(epoch) = get.epoch {
        options = options.epoch(Epoch(epoch));
    }
    let load = || session.load(&get.name, &options);
    let image = progress::watching("loading", || session.pulled_bytes(), load)?;
    write(&get.file, image.bytes())?;
    let done = Done {
        name: &get.name,
        epoch: image.epoch().0,
        bytes: image.bytes().len(),
        acknowledged: image.is_acknowledged(),
        warnings: image.warnings(),
        seconds: began.elapsed().as_secs_f64(),
    };
    if get.file == Path::new("-") {
        // Standard output is the state's.
        done.warn();
        return Ok(());
    }
    if context.json {
        json(&done);
    } else {
        done.print();
    }
    Ok(())
}

/// A file is whole or as it was. What is no file (a device, a pipe) is written to, and stays what it is.
fn write(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let saying = |error: std::io::Error| Failure::File(format!("{}: {error}", file.display()));
    if file == Path::new("-") {
        return std::io::stdout().lock().write_all(bytes).map_err(saying);
    }
    match std::fs::metadata(file) {
        Ok(about) if !about.is_file() => {
            let opened = File::options().write(true).open(file);
            opened.and_then(|mut opened| opened.write_all(bytes)).map_err(saying)
        }
        // Through a link: what it names is replaced, and keeps its mode.
        Ok(about) => {
            file.canonicalize().and_then(|file| replace(&file, bytes, Some(about.permissions()))).map_err(saying)
        }
        Err(_) => replace(file, bytes, None).map_err(saying),
    }
}

fn replace(file: &Path, bytes: &[u8], mode: Option<Permissions>) -> std::io::Result<()> {
    // Not somebody else's: neither the user's own file, nor that of another such command.
    let beside = file.with_added_extension(format!("{}.part", std::process::id()));
    let written = File::create_new(&beside).and_then(|mut part| {
        mode.map_or(Ok(()), |mode| part.set_permissions(mode))?;
        part.write_all(bytes)?;
        part.sync_all()?;
        std::fs::rename(&beside, file)
    });
    written.inspect_err(|_| drop(std::fs::remove_file(&beside)))
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
        self.warnings.iter().for_each(|warning| eprintln!("segctl: {warning}"));
    }

    fn print(&self) {
        let kind = if self.acknowledged { "acknowledged" } else { "may be pending" };
        crate::output::line(format_args!(
            "{}: epoch {} ({kind}), {}",
            self.name,
            self.epoch,
            units::size(self.bytes as u64)
        ));
        self.warnings.iter().for_each(|warning| crate::output::line(format_args!("WARNING: {warning}")));
    }
}
