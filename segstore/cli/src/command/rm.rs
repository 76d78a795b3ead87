//! `segctl rm`.

use super::Context;
use crate::exit::Failure;

pub(crate) fn run(context: &Context, name: &str, force: bool) -> Result<(), Failure> {
    context.session()?.remove(name, force)?;
    if !context.json {
        println!("{name} is removed");
    }
    Ok(())
}
