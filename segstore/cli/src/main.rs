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
    if let Some(code) = command::run::stage().or_else(command::perf::stage) {
        return code;
    }
    let Arguments { socket, json, command } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return not_understood(&error),
    };
    let context = command::Context::new(socket, json);
    let done = match command {
        Command::Ls => command::ls::run(&context),
        Command::Nodes { forget } => command::nodes::run(&context, forget.as_deref()),
        Command::Status { name } => command::status::run(&context, name.as_deref()),
        Command::Events { name } => command::events::run(&context, name.as_deref()),
        Command::Put(put) => command::put::run(&context, &put),
        Command::Get(get) => command::get::run(&context, &get),
        Command::Run(run) => return exit::of(json, command::run::run(&context, &run)),
        Command::Plan(plan) => command::plan::run(&context, &plan),
        Command::Replicas { name, number, wait } => command::replicas::run(&context, &name, number, wait),
        Command::Move { name, node, wait } => command::move_to::run(&context, &name, node.as_deref(), wait),
        Command::Drain { node, undo, wait } => command::drain::run(&context, &node, undo, wait),
        Command::Rm { name, force } => command::rm::run(&context, &name, force),
        Command::Directory(what) => return exit::of(json, command::directory::run(&what)),
        Command::Perf(perf) => command::perf::run(&context, &perf),
        Command::Doctor => command::doctor::run(&context),
        Command::Dev(dev) => command::dev::run(&context, &dev),
        Command::Completions { shell } => command::shell::completions(shell),
        Command::Man { directory } => command::shell::man(&directory),
    };
    exit::of(json, done.map(|()| ExitCode::SUCCESS))
}

/// Help and the version are no mistakes, and come here too.
fn not_understood(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().take_while(|argument| argument != "--").any(|argument| argument == "--json");
    if wants_json && error.use_stderr() {
        return exit::of(true, Err(exit::Failure::Usage(error.to_string())));
    }
    error.exit()
}
