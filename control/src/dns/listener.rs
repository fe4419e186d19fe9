//! Where DNS is served: a port, for UDP and TCP alike.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;

use postern_names::SettingError;
use tokio::net::{TcpListener, UdpSocket};

use crate::doctor::ports;
use crate::settings::Address;

/// How often a port that the kernel chose for UDP is looked for on TCP too.
const TRIES: usize = 16;
/// Bytes of questions that wait in the kernel while others are answered.
const RECEIVE_BUFFER: usize = 1 << 20;

/// `--dns`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DnsListen {
    /// 127.0.0.1:8600 where it is free: the mesh does not need DNS.
    #[default]
    Usual,
    /// Not at all.
    Off,
    /// Here, or the control plane does not start.
    At(Address),
}

impl FromStr for DnsListen {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        if text == "off" {
            return Ok(Self::Off);
        }
        match text.parse()? {
            Address::Unix(_) => {
                Err(SettingError("DNS is not served on UNIX sockets; write HOST:PORT, [v6]:PORT, :PORT, PORT or off".into()))
            }
            address => Ok(Self::At(address)),
        }
    }
}

impl fmt::Display for DnsListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usual => usual().fmt(f),
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// Consul's port, on loopback.
pub fn usual() -> Address {
    Address::loopback(8600)
}

/// Why DNS is not served.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The address is taken or not ours.
    #[error("cannot bind {address} for DNS: {why}; stop what is there, choose another --dns, or give --dns off")]
    Bind {
        /// The address asked for.
        address: String,
        /// The operating system's words.
        why: io::Error,
    },
    /// It would ask itself.
    #[error("--recursor {0} is the address of this DNS server, which would ask itself; name another server")]
    AsksItself(SocketAddr),
}

/// Both sockets, bound.
#[derive(Debug)]
pub struct DnsListener {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
    address: SocketAddr,
}

impl DnsListener {
    /// Binds one port for UDP and TCP.
    ///
    /// # Errors
    /// [`DnsError::Bind`] names the address, and who has it.
    pub async fn bind(address: &Address) -> Result<Self, DnsError> {
        let failed = |why: io::Error| {
            let why = match address {
                Address::Tcp { port, .. } => ports::name_holder(*port, why),
                Address::Unix(_) => why,
            };
            DnsError::Bind { address: address.to_string(), why }
        };
        let Address::Tcp { host, port } = address else { return Err(failed(io::ErrorKind::Unsupported.into())) };
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..TRIES {
            let udp = UdpSocket::bind((host.as_str(), *port)).await.map_err(failed)?;
            let bound = udp.local_addr().map_err(failed)?;
            match TcpListener::bind(bound).await {
                Ok(tcp) => {
                    if let Err(error) = socket2::SockRef::from(&udp).set_recv_buffer_size(RECEIVE_BUFFER) {
                        tracing::debug!(%error, "the receive buffer keeps its size");
                    }
                    return Ok(Self { udp, tcp, address: bound });
                }
                Err(error) if *port == 0 && error.kind() == io::ErrorKind::AddrInUse => last = error,
                Err(error) => return Err(failed(error)),
            }
        }
        Err(failed(last))
    }

    /// As bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_is_somewhere_or_off() {
        assert_eq!("off".parse(), Ok(DnsListen::Off));
        assert_eq!("5353".parse(), Ok(DnsListen::At(Address::loopback(5353))));
        assert!("unix:/run/dns".parse::<DnsListen>().unwrap_err().to_string().contains("UNIX"));
    }

    #[tokio::test]
    async fn both_sockets_have_one_port_and_a_taken_one_is_named() {
        let first = DnsListener::bind(&Address::loopback(0)).await.unwrap();
        assert_eq!(first.tcp.local_addr().unwrap(), first.udp.local_addr().unwrap());
        let taken = first.local_addr().port();
        let error = DnsListener::bind(&Address::loopback(taken)).await.unwrap_err().to_string();
        assert!(error.contains(&taken.to_string()) && error.contains("--dns off"), "{error}");
    }
}
