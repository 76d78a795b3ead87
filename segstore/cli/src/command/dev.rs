//! `segctl dev`.

use super::Context;
use crate::arguments::Dev;
use crate::dev;
use crate::exit::Failure;

pub(crate) fn run(context: &Context, what: &Dev) -> Result<(), Failure> {
    match what {
        Dev::Up(up) => dev::up(up, context.json),
        Dev::Down { dir } => dev::down(dir),
    }
}
