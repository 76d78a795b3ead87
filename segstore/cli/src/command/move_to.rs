//! `segctl move`.

use std::time::{Duration, Instant};

use segstore::Holder;

use super::Context;
use crate::exit::Failure;
use crate::output::{json, line, progress};

pub(crate) fn run(context: &Context, name: &str, to: Option<&str>, wait: Duration) -> Result<(), Failure> {
    let session = context.session()?;
    let (began, bar) = (Instant::now(), progress::spinner("waiting for the application to let it go"));
    let moved = session.move_to(name, to, wait);
    bar.finish_and_clear();
    let Holder { node_name, program, pid, .. } = moved?;
    let took = began.elapsed();
    if let Some(to) = to.filter(|to| *to != node_name) {
        let text =
            format!("{name} was let go, and {to} did not take it: {program} (process {pid}) on {node_name} has it now");
        return Err(Failure::Refused(text));
    }
    if context.json {
        json(&serde_json::json!({
            "name": name, "node": node_name, "program": program, "pid": pid, "seconds": took.as_secs_f64(),
        }));
    } else {
        let took = took.as_secs_f64();
        line(format_args!("{name} is held by {program} (process {pid}) on {node_name}, after {took:.1} s"));
    }
    Ok(())
}
