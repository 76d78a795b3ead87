//! Connections: one thread each, and one that has the database.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};

use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::encode::encode;
use redis_protocol::resp2::types::{OwnedFrame, Resp2Frame};

use crate::command::Command;
use crate::store::{Batch, Store};

type Failure = Box<dyn std::error::Error>;

/// Serves until the database cannot be committed any more.
pub(crate) fn serve(listener: &TcpListener, store: &Store) -> Result<(), Failure> {
    let (sender, batches) = channel();
    let listener = listener.try_clone()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                // A client that goes away is no concern of the others.
                let _ = converse(stream, &sender);
            });
        }
    });
    store.serve(&batches)
}

/// Whatever a client has sent so far is one batch.
fn converse(mut stream: TcpStream, store: &Sender<Batch>) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    let (answers, answered) = channel();
    let (mut input, mut output) = (Vec::new(), Vec::new());
    let mut chunk = vec![0; 64 << 10];
    loop {
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return Ok(());
        }
        input.extend_from_slice(&chunk[..read]);
        let (mut commands, mut used) = (Vec::new(), 0);
        while let Some((frame, length)) = decode(&input[used..])? {
            commands.push(Command::parse(frame));
            used += length;
        }
        input.drain(..used);
        if commands.is_empty() {
            continue;
        }
        store.send(Batch { commands, answers: answers.clone() })?;
        output.clear();
        for frame in answered.recv()? {
            append(&mut output, &frame)?;
        }
        stream.write_all(&output)?;
    }
}

fn append(output: &mut Vec<u8>, frame: &OwnedFrame) -> Result<(), Failure> {
    let start = output.len();
    output.resize(start + frame.encode_len(false), 0);
    let written = encode(&mut output[start..], frame, false)?;
    output.truncate(start + written);
    Ok(())
}
