//! Small servers and clients over plain TCP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::PATIENCE;

/// Sends back what it receives; counts bytes and the connections that sent any (a health probe sends none).
pub struct EchoServer {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
}

impl EchoServer {
    pub fn start() -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub fn serve(listener: TcpListener) -> Self {
        let server = Self { address: listener.local_addr().unwrap(), connections: Arc::default(), bytes: Arc::default() };
        let (connections, bytes) = (server.connections.clone(), server.bytes.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (connections, bytes) = (connections.clone(), bytes.clone());
                std::thread::spawn(move || echo(stream, &connections, &bytes));
            }
        });
        server
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }
}

fn echo(mut stream: TcpStream, connections: &AtomicUsize, bytes: &AtomicUsize) {
    let mut buffer = [0; 16 * 1024];
    let mut spoke = false;
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if !std::mem::replace(&mut spoke, true) {
            connections.fetch_add(1, Ordering::SeqCst);
        }
        bytes.fetch_add(length, Ordering::SeqCst);
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

pub fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends `text` and reads as many bytes back; `None` when the connection ended before that.
pub fn say(stream: &mut TcpStream, text: &str) -> Option<String> {
    stream.write_all(text.as_bytes()).ok()?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).ok()?;
    Some(String::from_utf8(answer).unwrap())
}

/// Whether the other side ended the connection (waits for it).
pub fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    }
}

/// A GET by hand: status and body.
pub fn http_get(address: &str, path: &str) -> (u16, String) {
    let mut stream = connect(address);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}
