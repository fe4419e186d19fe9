//! Where the service itself listens, and the dial to it.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, Socket};
use tokio::io::{AsyncWrite, Interest};
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
    /// Wraps a connected socket and sets the options that every connection has. A process of this host does not vanish
    /// without a word: only one that is elsewhere is looked after by a keepalive.
    pub fn tcp(stream: TcpStream) -> Self {
        if stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback()) {
            transport::set_no_delay(&stream);
        } else {
            transport::set_options(&stream);
        }
        Self::Tcp(stream)
    }

    /// The address of the process at the other end; the unspecified one for a UNIX socket.
    pub(crate) fn peer_ip(&self) -> IpAddr {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.ip().to_canonical()),
            Self::Unix(_) => IpAddr::from([0, 0, 0, 0]),
        }
    }

    /// Ends the connection at once: what is queued is dropped and the other end sees a reset (RFC 9293 §3.10.7), never
    /// an orderly end that could be taken for a whole answer.
    pub fn reset(self) {
        if let Self::Tcp(stream) = &self {
            transport::reset_on_close(stream);
        }
    }

    /// Whether there may be something to read.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_read_ready(cx).map(drop)
    }

    /// Reads into `slots`, in their order; 0 is the end.
    pub(crate) fn poll_read_slots(&self, cx: &mut Context<'_>, slots: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let room: usize = slots.iter().map(|slot| slot.len()).sum();
        loop {
            ready!(self.poll_read_ready(cx))?;
            let read = self.transfer(Interest::READABLE, room, |socket| socket.read_vectored(slots));
            if let Some(read) = unless_blocked(read) {
                return Poll::Ready(read);
            }
        }
    }

    /// Writes as much of `slices` as the process takes now.
    pub(crate) fn poll_write_slices(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let room: usize = slices.iter().map(|slice| slice.len()).sum();
        loop {
            ready!(self.poll_write_ready(cx))?;
            let written = self.transfer(Interest::WRITABLE, room, |socket| socket.write_vectored(slices));
            if let Some(written) = unless_blocked(written) {
                return Poll::Ready(written.and_then(|n| if n == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(n) }));
            }
        }
    }

    /// Bytes that are here already, up to the room of `bytes`; none is no end. Asks the socket and not the runtime, which
    /// knows nothing yet of one that was just accepted.
    pub(crate) fn read_ready(&self, bytes: &mut [u8]) -> usize {
        let read = match self {
            Self::Tcp(stream) => (&*SockRef::from(stream)).read(bytes),
            Self::Unix(stream) => (&*SockRef::from(stream)).read(bytes),
        };
        // An end or an error is met again by whoever reads next.
        read.unwrap_or_default()
    }

    /// Ends the sending half: the process reads an end.
    pub(crate) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = ready!(match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        });
        // One that is gone already needs no end; its other half tells how it went.
        Poll::Ready(ended.or_else(|error| if error.kind() == io::ErrorKind::NotConnected { Ok(()) } else { Err(error) }))
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    /// One transfer. A short one has emptied or filled the socket, which tokio is told in the same breath: asking again
    /// would cost a system call to hear so.
    fn transfer(
        &self,
        interest: Interest,
        room: usize,
        transfer: impl FnOnce(&mut &Socket) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut moved = None;
        let attempt = |socket: SockRef<'_>| {
            let n = transfer(&mut &*socket)?;
            moved = Some(n);
            if n > 0 && n < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
        };
        let result = match self {
            Self::Tcp(stream) => stream.try_io(interest, || attempt(SockRef::from(stream))),
            Self::Unix(stream) => stream.try_io(interest, || attempt(SockRef::from(stream))),
        };
        moved.map_or(result, Ok)
    }
}

fn unless_blocked(result: io::Result<usize>) -> Option<io::Result<usize>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        result => Some(result),
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
