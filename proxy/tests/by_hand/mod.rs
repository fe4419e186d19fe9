//! A TLS client whose flights are sent by hand, whole, in part or not at all.
#![allow(dead_code)] // each test program uses a part of it

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// One connection, and how far its handshake has come.
pub struct ByHand {
    pub socket: TcpStream,
    tls: ClientConnection,
}

impl ByHand {
    /// Connects from an address of this host, and sends nothing.
    pub async fn connect(from: &str, to: SocketAddr, config: Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from.parse().expect("address"), 0))?;
        let socket = socket.connect(to).await?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned()).expect("name");
        let tls = ClientConnection::new(config, name).expect("client");
        Ok(Self { socket, tls })
    }

    fn flight(&mut self) -> Vec<u8> {
        let mut flight = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut flight).expect("a flight");
        }
        flight
    }

    /// The ClientHello, not sent yet.
    pub fn client_hello(&mut self) -> Vec<u8> {
        self.flight()
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await
    }

    pub async fn send_client_hello(&mut self) -> io::Result<()> {
        let hello = self.client_hello();
        self.send(&hello).await
    }

    /// Reads the server's flight; gives the client's last one, not sent yet.
    pub async fn finished(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 16_384];
        while self.tls.is_handshaking() {
            let length = self.socket.read(&mut buffer).await?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.tls.read_tls(&mut &buffer[..length])?;
            self.tls.process_new_packets().map_err(io::Error::other)?;
        }
        Ok(self.flight())
    }

    /// The whole handshake.
    pub async fn shake_hands(&mut self) -> io::Result<()> {
        self.send_client_hello().await?;
        let finished = self.finished().await?;
        self.send(&finished).await
    }

    /// Sends a text through the finished handshake and reads as much back.
    pub async fn say(&mut self, text: &str) -> io::Result<()> {
        io::Write::write_all(&mut self.tls.writer(), text.as_bytes())?;
        let records = self.flight();
        self.send(&records).await?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4_096];
        while answer.len() < text.len() {
            let length = self.socket.read(&mut buffer).await?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.tls.read_tls(&mut &buffer[..length])?;
            self.tls.process_new_packets().map_err(io::Error::other)?;
            let _ = io::Read::read_to_end(&mut self.tls.reader(), &mut answer);
        }
        assert_eq!(answer, text.as_bytes());
        Ok(())
    }

    /// Ends the connection by a reset.
    pub fn reset(self) {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    }
}
