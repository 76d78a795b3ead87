//! `segctl perf --dev cpu`: what a replica's daemon takes of the processor.

use segstore_bench::Over;
use segstore_bench::processor::{self, Processor};
use serde::Serialize;

use super::cluster::Cluster;
use super::{Report, failure};
use crate::exit::Failure;
use crate::output::{line, progress, table};

const CHECKPOINTS: u32 = 100_000;

#[derive(Serialize)]
pub(super) struct Daemon {
    over: &'static str,
    #[serde(flatten)]
    processor: Processor,
}

pub(super) fn measure(report: &mut Report, over: Over) -> Result<(), Failure> {
    let cluster = Cluster::start(over, "256MiB")?;
    let name = format!("a replica's daemon, {}", over.name());
    let spinner = progress::spinner(&name);
    let measured = processor::measure(&cluster.session()?, CHECKPOINTS, |node| cluster.process(node));
    spinner.finish_and_clear();
    let processor = measured.map_err(|error| failure(&name, error))?;
    if !report.as_json {
        print(&name, &processor);
    }
    report.daemons.push(Daemon { over: over.name(), processor });
    Ok(())
}

fn print(name: &str, processor: &Processor) {
    let Processor { checkpoints, span_sec, busy, idle } = processor;
    let row = |what: String, used: &processor::Used| {
        vec![what, format!("{span_sec:.2}"), format!("{:.2}", used.user_sec), format!("{:.2}", used.system_sec)]
    };
    let rows = vec![row(format!("{checkpoints} checkpoints"), busy), row("idle".to_owned(), idle)];
    table::print(&[name, "seconds", "user", "system"], rows, "");
    line("");
}
