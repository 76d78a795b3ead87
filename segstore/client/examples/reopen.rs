//! What it costs to open a database in a segment after its owner was killed: `reopen [MEGABYTES...]`.
//!
//! For each size and for both of redb's ways to commit, a child process fills the database, commits, and is killed; then this process
//! opens the segment and the database in it. Needs a cluster with room for twice the largest size on another node:
//!
//!     segctl dev up --nodes 2 --memory 5GiB --dir /tmp/cluster
//!     export SEGSTORE_SOCKET=/tmp/cluster/n1/segstored.sock
//!     cargo run --release -p segstore --features redb --example reopen

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use redb::{Database, Durability, TableDefinition};
use segstore::redb::Backend;
use segstore::{CreateOptions, OpenOptions, Session};

type Failure = Box<dyn std::error::Error>;

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("values");
const VALUE: usize = 1000;
/// Rows of one transaction.
const ROWS: u64 = 10_000;
/// Commits of one row that are timed.
const COMMITS: u32 = 1000;

fn main() -> Result<(), Failure> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [role, name, megabytes, quick] = arguments.as_slice()
        && role == "fill"
    {
        return fill(name, megabytes.parse()?, quick == "quick");
    }
    let sizes = arguments.iter().map(|size| size.parse()).collect::<Result<Vec<u64>, _>>()?;
    let sizes = if sizes.is_empty() { vec![10, 100, 1000] } else { sizes };
    println!("{:>8} {:>14} {:>10} {:>14} {:>14}", "data", "commits", "one commit", "segment loaded", "database open");
    for megabytes in sizes {
        for quick in [true, false] {
            measure(megabytes, quick)?;
        }
    }
    Ok(())
}

fn measure(megabytes: u64, quick: bool) -> Result<(), Failure> {
    let name = format!("reopen/{}", std::process::id());
    let kind = if quick { "quick repair" } else { "as usual" };
    let child = Command::new(std::env::current_exe()?)
        .args(["fill", &name, &megabytes.to_string(), if quick { "quick" } else { "usual" }])
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?
        .wait_with_output()?;
    let commit = String::from_utf8_lossy(&child.stdout).trim().to_owned();
    let session = Session::connect()?;
    let began = Instant::now();
    let segment = session.open(&name, &OpenOptions::new().stand_by(Some(Duration::from_secs(10))))?;
    let loaded = began.elapsed();
    let backend = Backend::new(segment);
    let began = Instant::now();
    let database = Database::builder().set_cache_size(32 << 20).create_with_backend(backend)?;
    let opened = began.elapsed();
    println!("{megabytes:>5} MB {kind:>14} {commit:>10} {:>11.1} ms {:>11.1} ms", millis(loaded), millis(opened));
    drop(database);
    session.remove(&name, true)?;
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Fills the database, says how long a commit of one row takes, and is killed.
fn fill(name: &str, megabytes: u64, quick: bool) -> Result<(), Failure> {
    let session = Session::connect()?;
    // A database takes up to twice its contents: pages are copied, not changed in place.
    let make = CreateOptions::new((megabytes << 20) * 2 + (16 << 20));
    let segment = session.open_or_create(name, &make, &OpenOptions::new().timeout(Duration::from_secs(60)))?;
    let database = Database::builder().set_cache_size(32 << 20).create_with_backend(Backend::new(segment))?;
    let rows = megabytes * 1_000_000 / VALUE as u64;
    let insert = |range: std::ops::Range<u64>| -> Result<(), Failure> {
        let mut write = database.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        write.set_quick_repair(quick);
        {
            let mut table = write.open_table(TABLE)?;
            for row in range {
                table.insert(row, [row.to_le_bytes()[0]; VALUE].as_slice())?;
            }
        }
        Ok(write.commit()?)
    };
    for first in (0..rows).step_by(usize::try_from(ROWS)?) {
        insert(first..rows.min(first + ROWS))?;
    }
    let began = Instant::now();
    for row in 0..u64::from(COMMITS) {
        insert(row..row + 1)?;
    }
    println!("{:.1} us", (began.elapsed() / COMMITS).as_secs_f64() * 1e6);
    nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL)?;
    Ok(())
}
