//! `segctl dev`.

use super::Context;
use crate::arguments::Dev;
use crate::dev::{self, Started};
use crate::exit::Failure;
use crate::output::{json, line, table, units};

pub(crate) fn run(context: &Context, what: &Dev) -> Result<(), Failure> {
    match what {
        Dev::Up(up) => {
            let started = dev::up(up)?;
            tell(context, &started);
        }
        Dev::Down { dir } => {
            let stopped = dev::down(dir)?;
            if context.json {
                json(&serde_json::json!({ "stopped": stopped }));
            } else {
                line(format_args!("{} stopped", units::count(stopped as u64, "daemon")));
            }
        }
    }
    Ok(())
}

fn tell(context: &Context, started: &[Started]) {
    if context.json {
        return json(&started);
    }
    let row = |node: &Started| {
        let metrics = node.metrics.clone().unwrap_or_else(|| "-".to_owned());
        vec![node.name.clone(), node.pid.to_string(), node.socket.display().to_string(), metrics]
    };
    table::print(&["node", "process", "socket", "metrics"], started.iter().map(row).collect(), "");
    if let Some(first) = started.first() {
        let socket = quoted(&first.socket.to_string_lossy());
        line(format_args!("\nGo on with:\n  export SEGSTORE_SOCKET={socket}\n  segctl nodes"));
    }
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@%".contains(c);
    if text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
