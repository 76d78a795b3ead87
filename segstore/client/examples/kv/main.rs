//! A server that speaks the Redis protocol, on an embedded database in replicated memory.
//!
//!     kv --segment kv --listen 127.0.0.1:6379
//!
//! A write is answered when it is in the memory of other nodes; a read sees only what is. Under `segctl run kv -- kv ...` on several
//! nodes it runs on one, and goes on on the next when that one dies.

mod command;
mod server;
mod store;

use std::net::TcpListener;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use segstore::redb::Backend;
use segstore::{CreateOptions, Error, OpenOptions, Session};

use store::Store;

/// A key-value server whose state survives its node
#[derive(Parser)]
struct Arguments {
    /// The segment that holds the database; made if it is not there
    #[arg(long, default_value = "kv")]
    segment: String,
    /// Where to serve the Redis protocol
    #[arg(long, default_value = "127.0.0.1:6379")]
    listen: String,
    /// How large the database may get when it is made, in MiB
    #[arg(long, default_value_t = 256)]
    capacity: u64,
    /// Nodes that keep a replica, when it is made
    #[arg(long, default_value_t = 2)]
    replicas: u32,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kv: {error}");
            let is_fenced = error.downcast_ref().is_some_and(|error| matches!(error, Error::Fenced { .. }));
            ExitCode::from(if is_fenced { 12 } else { 1 })
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let session = Session::connect()?;
    let make = CreateOptions::new(arguments.capacity << 20).replicas(arguments.replicas);
    let segment = session.open_or_create(&arguments.segment, &make, &OpenOptions::new())?;
    let times = segment.takeover_times();
    let opening = Instant::now();
    let store = Store::open(Backend::new(segment))?;
    let opened = opening.elapsed();
    let listener = TcpListener::bind(&arguments.listen)?;
    println!(
        "serving on {}: {}; claimed in {:.1} ms, fenced in {:.1}, loaded in {:.1}, opened in {:.1}",
        listener.local_addr()?,
        store.about(),
        millis(times.claimed),
        millis(times.fenced),
        millis(times.loaded + times.sealed),
        millis(opened),
    );
    server::serve(&listener, &store)
}

fn millis(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
