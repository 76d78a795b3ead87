//! `segctl rm`.

use super::Context;
use crate::exit::Failure;
use crate::output::{json, line};

pub(crate) fn run(context: &Context, name: &str, force: bool) -> Result<(), Failure> {
    context.session()?.remove(name, force)?;
    if context.json {
        json(&serde_json::json!({ "removed": name }));
    } else {
        line(format_args!("{name} is removed"));
    }
    Ok(())
}
