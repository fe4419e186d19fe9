//! Sockets, connections and their limits.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::answer::Zone;
use super::catalog::Catalog;
use super::listener::{DnsError, DnsListener};
use super::message::{Reply, Room, Unfinished, reply};
use super::recursor::{Recursors, Way};
use crate::http::serve::network;

/// Bytes of a question over UDP.
const DATAGRAM: usize = 4096;
/// Bytes of an answer over UDP to another host: no path makes fragments of them.
const ROOM_FAR: u16 = 1232;
/// Bytes of an answer over UDP on loopback, where nothing is lost.
const ROOM_NEAR: u16 = 8192;
/// Connections of all clients.
const CONNECTIONS: usize = 1024;
/// Connections of one IPv4 address or one /64 of IPv6.
const CONNECTIONS_PER_ADDRESS: usize = 64;
/// For the next question of a connection to arrive whole.
const IDLE: Duration = Duration::from_secs(10);
/// For an answer to be taken.
const WRITE: Duration = Duration::from_secs(5);
const BACK_OFF: Duration = Duration::from_millis(50);

/// What every question is answered with.
struct Answering {
    catalog: Arc<dyn Catalog + Send + Sync>,
    zone: Zone,
    recursors: Recursors,
    connections: Mutex<HashMap<IpAddr, usize>>,
}

/// DNS, served.
pub struct DnsServer {
    stop: CancellationToken,
    serving: JoinSet<()>,
    address: SocketAddr,
}

impl DnsServer {
    /// Serves until [`DnsServer::shut_down`].
    ///
    /// # Errors
    /// [`DnsError::AsksItself`].
    pub fn start(
        listener: DnsListener,
        catalog: Arc<dyn Catalog + Send + Sync>,
        recursors: Vec<SocketAddr>,
    ) -> Result<Self, DnsError> {
        let address = listener.local_addr();
        if let Some(itself) = recursors.iter().find(|recursor| **recursor == address) {
            return Err(DnsError::AsksItself(*itself));
        }
        let zone = Zone { address: Some(address.ip()).filter(|ip| !ip.is_unspecified()) };
        let recursors = Recursors::new(recursors);
        let answering = Arc::new(Answering { catalog, zone, recursors, connections: Mutex::default() });
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(stop.clone().run_until_cancelled_owned(datagrams(Arc::clone(&answering), listener.udp)));
        serving.spawn(stop.clone().run_until_cancelled_owned(connections(answering, listener.tcp)));
        let mut owned = JoinSet::new();
        owned.spawn(async move { while serving.join_next().await.is_some() {} });
        Ok(Self { stop, serving: owned, address })
    }

    /// HOST:PORT as bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers nothing more.
    pub async fn shut_down(mut self) {
        self.stop.cancel();
        self.serving.shutdown().await;
    }
}

async fn datagrams(answering: Arc<Answering>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut asking = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        while asking.try_join_next().is_some() {}
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "a question did not arrive");
                tokio::time::sleep(BACK_OFF).await;
                continue;
            }
        };
        let room = Room::Udp(if from.ip().to_canonical().is_loopback() { ROOM_NEAR } else { ROOM_FAR });
        match answering.reply(buffer.get(..length).unwrap_or_default(), room) {
            Reply::Nothing => {}
            Reply::Send(answer) => send(&socket, &answer, from).await,
            Reply::Ask(unfinished) => {
                let (answering, socket) = (Arc::clone(&answering), Arc::clone(&socket));
                // Without a place the client hears at once that it failed.
                let place = answering.recursors.place();
                asking.spawn(async move {
                    let said = if place.is_some() { answering.ask(&unfinished, Way::Udp).await } else { None };
                    if let Reply::Send(answer) = unfinished.complete(said.as_deref()) {
                        send(&socket, &answer, from).await;
                    }
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(answer, to).await {
        tracing::debug!(%error, %to, "an answer was not sent");
    }
}

async fn connections(answering: Arc<Answering>, listener: TcpListener) {
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the DNS server");
                tokio::time::sleep(BACK_OFF).await;
                continue;
            }
        };
        let place = if open.len() < CONNECTIONS { answering.place_of(from.ip()) } else { None };
        let Some(place) = place else {
            tracing::debug!(%from, "too many DNS connections: closed");
            continue;
        };
        let answering = Arc::clone(&answering);
        open.spawn(async move {
            if let Err(error) = answering.converse(stream).await {
                tracing::debug!(%error, %from, "a DNS connection ended");
            }
            drop(place);
        });
    }
}

/// A connection counts until this is dropped.
struct Place {
    answering: Arc<Answering>,
    network: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut connections = self.answering.connections.lock();
        if let Some(count) = connections.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.network);
            }
        }
    }
}

impl Answering {
    fn reply(&self, request: &[u8], room: Room) -> Reply {
        reply(request, self.catalog.as_ref(), &self.zone, room, !self.recursors.is_empty(), &mut rand::rng())
    }

    async fn ask(&self, unfinished: &Unfinished, way: Way) -> Option<Vec<u8>> {
        let question = unfinished.question().ok()?;
        self.recursors.ask(&question, way).await
    }

    fn place_of(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let network = network(address);
        let mut connections = self.connections.lock();
        let count = connections.entry(network).or_default();
        if *count >= CONNECTIONS_PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Place { answering: Arc::clone(self), network })
    }

    /// One question after the other, until the client is silent or gone (RFC 7766 §6.2).
    async fn converse(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        loop {
            let Ok(request) = tokio::time::timeout(IDLE, next_request(&mut stream)).await else { return Ok(()) };
            let Some(request) = request? else { return Ok(()) };
            let answer = match self.reply(&request, Room::Tcp) {
                Reply::Ask(unfinished) => {
                    let place = self.recursors.place();
                    let said = if place.is_some() { self.ask(&unfinished, Way::Tcp).await } else { None };
                    unfinished.complete(said.as_deref())
                }
                done => done,
            };
            let Reply::Send(answer) = answer else { return Ok(()) };
            let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
            let mut framed = length.to_be_bytes().to_vec();
            framed.extend_from_slice(&answer);
            match tokio::time::timeout(WRITE, stream.write_all(&framed)).await {
                Ok(written) => written?,
                Err(_) => return Ok(()),
            }
        }
    }
}

/// A request with its length before it (RFC 1035 §4.2.2); `None` at the end.
async fn next_request(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut request = vec![0; length.into()];
    stream.read_exact(&mut request).await?;
    Ok(Some(request))
}
