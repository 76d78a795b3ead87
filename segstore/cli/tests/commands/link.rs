//! A link between two daemons that can be cut: then nothing gets through, and nobody is told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) struct Link {
    at: SocketAddr,
    is_cut: Arc<AtomicBool>,
}

impl Link {
    /// To whoever listens at `far`.
    pub(crate) fn to(far: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (at, is_cut) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let cut = is_cut.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(&far) else { continue };
                carry(near.try_clone().unwrap(), far.try_clone().unwrap(), cut.clone());
                carry(far, near, cut.clone());
            }
        });
        Self { at, is_cut }
    }

    /// Where it begins.
    pub(crate) fn address(&self) -> String {
        self.at.to_string()
    }

    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }

    pub(crate) fn join(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, is_cut: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let mut bytes = [0; 1 << 16];
        loop {
            let read = from.read(&mut bytes).unwrap_or(0);
            // Both ends stay open, and what was sent comes when the cable is in again.
            while is_cut.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(10));
            }
            if read == 0 || to.write_all(&bytes[..read]).is_err() {
                let _ = to.shutdown(std::net::Shutdown::Both);
                return;
            }
        }
    });
}
