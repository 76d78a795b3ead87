//! Completions and manual pages.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::exit::Failure;

#[expect(clippy::unnecessary_wraps, reason = "every command may fail")]
pub(crate) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "segctl", &mut script);
    crate::output::line(String::from_utf8_lossy(&script).trim_end());
    Ok(())
}

pub(crate) fn man(directory: &Path) -> Result<(), Failure> {
    let saying = |error: std::io::Error| Failure::Usage(format!("{}: {error}", directory.display()));
    std::fs::create_dir_all(directory).map_err(saying)?;
    clap_mangen::generate_to(Arguments::command(), directory).map_err(saying)
}
