//! The service of the lines that carry bytes: an HTTP/1.1 server with kept-alive connections, on a thread of its own.

use std::io;
use std::net::SocketAddr;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::http::{BULK, content_length, end_of_head};
use crate::permission::BYTES;

const BODY: usize = 200;
const BUFFER: usize = 4 << 10;
const BULK_BUFFER: usize = 256 << 10;

/// Starts it; it ends with the process.
pub fn start() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("cannot bind a port on loopback")?;
    let listener = socket2::Socket::from(listener);
    // The standard library asks for 128.
    listener.listen(4096)?;
    listener.set_nonblocking(true)?;
    let listener = std::net::TcpListener::from(listener);
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("service".into()).spawn(move || runtime.block_on(accept(listener)))?;
    Ok(address)
}

async fn accept(listener: std::net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A caller that goes away ends its connection and nothing else.
            let _ = serve(stream).await;
        });
    }
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let small = answer_of(BODY, &[b'x'; BODY]);
    let download = format!("GET {BYTES} ").into_bytes();
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let Some(head) = end_of_head(&buffer[..filled]) else { continue };
        if buffer.starts_with(&download) {
            send(&mut stream, BULK).await?;
            buffer.copy_within(head..filled, 0);
            filled -= head;
        } else if let Some(length) = content_length(&buffer[..head]) {
            swallow(&mut stream, length.saturating_sub(filled - head)).await?;
            stream.write_all(&small).await?;
            filled = 0;
        } else {
            stream.write_all(&small).await?;
            buffer.copy_within(head..filled, 0);
            filled -= head;
        }
    }
}

fn answer_of(length: usize, body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    answer.extend_from_slice(body);
    answer
}

async fn send(stream: &mut TcpStream, length: usize) -> io::Result<()> {
    stream.write_all(&answer_of(length, &[])).await?;
    let piece = vec![b'x'; BULK_BUFFER];
    let mut missing = length;
    while missing > 0 {
        let now = missing.min(piece.len());
        stream.write_all(&piece[..now]).await?;
        missing -= now;
    }
    Ok(())
}

async fn swallow(stream: &mut TcpStream, length: usize) -> io::Result<()> {
    let mut buffer = vec![0; BULK_BUFFER];
    let mut missing = length;
    while missing > 0 {
        let room = missing.min(buffer.len());
        let read = stream.read(&mut buffer[..room]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        missing -= read;
    }
    Ok(())
}
