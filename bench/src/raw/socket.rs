//! Plain sockets that spin: bytes there, bytes back.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{Result, Role, Way};

/// One byte: it has arrived.
const ANSWER: usize = 1;

/// Connections to the other core.
struct Connections {
    near: Vec<TcpStream>,
    far: Vec<TcpStream>,
}

fn connect(count: usize) -> Result<Connections> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for _ in 0..count {
        near.push(ready(TcpStream::connect(listener.local_addr()?)?)?);
        far.push(ready(listener.accept()?.0)?);
    }
    Ok(Connections { near, far })
}

fn ready(socket: TcpStream) -> Result<TcpStream> {
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// `ask` bytes to each of `count` others, and `answer` bytes from each.
///
/// # Errors
/// No sockets.
pub fn round_trip(ask: usize, answer: usize, count: usize) -> Result<Way<'static>> {
    let Connections { mut near, far } = connect(count)?;
    let (mut question, mut reply) = (vec![1; ask], vec![0; answer]);
    let act = move || {
        near.iter_mut().try_for_each(|socket| spin(&mut question, |rest| socket.write(rest)))?;
        near.iter_mut().try_for_each(|socket| spin(&mut reply, |rest| socket.read(rest)))
    };
    Ok(Way { what: "plain sockets", other: Some(echo(far, ask, answer, |_| ())), act: Box::new(act) })
}

/// `ask` bytes and an answer of one byte.
///
/// # Errors
/// No sockets.
pub fn acknowledged(ask: usize, count: usize) -> Result<Way<'static>> {
    round_trip(ask, ANSWER, count)
}

/// A byte to the other side, and `len` bytes from it, each time into fresh memory.
///
/// # Errors
/// No sockets.
pub fn into_fresh_memory(len: usize) -> Result<Way<'static>> {
    let Connections { mut near, far } = connect(1)?;
    let act = move || {
        // Zeros that nobody has touched: pages come when bytes arrive for them.
        let mut reply = vec![0; len];
        near.iter_mut().try_for_each(|socket| spin(&mut [1; ANSWER], |rest| socket.write(rest)))?;
        near.iter_mut().try_for_each(|socket| spin(&mut reply, |rest| socket.read(rest)))
    };
    Ok(Way { what: "plain socket", other: Some(echo(far, ANSWER, len, |_| ())), act: Box::new(act) })
}

/// `ask` bytes, until the other core has seen them.
///
/// # Errors
/// No sockets.
pub fn one_way(ask: usize) -> Result<Way<'static>> {
    let Connections { mut near, far } = connect(1)?;
    let seen = Arc::new(AtomicU64::new(0));
    let (mut question, mut number) = (vec![1; ask], 0);
    let other = {
        let seen = seen.clone();
        echo(far, ask, 0, move |count| seen.store(count, Ordering::Release))
    };
    let act = move || {
        near.iter_mut().try_for_each(|socket| spin(&mut question, |rest| socket.write(rest)))?;
        number += 1;
        while seen.load(Ordering::Acquire) != number {
            std::hint::spin_loop();
        }
        Ok(())
    };
    Ok(Way { what: "plain socket", other: Some(other), act: Box::new(act) })
}

/// The other side: takes questions from every socket, and answers each. `told` hears how many there were.
fn echo(sockets: Vec<TcpStream>, ask: usize, answer: usize, told: impl Fn(u64) + Send + Sync + 'static) -> Role {
    struct Side {
        sockets: Vec<(TcpStream, usize)>,
        question: Vec<u8>,
        reply: Vec<u8>,
        count: u64,
    }
    let sockets = sockets.into_iter().map(|socket| (socket, 0)).collect();
    let side = Mutex::new(Side { sockets, question: vec![0; ask], reply: vec![1; answer], count: 0 });
    Arc::new(move |stop: &AtomicBool| {
        // The lock is this thread's alone while it plays.
        let mut side = side.lock().unwrap_or_else(PoisonError::into_inner);
        let Side { sockets, question, reply, count } = &mut *side;
        while !stop.load(Ordering::Relaxed) {
            for (socket, received) in sockets.iter_mut() {
                match socket.read(&mut question[*received..]) {
                    Ok(0) => return,
                    Ok(bytes) => *received += bytes,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
                    Err(_) => return,
                }
                if *received == question.len() {
                    *received = 0;
                    *count += 1;
                    told(*count);
                    if spin(reply, |rest| socket.write(rest)).is_err() {
                        return;
                    }
                }
            }
        }
    })
}

/// Calls until everything went through.
fn spin(bytes: &mut [u8], mut act: impl FnMut(&mut [u8]) -> std::io::Result<usize>) -> Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match act(&mut bytes[done..]) {
            Ok(0) => return Err("the other side of a plain socket is gone".into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
