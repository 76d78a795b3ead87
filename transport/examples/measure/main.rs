//! The providers against the plainest form of the same movement, two processes, in one run:
//! `cargo run --release --example measure -- [shm|tcp]`.
//!
//! Rows are taken in turn, many times, and medians are printed, because the distance of a machine's cores may change
//! within minutes; the cache-line round trip stands beside them. The second process is the target.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use segstore_transport::pin_thread;

mod shm;
mod tcp;

type Failure = Box<dyn std::error::Error>;

const TURNS: usize = 31;

fn main() -> Result<(), Failure> {
    let role = std::env::args().nth(1).unwrap_or("shm".into());
    let _ = pin_thread(usize::from(role.ends_with("target"))); // Where there is only one processor, the probe shows it.
    match role.as_str() {
        "shm" => shm::measure(),
        "tcp" => tcp::measure(),
        "shm-target" => shm::admit().and_then(|(region, peer)| shm::answer_probes(&region, &peer)),
        "tcp-target" => tcp::target(),
        other => Err(format!("{other:?} cannot be measured: say shm or tcp").into()),
    }
}

/// The second process: a line to it, a line back.
struct Second {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Second {
    fn start(role: &str) -> Result<Second, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg(role).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let to = child.stdin.take().ok_or("no pipe")?;
        let from = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        Ok(Second { child, to, from })
    }

    fn ask(&mut self, line: &str) -> Result<String, Failure> {
        writeln!(self.to, "{line}")?;
        let mut reply = String::new();
        self.from.read_line(&mut reply)?;
        Ok(reply.trim().to_owned())
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a target says to the first process.
fn answer(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Result<Vec<u8>, Failure> {
    let text = text.trim();
    (0..text.len() / 2).map(|at| Ok(u8::from_str_radix(&text[2 * at..2 * at + 2], 16)?)).collect()
}

/// Microseconds for one of `times`.
fn time(times: usize, mut act: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let start = Instant::now();
    for _ in 0..times {
        act()?;
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of thousands")]
    Ok(start.elapsed().as_secs_f64() * 1e6 / times as f64)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
