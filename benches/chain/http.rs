//! As much of an HTTP/1.1 client as the load needs.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::permission::{BYTES, ITEMS, SINK};

/// How much one bulk transfer moves.
pub const BULK: usize = 64 << 20;

const BUFFER: usize = 16 << 10;
const BULK_BUFFER: usize = 256 << 10;

/// A kept-alive connection.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl Connection<TcpStream> {
    /// Connects.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Over a stream that is open.
    pub fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Gives its buffer back, until the next request.
    pub fn shrink(&mut self) {
        self.buffer = Vec::new();
    }

    /// Asks for [`ITEMS`] and reads the whole answer.
    pub async fn request(&mut self) -> io::Result<()> {
        let head = format!("GET {ITEMS} HTTP/1.1\r\nHost: api\r\nUser-Agent: chain\r\nAccept: */*\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await?;
        self.answer(BUFFER).await.map(drop)
    }

    /// The same, as the last request: the other end closes after its answer.
    pub async fn last_request(mut self) -> io::Result<()> {
        let head = format!("GET {ITEMS} HTTP/1.1\r\nHost: api\r\nUser-Agent: chain\r\nAccept: */*\r\nConnection: close\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await?;
        self.answer(BUFFER).await?;
        match self.stream.read(&mut self.buffer).await? {
            0 => Ok(()),
            _ => Err(broken("there is more behind the answer")),
        }
    }

    /// The status of an answer whose body does not matter.
    pub async fn status_of(mut self, method: &str, path: &str) -> io::Result<u16> {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: api\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await?;
        self.buffer.resize(BUFFER, 0);
        let mut filled = 0;
        while end_of_head(&self.buffer[..filled]).is_none() {
            filled += some(self.stream.read(&mut self.buffer[filled..]).await?)?;
        }
        let status = self.buffer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| std::str::from_utf8(&rest[..3]).ok());
        status.and_then(|status| status.parse().ok()).ok_or_else(|| broken("the answer has no status"))
    }

    /// Reads [`BULK`] bytes from the service.
    pub async fn download(&mut self) -> io::Result<()> {
        let head = format!("GET {BYTES} HTTP/1.1\r\nHost: api\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await?;
        let length = self.answer(BULK_BUFFER).await?;
        if length == BULK { Ok(()) } else { Err(broken("the body is shorter than was asked for")) }
    }

    /// Sends [`BULK`] bytes to the service, which answers when it has them all.
    pub async fn upload(&mut self) -> io::Result<()> {
        let head = format!("POST {SINK} HTTP/1.1\r\nHost: api\r\nContent-Length: {BULK}\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await?;
        let piece = vec![b'x'; BULK_BUFFER];
        for _ in 0..BULK / BULK_BUFFER {
            self.stream.write_all(&piece).await?;
        }
        self.answer(BUFFER).await.map(drop)
    }

    /// The length of the body.
    async fn answer(&mut self, buffer: usize) -> io::Result<usize> {
        self.buffer.resize(buffer, 0);
        let mut filled = 0;
        let (head, length) = loop {
            filled += some(self.stream.read(&mut self.buffer[filled..]).await?)?;
            if let Some(head) = end_of_head(&self.buffer[..filled]) {
                break (head, length_in(&self.buffer[..head])?);
            }
            if filled == self.buffer.len() {
                return Err(broken("the head of the answer has no end"));
            }
        };
        let mut missing = length.saturating_sub(filled - head);
        while missing > 0 {
            let room = missing.min(self.buffer.len());
            missing -= some(self.stream.read(&mut self.buffer[..room]).await?)?;
        }
        Ok(length)
    }
}

fn some(read: usize) -> io::Result<usize> {
    if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(read) }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Where the body begins.
pub fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// The status must be 200.
fn length_in(head: &[u8]) -> io::Result<usize> {
    if !head.starts_with(b"HTTP/1.1 200 ") {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        return Err(broken(&format!("the status is not 200: {}", String::from_utf8_lossy(line))));
    }
    content_length(head).ok_or_else(|| broken("the answer has no Content-Length"))
}

/// The value of Content-Length.
pub fn content_length(head: &[u8]) -> Option<usize> {
    let name = b"\r\nContent-Length: ";
    let at = head.windows(name.len()).position(|window| window.eq_ignore_ascii_case(name))? + name.len();
    let digits = head[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&head[at..at + digits]).ok()?.parse().ok()
}
