//! A target and a writer on two machines, with a TCP connection as their control channel. The writer says how many writes were
//! acknowledged, the longest pause between two of them, and what ended it.
//!
//!     two_nodes target rxe0 7000
//!     two_nodes writer rxe0 10.9.0.1:7000 500         the patience in milliseconds
//!     two_nodes writer rxe0 10.9.0.1:7000 500 10      for so many seconds, unless something ends it before

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use segstore_transport::verbs::Verbs;
use segstore_transport::{Grant, Memory, Operation, Provider, Rights, Wait};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["target", device, port] => target(device, port.parse()?),
        ["writer", device, address, patience] => writer(device, address, patience.parse()?, u64::MAX),
        ["writer", device, address, patience, seconds] => writer(device, address, patience.parse()?, seconds.parse()?),
        _ => Err("usage: two_nodes target DEVICE PORT | writer DEVICE ADDRESS:PORT PATIENCE [SECONDS]".into()),
    }
}

/// Admits one writer after the other; each is revoked when its control channel ends.
fn target(device: &str, port: u16) -> Result<()> {
    let domain = Verbs::new().device(device).open()?;
    let region = domain.register(&Memory::anonymous(4096)?, Rights::ALL)?;
    for channel in TcpListener::bind(("0.0.0.0", port))?.incoming() {
        let mut channel = channel?;
        let (peer, reply) =
            domain.admit(&receive(&mut channel)?, &[Grant { region: &region, rights: Rights::WRITE }])?;
        send(&mut channel, &reply)?;
        let _ = receive(&mut channel);
        println!("the writer ended: {:?}", peer.revoke()?);
    }
    Ok(())
}

fn writer(device: &str, address: &str, patience: u64, seconds: u64) -> Result<()> {
    let domain = Verbs::new().device(device).patience(Duration::from_millis(patience)).open()?;
    let local = domain.register(&Memory::anonymous(64)?, Rights::LOCAL)?;
    let mut channel = TcpStream::connect(address)?;
    let dialing = domain.dial()?;
    send(&mut channel, dialing.hello())?;
    let mut endpoint = dialing.complete(&receive(&mut channel)?)?;
    let (began, mut last, mut longest, mut count) = (Instant::now(), Instant::now(), Duration::ZERO, 0_u64);
    let ended = loop {
        if began.elapsed().as_secs() >= seconds {
            break "its time".to_string();
        }
        endpoint.post(&[Operation::write(local.all(), 0, 0)], count)?;
        match endpoint.wait(Wait::Event, None).map(|completion| completion.result) {
            Some(Err(error)) => break format!("{error:?}"),
            _ => count += 1,
        }
        longest = longest.max(last.elapsed());
        last = Instant::now();
    };
    let (longest, last) = (longest.as_millis(), last.elapsed().as_millis());
    println!("{count} writes; the longest pause was {longest} ms; ended {last} ms after the last by {ended}");
    Ok(())
}

fn send(channel: &mut TcpStream, message: &[u8]) -> Result<()> {
    channel.write_all(&u32::try_from(message.len())?.to_be_bytes())?;
    Ok(channel.write_all(message)?)
}

fn receive(channel: &mut TcpStream) -> Result<Vec<u8>> {
    let mut len = [0; 4];
    channel.read_exact(&mut len)?;
    let mut message = vec![0; usize::try_from(u32::from_be_bytes(len))?.min(1 << 16)];
    channel.read_exact(&mut message)?;
    Ok(message)
}
