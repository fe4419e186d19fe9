//! Other servers, asked one after the other for names that are not ours.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use postern_names::SettingError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::message::{is_answer_to, renumber};

/// For each server, as Consul has it.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Questions that are with other servers at once; more fail at once.
const AT_ONCE: usize = 512;
/// Bytes of an answer over UDP.
const DATAGRAM: usize = 4096;

/// Which way a question goes on: the way that it came, so that an answer which does not fit is cut once only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// One datagram each way.
    Udp,
    /// A connection.
    Tcp,
}

/// Other servers.
#[derive(Debug, Clone)]
pub struct Recursors {
    servers: Arc<[SocketAddr]>,
    places: Arc<Semaphore>,
}

impl Recursors {
    /// Asked in this order.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers: servers.into(), places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// A place for one more question; `None` where too many are under way.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// The first answer that comes.
    pub async fn ask(&self, question: &[u8], way: Way) -> Option<Vec<u8>> {
        for server in self.servers.iter() {
            let mut question = question.to_vec();
            // A number of our own: whoever guesses an answer has to guess it too.
            renumber(&mut question, rand::random());
            let asked = async {
                match way {
                    Way::Udp => by_datagram(*server, &question).await,
                    Way::Tcp => by_connection(*server, &question).await,
                }
            };
            match tokio::time::timeout(TIMEOUT, asked).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "a recursor failed"),
                Err(_) => tracing::debug!(%server, "a recursor did not answer in time"),
            }
        }
        None
    }
}

async fn by_datagram(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..length).unwrap_or_default();
        if is_answer_to(answer, question) {
            return Ok(answer.to_vec());
        }
    }
}

async fn by_connection(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(question);
    stream.write_all(&framed).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    if is_answer_to(&answer, question) { Ok(answer) } else { Err(io::Error::other("it answered another question")) }
}

/// `--recursor`: HOST:PORT, or an address that is asked on port 53.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recursor(pub SocketAddr);

impl FromStr for Recursor {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let with_port = text.parse::<SocketAddr>();
        let address = with_port.or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)));
        let address =
            address.map_err(|_| SettingError(format!("{text:?} is not a DNS server; write IP, IP:PORT or [v6]:PORT")))?;
        if address.ip().is_unspecified() || address.port() == 0 {
            return Err(SettingError(format!("{text:?} cannot be asked; write the address of a DNS server")));
        }
        Ok(Self(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recursor_is_asked_on_port_53_unless_another_is_given() {
        for (text, address) in [("10.0.0.1", "10.0.0.1:53"), ("10.0.0.1:5353", "10.0.0.1:5353"), ("fd00::1", "[fd00::1]:53")] {
            assert_eq!(text.parse::<Recursor>(), Ok(Recursor(address.parse().unwrap())));
        }
        for text in ["", "dns.example.com", "0.0.0.0", "10.0.0.1:0"] {
            assert!(text.parse::<Recursor>().is_err(), "{text}");
        }
    }
}
