//! TCP against a plain socket pair that spins: the same bytes, and a byte back.

use std::io::{BufRead, ErrorKind as Io, Read, Write};
use std::net::{TcpListener, TcpStream};

use segstore_transport::tcp::Tcp;
use segstore_transport::{Endpoint, Grant, Memory, Operation, Provider, Region, Rights, Server, ServerOptions, Wait};

use crate::shm::{self, admit, answer_probes, connect, end_probes, probe};
use crate::{Failure, Second, TURNS, answer, hex, median, time, unhex};

/// The first byte of the message after which the plain target stops.
const QUIT: u8 = 0xff;

/// Serves what the initiator asks for, one thing at a time, on one core.
pub(crate) fn target() -> Result<(), Failure> {
    let (probed, prober) = admit()?;
    let domain = Tcp::listening_on(([127, 0, 0, 1], 0)).open()?;
    let region = domain.register(&Memory::anonymous(shm::LEN)?, Rights::ALL)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut plain = None;
    let mut peers = Vec::new();
    let mut server = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        drop(server.take());
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("admit", hello) => {
                let (peer, reply) = domain.admit(&unhex(hello)?, &[Grant { region: &region, rights: Rights::ALL }])?;
                peers.push(peer);
                server = Some(serve(&domain)?);
                answer(&hex(&reply))?;
            }
            ("tcp", _) => {
                server = Some(serve(&domain)?);
                answer("ok")?;
            }
            ("listen", _) => {
                answer(&listener.local_addr()?.to_string())?;
                plain = Some(ready(listener.accept()?.0)?);
            }
            ("plain", len) => {
                answer("ok")?;
                echo(plain.as_mut().ok_or("not connected")?, len.parse()?)?;
            }
            ("probe", _) => {
                answer("ok")?;
                answer_probes(&probed, &prober)?;
            }
            (other, _) => return Err(format!("no command {other:?}").into()),
        }
    }
    Ok(())
}

fn serve(domain: &segstore_transport::Domain) -> Result<Server, Failure> {
    Ok(Server::start(domain, &ServerOptions { name: "tcp".into(), cpus: vec![1], wait: Wait::Busy })?)
}

fn ready(socket: TcpStream) -> Result<TcpStream, Failure> {
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Takes messages of `len` bytes and answers each with one, until it is told to stop.
fn echo(socket: &mut TcpStream, len: usize) -> Result<(), Failure> {
    let mut bytes = vec![0; len];
    loop {
        spin(&mut bytes, |rest| socket.read(rest))?;
        spin(&mut [0], |rest| socket.write(rest))?;
        if bytes[0] == QUIT {
            return Ok(());
        }
    }
}

/// Calls until everything went through.
fn spin(bytes: &mut [u8], mut act: impl FnMut(&mut [u8]) -> std::io::Result<usize>) -> Result<(), Failure> {
    let mut done = 0;
    while done < bytes.len() {
        match act(&mut bytes[done..]) {
            Ok(0) => return Err("the other side is gone".into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == Io::WouldBlock => std::hint::spin_loop(),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

struct Bench {
    second: Second,
    plain: TcpStream,
    endpoint: Endpoint,
    local: Region,
}

pub(crate) fn measure() -> Result<(), Failure> {
    let mut second = Second::start("tcp-target")?;
    let (mut prober, probed) = connect(&mut second)?;
    let plain = ready(TcpStream::connect(second.ask("listen")?)?)?;
    let domain = Tcp::dialing_only().open()?;
    let dialing = domain.dial()?;
    let reply = second.ask(&format!("admit {}", hex(dialing.hello())))?;
    let endpoint = dialing.complete(&unhex(&reply)?)?;
    let local = domain.register(&Memory::anonymous(shm::LEN)?, Rights::LOCAL)?;
    local.memory().write_at(0, &vec![1; shm::LEN])?;
    let mut bench = Bench { second, plain, endpoint, local };
    println!("{:<36}{:>10}{:>10}{:>8}{:>14}", "", "tcp us", "plain us", "ratio", "cache line us");
    // What is moved, and the length of the plain message.
    let rows: [(&str, &[usize], bool, usize); 8] = [
        ("write 64 B", &[64], false, 64),
        ("write 4 KiB", &[4096], false, 4096),
        ("batch 64 B, 16 B, 4 KiB, 250 B", &[64, 16, 4096, 250], false, 4096),
        ("write 64 KiB", &[65536], false, 65536),
        ("write 1 MiB", &[1 << 20], false, 1 << 20),
        ("256 writes of 4 KiB in a batch", &[4096; 256], false, 1 << 20),
        ("read 64 B", &[64], true, 64),
        ("read 1 MiB", &[1 << 20], true, 1 << 20),
    ];
    for (name, lens, reading, plain) in rows {
        let (ours, theirs) = bench.row(lens, reading, plain)?;
        bench.second.ask("probe")?;
        let line = probe(&mut prober, &probed)?;
        end_probes(&mut prober, &probed)?;
        println!("{name:<36}{ours:>10.2}{theirs:>10.2}{:>8.2}{line:>14.2}", ours / theirs);
    }
    Ok(())
}

impl Bench {
    /// Both ways in turn, so that a change of the machine meets both.
    fn row(&mut self, lens: &[usize], reading: bool, plain: usize) -> Result<(f64, f64), Failure> {
        let times = ((8 << 20) / plain).clamp(8, 500);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let mut message = vec![1; plain];
        let mut at = 0;
        let mut batch = Vec::new();
        for &len in lens {
            let slice = self.local.slice(at, len)?;
            batch.push(if reading {
                Operation::read(slice, 0, at as u64)
            } else {
                Operation::write(slice, 0, at as u64)
            });
            at += len;
        }
        for _ in 0..TURNS {
            self.second.ask("tcp")?;
            let endpoint = &mut self.endpoint;
            let mut act = || {
                endpoint.post(&batch, 0)?;
                endpoint.wait(Wait::Busy, None).ok_or("not completed")?.result?;
                Ok(())
            };
            time(times / 4 + 1, &mut act)?;
            ours.push(time(times, &mut act)?);
            self.second.ask(&format!("plain {plain}"))?;
            let socket = &mut self.plain;
            let mut act = |message: &mut [u8]| {
                spin(message, |rest| socket.write(rest))?;
                spin(&mut [0], |rest| socket.read(rest))
            };
            time(times / 4 + 1, || act(&mut message))?;
            theirs.push(time(times, || act(&mut message))?);
            message[0] = QUIT;
            act(&mut message)?;
            message[0] = 1;
        }
        Ok((median(ours), median(theirs)))
    }
}
