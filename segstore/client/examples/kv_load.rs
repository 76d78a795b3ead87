//! Writes words through the Redis protocol, remembers which writes were acknowledged, and looks whether they are there.
//!
//!     kv_load --words /usr/share/dict/words --server 127.0.0.1:6379 --server 127.0.0.1:6380 --at 30000 --then 'kill -9 ...'
//!
//! After `--at` acknowledged writes it runs a command, in the middle of the others; when the server is gone it goes on with whichever
//! answers. The last line is JSON.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::types::OwnedFrame as Frame;

/// Writes that are sent before their answers are awaited.
const PIPELINE: usize = 50;
/// How long to look for a server that answers.
const PATIENCE: Duration = Duration::from_secs(60);

type Failure = Box<dyn std::error::Error>;

/// Write words, count what is acknowledged, and look whether it is there
#[derive(Parser)]
struct Arguments {
    /// One word to a line
    #[arg(long)]
    words: std::path::PathBuf,
    /// How many of them
    #[arg(long, default_value_t = 100_000)]
    count: usize,
    /// Where a server may be; may be given again
    #[arg(long, required = true)]
    server: Vec<String>,
    /// After so many acknowledged writes ...
    #[arg(long, default_value_t = usize::MAX)]
    at: usize,
    /// ... this command is run
    #[arg(long, default_value = "true")]
    then: String,
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
}

/// The moments that count, in milliseconds since 1970.
#[derive(Default)]
struct Moments {
    killed: Option<u128>,
    lost: Option<u128>,
    answered: Option<u128>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kv_load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let text = std::fs::read_to_string(&arguments.words)?;
    let words: Vec<_> = text.lines().take(arguments.count).collect();
    let value = |index: usize| format!("{index}:{}", words[index].chars().rev().collect::<String>());
    let mut moments = Moments::default();
    let mut acknowledged: HashMap<usize, ()> = HashMap::new();
    let mut connection = Connection::to_any(&arguments.server)?;
    let mut next = 0;
    while next < words.len() {
        let batch: Vec<_> = (next..words.len().min(next + PIPELINE)).collect();
        let writes = batch.iter().map(|&index| vec!["SET".to_owned(), words[index].to_owned(), value(index)]);
        let sent = connection.send(writes);
        if moments.killed.is_none() && acknowledged.len() >= arguments.at {
            // In the middle: these writes are on their way.
            moments.killed = Some(now());
            Command::new("sh").args(["-c", &arguments.then]).status()?;
        }
        let answered = sent.and_then(|()| {
            connection.answers(batch.len(), |at, answer| {
                if matches!(&answer, Frame::SimpleString(ok) if ok == b"OK") {
                    acknowledged.insert(batch[at], ());
                }
            })
        });
        match answered {
            Ok(()) => {
                if moments.lost.is_some() {
                    moments.answered.get_or_insert_with(now);
                }
                next = batch.last().map_or(next, |last| last + 1);
            }
            Err(error) => {
                eprintln!("kv_load: {} writes are acknowledged when the server goes: {error}", acknowledged.len());
                moments.lost.get_or_insert_with(now);
                connection = Connection::to_any(&arguments.server)?;
            }
        }
    }
    let indices: Vec<_> = acknowledged.keys().copied().collect();
    let mut found = 0;
    for batch in indices.chunks(1000) {
        connection.send(batch.iter().map(|&index| vec!["GET".to_owned(), words[index].to_owned()]))?;
        connection.answers(batch.len(), |at, answer| {
            found += usize::from(matches!(&answer, Frame::BulkString(is) if *is == value(batch[at]).as_bytes()));
        })?;
    }
    let moment = |moment: Option<u128>| moment.map_or_else(|| "null".to_owned(), |moment| moment.to_string());
    println!(
        "{{\"acknowledged\":{},\"found\":{found},\"killed_at\":{},\"answered_at\":{}}}",
        acknowledged.len(),
        moment(moments.killed),
        moment(moments.answered),
    );
    Ok(found == acknowledged.len() && found == words.len())
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

impl Connection {
    /// The first server that answers.
    fn to_any(servers: &[String]) -> Result<Self, Failure> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            for server in servers {
                if let Ok(connection) = Self::to(server) {
                    return Ok(connection);
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(format!("none of {} has answered for {} s", servers.join(", "), PATIENCE.as_secs()).into())
    }

    fn to(server: &str) -> Result<Self, Failure> {
        let address = server.to_socket_addrs()?.next().ok_or("no address")?;
        let stream = TcpStream::connect_timeout(&address, Duration::from_millis(200))?;
        stream.set_nodelay(true)?;
        // A node that is gone does not say so.
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        let mut connection = Self { stream, input: Vec::new() };
        connection.send(std::iter::once(vec!["PING".to_owned()]))?;
        connection.answers(1, |_, _| {})?;
        Ok(connection)
    }

    fn send(&mut self, commands: impl Iterator<Item = Vec<String>>) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        for command in commands {
            write!(bytes, "*{}\r\n", command.len())?;
            for word in command {
                write!(bytes, "${}\r\n{word}\r\n", word.len())?;
            }
        }
        Ok(self.stream.write_all(&bytes)?)
    }

    fn answers(&mut self, count: usize, mut take: impl FnMut(usize, Frame)) -> Result<(), Failure> {
        let mut chunk = [0; 64 << 10];
        let mut at = 0;
        while at < count {
            let mut used = 0;
            while let Some((frame, length)) = decode(&self.input[used..])? {
                take(at, frame);
                at += 1;
                used += length;
            }
            self.input.drain(..used);
            if at < count {
                let read = self.stream.read(&mut chunk)?;
                if read == 0 {
                    return Err("the connection was closed".into());
                }
                self.input.extend_from_slice(&chunk[..read]);
            }
        }
        Ok(())
    }
}
