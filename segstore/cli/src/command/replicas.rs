//! `segctl replicas`.

use super::Context;
use crate::exit::Failure;
use crate::output::{json, line, units};

pub(crate) fn run(context: &Context, name: &str, number: u32) -> Result<(), Failure> {
    let info = context.session()?.set_replicas(name, number)?;
    let in_sync = info.live_elsewhere().count();
    if context.json {
        json(&serde_json::json!({ "name": name, "replicas_wanted": number, "replicas_in_sync": in_sync }));
        return Ok(());
    }
    let wanted = units::count(u64::from(number), "replica");
    line(format_args!("{name} is to have {wanted} on other nodes; now {in_sync}"));
    if info.holder.is_none() && in_sync < number as usize {
        line(format_args!("Nobody owns it: its next owner makes what is missing."));
    }
    Ok(())
}
