//! `segctl`: what operators type.
#![forbid(unsafe_code)]

mod arguments;
mod command;
mod dev;
mod exit;
mod output;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    let Arguments { socket, json, command } = Arguments::parse();
    let context = command::Context { socket, json };
    let done = match command {
        Command::Ls => command::ls::run(&context),
        Command::Nodes { forget } => command::nodes::run(&context, forget.as_deref()),
        Command::Status { name } => command::status::run(&context, name.as_deref()),
        Command::Events { name } => command::events::run(&context, name.as_deref()),
        Command::Put(put) => command::put::run(&context, &put),
        Command::Get(get) => command::get::run(&context, &get),
        Command::Run(run) => return exit::of(command::run::run(&context, &run)),
        Command::Rm { name, force } => command::rm::run(&context, &name, force),
        Command::Perf(perf) => command::perf::run(&context, &perf),
        Command::Doctor => command::doctor::run(&context),
        Command::Dev(dev) => command::dev::run(&context, &dev),
        Command::Completions { shell } => command::shell::completions(shell),
        Command::Man { directory } => command::shell::man(&directory),
        Command::ExecChild { parent, command } => command::run::become_child(parent, &command),
    };
    exit::of(done.map(|()| ExitCode::SUCCESS))
}
