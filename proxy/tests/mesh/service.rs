//! Services behind sidecars, and a socket that is slow to speak.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use postern_proxy::data_plane::LocalTarget;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::PATIENCE;

/// A service behind a sidecar.
pub struct Service {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    ends: watch::Receiver<Option<Result<(), io::ErrorKind>>>,
}

impl Service {
    /// One that sends back what it gets.
    pub async fn echo() -> Self {
        Self::greeting("").await
    }

    /// One that says something first.
    pub async fn greeting(greeting: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let connections = Arc::new(AtomicUsize::new(0));
        let (ended, ends) = watch::channel(None);
        let accepted = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                let ended = ended.clone();
                tokio::spawn(async move {
                    let end = echo(stream, greeting).await.map_err(|error| error.kind());
                    ended.send_replace(Some(end));
                });
            }
        });
        Self { address, connections, ends }
    }

    pub fn target(&self) -> LocalTarget {
        LocalTarget::Socket(self.address)
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// How the last connection ended.
    pub async fn last_end(&self) -> Result<(), io::ErrorKind> {
        let mut ends = self.ends.clone();
        let end = tokio::time::timeout(PATIENCE, ends.wait_for(Option::is_some)).await.expect("an end in time");
        end.expect("service").expect("some")
    }
}

async fn echo(mut stream: TcpStream, greeting: &str) -> io::Result<()> {
    stream.write_all(greeting.as_bytes()).await?;
    let mut buffer = vec![0; 65_536];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buffer[..read]).await?;
    }
}

/// A socket that sends one byte at a time.
pub struct ByteByByte(pub TcpStream);

impl AsyncRead for ByteByByte {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for ByteByByte {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let one = &buf[..buf.len().min(1)];
        self.0.set_nodelay(true)?;
        Pin::new(&mut self.0).poll_write(cx, one)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
