//! `segctl dev`.

use super::Context;
use crate::arguments::Dev;
use crate::dev::{self, Started};
use crate::exit::Failure;
use crate::output::{json, line, table};

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
                line(format_args!("{stopped} daemons stopped"));
            }
        }
    }
    Ok(())
}

fn tell(context: &Context, started: &[Started]) {
    if context.json {
        return json(&started);
    }
    let row = |node: &Started| vec![node.name.clone(), node.pid.to_string(), node.socket.display().to_string()];
    table::print(&["node", "process", "socket"], started.iter().map(row).collect(), "");
    if let Some(first) = started.first() {
        let socket = first.socket.display();
        line(format_args!("\nGo on with:\n  export SEGSTORE_SOCKET={socket}\n  segctl nodes"));
    }
}
