//! Where the service itself listens, and the dial to it.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::transport;

/// The address of one port of the service beside this sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalTarget {
    /// A TCP address that needs no look-up.
    Socket(SocketAddr),
    /// A DNS name, resolved again at each dial.
    Name {
        /// The name to resolve.
        host: String,
        /// The TCP port.
        port: u16,
    },
    /// A UNIX stream socket.
    Unix(PathBuf),
}

/// Why a text is not an address of the service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not the address of a service: {why}; use HOST:PORT, [v6]:PORT, :PORT, PORT or unix:/path")]
pub struct LocalTargetError {
    given: String,
    why: &'static str,
}

impl LocalTarget {
    /// Connects to the service, within `timeout` from name to connection.
    pub async fn dial(&self, timeout: Duration) -> io::Result<LocalStream> {
        let dialled = tokio::time::timeout(timeout, self.connect()).await;
        dialled.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
    }

    async fn connect(&self) -> io::Result<LocalStream> {
        match self {
            Self::Socket(address) => Ok(LocalStream::tcp(TcpStream::connect(address).await?)),
            Self::Name { host, port } => Ok(LocalStream::tcp(TcpStream::connect((host.as_str(), *port)).await?)),
            Self::Unix(path) => Ok(LocalStream::Unix(UnixStream::connect(path).await?)),
        }
    }
}

impl FromStr for LocalTarget {
    type Err = LocalTargetError;

    fn from_str(text: &str) -> Result<Self, LocalTargetError> {
        let refuse = |why| LocalTargetError { given: text.chars().take(200).collect(), why };
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(refuse("the path is not absolute")) };
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(refuse("port 0 cannot be dialled")) } else { Ok(Self::Socket(address)) };
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let port: u16 = port.parse().map_err(|_| refuse("the port is not a number from 1 to 65535"))?;
        if port == 0 {
            return Err(refuse("port 0 cannot be dialled"));
        }
        if host.is_empty() {
            return Ok(Self::Socket(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port)));
        }
        let is_a_name = host.len() <= 253 && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !is_a_name {
            return Err(refuse("the host is neither a name nor an address"));
        }
        Ok(Self::Name { host: host.to_owned(), port })
    }
}

impl fmt::Display for LocalTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => write!(f, "{address}"),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A plain byte stream to a process of this host: the service behind the sidecar, or the caller in front of an upstream.
#[derive(Debug)]
pub enum LocalStream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a UNIX socket.
    Unix(UnixStream),
}

impl LocalStream {
    /// Wraps a connected socket and sets the options that every connection has.
    pub fn tcp(stream: TcpStream) -> Self {
        transport::set_options(&stream);
        Self::Tcp(stream)
    }

    /// Ends the connection at once: what is queued is dropped and the other end sees a reset (RFC 9293 §3.10.7), never
    /// an orderly end that could be taken for a whole answer.
    pub fn reset(self) {
        if let Self::Tcp(stream) = &self {
            transport::reset_on_close(stream);
        }
    }
}

impl AsyncRead for LocalStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_address_is_read_and_shown() {
        for (text, shown) in [
            ("8080", "127.0.0.1:8080"),
            (":8080", "127.0.0.1:8080"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("db.example.com:5432", "db.example.com:5432"),
            ("unix:/run/api.sock", "unix:/run/api.sock"),
        ] {
            assert_eq!(text.parse::<LocalTarget>().map(|t| t.to_string()), Ok(shown.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_dialled_is_refused() {
        for text in ["", "0", "db", "db:", "db:0", "db:70000", "unix:relative", "a b:80", "::1:80", "127.0.0.1:0"] {
            assert!(text.parse::<LocalTarget>().is_err(), "{text}");
        }
    }
}
