//! `segctl perf repair`: what a replica that is being filled costs its owner, and how fast it is filled.

use segstore::Session;
use segstore_bench::Over;
use segstore_bench::repairs::{self, Repair};

use super::{Report, over_what};
use crate::exit::Failure;
use crate::output::{line, progress, table, units};

const BYTES: usize = 1 << 30;

pub(super) fn measure(report: &mut Report, session: &Session, over: Option<Over>) -> Result<(), Failure> {
    let name = format!("a replica of 1 GiB is filled{}", over_what(over));
    let spinner = progress::spinner(&name);
    let measured = repairs::measure(session, BYTES);
    spinner.finish_and_clear();
    let measured = report.one(&name, measured, print)?;
    report.repairs.extend(measured);
    Ok(())
}

fn print(repair: &Repair) {
    let Repair {
        over,
        bytes,
        filled_sec,
        caught_up_sec,
        bare_read_sec,
        checkpoint_before,
        checkpoint_meanwhile,
        longest_meanwhile,
    } = repair;
    let time = |micros: f64| format!("{micros:.1}");
    let heading =
        ["", "filled in", "caught up in", "bare read", "p50 before", "p99", "p50 meanwhile", "p99", "longest"];
    let row = vec![
        format!("{} over {over}", units::size(*bytes as u64)),
        format!("{filled_sec:.2} s"),
        format!("{caught_up_sec:.2} s"),
        format!("{bare_read_sec:.2} s"),
        time(checkpoint_before.p50),
        time(checkpoint_before.p99),
        time(checkpoint_meanwhile.p50),
        time(checkpoint_meanwhile.p99),
        time(*longest_meanwhile),
    ];
    table::print(&heading, vec![row], "");
    line(
        "The owner's checkpoints of one block in microseconds, before the repair and while it goes on; the longest carries what was changed\n\
          since the last of the copying. A replica catches up that was let go, and whose memory is there.\n",
    );
}
