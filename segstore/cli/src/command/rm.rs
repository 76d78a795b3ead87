//! `segctl rm`.

use super::Context;
use crate::exit::Failure;

pub(crate) fn run(context: &Context, name: &str, force: bool) -> Result<(), Failure> {
    context.session()?.remove(name, force)?;
    if !context.json {
        crate::output::line(format_args!("{name} is removed"));
    }
    Ok(())
}
