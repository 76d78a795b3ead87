//! Real daemons, applications and a real etcd, on hosts that are network namespaces; everything that can go wrong does, as a seed says.
//! Meanwhile every load must find what was acknowledged, whole, and of two owners one must be refused.
//!
//! `scripts/chaos` runs it. It takes root.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

mod cluster;
#[path = "../common/etcd_server.rs"]
#[expect(dead_code, reason = "there its members are on one host, and need other options")]
mod etcd_server;
mod faults;
mod interruption;
mod ledger;
mod network;
mod outcome;
mod place;
mod plan;
#[path = "../common/ports.rs"]
mod ports;
mod processes;
#[path = "../common/program.rs"]
mod program;
mod random;
mod report;
mod roles;
mod run;
mod segments;
mod state;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

/// Chaos over real daemons, in network namespaces
#[derive(Parser)]
struct Arguments {
    /// How long things go wrong
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// What goes wrong, and when
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Print every event
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(roles::ROLE) {
        roles::run(&role, &std::env::args().nth(1).unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    let Arguments { seconds, seed, verbose } = Arguments::parse();
    interruption::expect();
    let run = || run::Run::start(seed, verbose).play(seed, Duration::from_secs(seconds));
    let Ok(outcome) = std::panic::catch_unwind(run) else {
        // It has said why.
        println!("{}", outcome::broken_off(seed));
        return ExitCode::FAILURE;
    };
    if !outcome.is_good() {
        outcome.explain();
    }
    println!("{}", outcome.to_json());
    if outcome.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
